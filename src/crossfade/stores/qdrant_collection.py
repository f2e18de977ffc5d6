"""One collection of a Qdrant server, or of its client's local mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import NotSupported
from crossfade.extras import load
from crossfade.spaces import Metric, Space
from crossfade.stores.collection import Collection, Points
from crossfade.vectors import BATCH_ROWS

SPACES = "crossfade.spaces"
SENT_AT_ONCE = 512
OTHER_VECTORS = "\x00vectors"
"""Under this name a point's further vectors travel with its payload."""
METRICS: dict[str, Metric] = {"Cosine": "cosine", "Dot": "dot", "Euclid": "l2"}


class QdrantCollection(Collection):
    """The points of the collection `name`; their vectors are called `vector`, empty for unnamed ones.

    Attributes:
        collection: its name on the server.
        parameters: of the vectors, as the server has them.
    """

    def __init__(self, client: Any, name: str, vector: str) -> None:
        self._models: Any = load("qdrant_client.models", "qdrant")
        self._client, self.name, self.collection, self.vector = client, name, name, vector
        self.config = client.get_collection(name).config
        self._read: bool | list[str] = True
        found = self.config.params.vectors
        self.parameters = found[vector] if isinstance(found, dict) else found
        if self.parameters.multivector_config is not None:
            raise NotSupported(
                f"{name}: {vector!r} holds several vectors per point; a map is for one per point: choose "
                "another vector, or embed these again"
            )
        self.dimension = int(self.parameters.size)
        self.metric = METRICS.get(str(self.parameters.distance.value), "l2")
        kind = self.parameters.datatype
        self.gives_back = self.metric != "cosine" and (kind is None or kind.value == "float32")

    def scan(self, rows: int = BATCH_ROWS) -> Iterator[Points]:
        after = None
        while True:
            found, after = self._client.scroll(
                self.collection, limit=rows, offset=after, with_vectors=self._read
            )
            if found:
                yield self._points(found)
            if after is None:
                return

    def ids(self) -> list[Any]:
        ids: list[Any] = []
        after = None
        while True:
            found, after = self._client.scroll(
                self.collection, limit=BATCH_ROWS, offset=after, with_payload=False, with_vectors=False
            )
            ids += [one.id for one in found]
            if after is None:
                return ids

    def present(self, ids: Sequence[Any]) -> set[Any]:
        found: set[Any] = set()
        for start in range(0, len(ids), BATCH_ROWS):
            wanted = list(ids[start : start + BATCH_ROWS])
            points = self._client.retrieve(self.collection, wanted, with_payload=False, with_vectors=False)
            found.update(one.id for one in points)
        return found

    def get(self, ids: Sequence[Any]) -> Points:
        found: list[Any] = []
        for start in range(0, len(ids), BATCH_ROWS):
            wanted = list(ids[start : start + BATCH_ROWS])
            found += self._client.retrieve(
                self.collection, wanted, with_payload=True, with_vectors=self._read
            )
        return self._points(found)

    def _points(self, found: list[Any]) -> Points:
        vectors = np.full((len(found), self.dimension), np.nan, dtype=np.float32)
        payloads = []
        for row, one in enumerate(found):
            others = one.vector if isinstance(one.vector, dict) else {"": one.vector} if one.vector else {}
            mine = others.get(self.vector)
            if mine is not None:
                vectors[row] = mine
            others = {name: value for name, value in others.items() if name != self.vector}
            payloads.append({**(one.payload or {}), **({OTHER_VECTORS: others} if others else {})})
        return Points([one.id for one in found], vectors, np.isnan(vectors[:, 0]), payloads)

    def put(self, points: Points) -> None:
        for start in range(0, len(points), SENT_AT_ONCE):
            part = points.select(range(start, min(start + SENT_AT_ONCE, len(points))))
            self._client.upsert(self.collection, self._batch(part), wait=True)

    def _batch(self, points: Points) -> list[Any]:
        made = []
        rows = zip(points.ids, points.vectors.tolist(), points.null, points.payloads, strict=True)
        for one, vector, null, payload in rows:
            vectors = dict(payload.get(OTHER_VECTORS, {}))
            if not null:
                vectors[self.vector] = vector
            whole = vectors.get("") if set(vectors) == {""} else vectors
            made.append(self._models.PointStruct(id=one, vector=whole, payload=_without_vectors(payload)))
        return made

    def put_payloads(self, points: Points) -> None:
        for one, payload in zip(points.ids, points.payloads, strict=True):
            self._client.overwrite_payload(
                self.collection, _without_vectors(payload), points=[one], wait=True
            )

    def delete(self, ids: Sequence[Any]) -> None:
        if ids:
            self._client.delete(self.collection, self._models.PointIdsList(points=list(ids)), wait=True)

    def count(self) -> int:
        return int(self._client.count(self.collection, exact=True).count)

    def space(self) -> Space | None:
        kept = ((self.config.metadata or {}).get(SPACES) or {}).get(self.vector)
        return Space.from_dict(kept) if kept else None

    def record_space(self, space: Space) -> None:
        kept = {**((self.config.metadata or {}).get(SPACES) or {}), self.vector: space.to_dict()}
        self._client.update_collection(self.collection, metadata={SPACES: kept})
        self.config = self._client.get_collection(self.collection).config

    def nearest(
        self, query: NDArray[np.float32], k: int, exact: bool
    ) -> tuple[list[Any], NDArray[np.float32]]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Local mode performs exact")
            found = self._client.query_points(
                self.collection,
                query=query.tolist(),
                using=self.vector or None,
                limit=k,
                search_params=self._models.SearchParams(exact=exact),
            ).points
        scores = np.array([one.score for one in found], dtype=np.float32)
        return [one.id for one in found], -np.square(scores) if self.metric == "l2" else scores


def _without_vectors(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name != OTHER_VECTORS}
