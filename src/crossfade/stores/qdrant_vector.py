"""One named vector of the points of a Qdrant collection, and two of them side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from crossfade.stores.collection import Points
from crossfade.stores.qdrant_collection import OTHER_VECTORS, SENT_AT_ONCE, QdrantCollection
from crossfade.stores.refused import Refused
from crossfade.vectors import FloatMatrix

ATTEMPTS = 5


class NamedVector(QdrantCollection):
    """Points with one of their vectors, whose name is this one's `name`; writing leaves all else as it is."""

    def __init__(self, client: Any, collection: str, vector: str) -> None:
        super().__init__(client, collection, vector)
        self.name, self._read = vector, [vector]

    def _points(self, found: list[Any]) -> Points:
        points = super()._points(found)
        payloads = [
            {name: value for name, value in one.items() if name != OTHER_VECTORS} for one in points.payloads
        ]
        return replace(points, payloads=payloads)

    def put(self, points: Points) -> None:
        """Write vectors of points that are there; one that is deleted meanwhile does not come back."""
        self._put(points, None)

    def put_missing(self, points: Points) -> None:
        """The same, but of points that have no such vector by then."""
        models = self._models
        without = models.Filter(must_not=[models.HasVectorCondition(has_vector=self.vector)])
        self._put(points, without)

    def _put(self, points: Points, only: Any) -> None:
        vectors = dict(zip(points.ids, points.vectors.tolist(), strict=True))
        null = dict(zip(points.ids, points.null.tolist(), strict=True))

        def update(ids: list[Any]) -> None:
            given = [self._models.PointVectors(id=one, vector={self.vector: vectors[one]}) for one in ids]
            self._client.update_vectors(self.collection, given, wait=True, update_filter=only)

        for start in range(0, len(points), SENT_AT_ONCE):
            ids = points.ids[start : start + SENT_AT_ONCE]
            if only is None:
                self._for_present([one for one in ids if null[one]], self._clear)
            self._for_present([one for one in ids if not null[one]], update)

    def _clear(self, ids: list[Any]) -> None:
        self._client.delete_vectors(self.collection, [self.vector], ids, wait=True)

    def _for_present(self, ids: list[Any], write: Callable[[list[Any]], None]) -> None:
        """Write those of these points that are there.

        A point that is gone is an error, which may keep others from being written. While others go on
        deleting, some points may be left as they were: whoever writes reads back what is there.
        """
        for _ in range(ATTEMPTS):
            if not ids:
                return
            try:
                write(ids)
                return
            except Refused as error:
                if not error.missing:
                    raise
            there = self._client.retrieve(self.collection, ids, with_payload=False, with_vectors=False)
            known = {one.id for one in there}
            ids = [one for one in ids if one in known]


class VectorPair(NamedVector):
    """Points with their old and their new vector as one, so that whoever changes either is noticed.

    A half is NaN where the point has no such vector.
    """

    def __init__(self, client: Any, collection: str, old: str, new: str) -> None:
        super().__init__(client, collection, old)
        self.old, self.new = (NamedVector(client, collection, one) for one in (old, new))
        self._read = [old, new]

    def _points(self, found: list[Any]) -> Points:
        return joined(self.old._points(found), self.new._points(found))

    def halves(self, points: Points) -> tuple[Points, Points]:
        """Points with their old vectors, and with their new ones."""
        old, new = np.hsplit(points.vectors, [self.old.dimension])
        return _half(points, old), _half(points, new)


def _half(points: Points, vectors: FloatMatrix) -> Points:
    return Points(points.ids, vectors, np.isnan(vectors[:, 0]), points.payloads)


def joined(old: Points, new: Points) -> Points:
    """The same points with both vectors as one."""
    return Points(
        old.ids, np.hstack([old.vectors, new.vectors]), np.zeros(len(old), dtype=bool), old.payloads
    )
