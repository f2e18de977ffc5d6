"""One collection of points on a server: what all such stores can do with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.evaluation.search import search
from crossfade.spaces import Metric, Space
from crossfade.stores.file_content import merged
from crossfade.stores.records import IndexInfo, Rows
from crossfade.vectors import BATCH_ROWS, FloatMatrix


@dataclass(frozen=True, slots=True)
class Points:
    """Points of a collection.

    Attributes:
        ids: (n,).
        vectors, null: (n, d) float32, NaN where `null` (n,).
        payloads: what else each holds, as JSON-ready values; the vectors that are not upgraded, too.
    """

    ids: list[Any]
    vectors: FloatMatrix
    null: NDArray[np.bool_]
    payloads: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, chosen: Sequence[int]) -> Points:
        """Some of them."""
        rows = np.asarray(chosen, dtype=np.int64)
        ids, payloads = [self.ids[row] for row in rows], [self.payloads[row] for row in rows]
        return Points(ids, self.vectors[rows], self.null[rows], payloads)


class Collection(ABC):
    """A collection as the server has it now.

    Attributes:
        name: its own, not an alias.
        dimension, metric: of the vectors.
        id_name: what the server calls the ids.
        keeps_null: whether a point may be without a vector.
        gives_back: whether vectors are read as they were written, to the last bit.
        rows_at_once: points that go into one call.
    """

    name: str
    dimension: int
    metric: Metric
    id_name: str = "id"
    keeps_null: bool = True
    gives_back: bool = False
    rows_at_once: int = BATCH_ROWS

    @abstractmethod
    def scan(self, rows: int = BATCH_ROWS) -> Iterator[Points]:
        """Stream all points, in a stable order."""

    @abstractmethod
    def ids(self) -> list[Any]:
        """The ids of all points, in the order of `scan`."""

    @abstractmethod
    def present(self, ids: Sequence[Any]) -> set[Any]:
        """Those of these ids that are there."""

    @abstractmethod
    def get(self, ids: Sequence[Any]) -> Points:
        """Those of these points that are there."""

    @abstractmethod
    def put(self, points: Points) -> None:
        """Write points whole, durably, in place of those that are there."""

    @abstractmethod
    def put_payloads(self, points: Points) -> None:
        """Write what points hold beside their vectors, which stay."""

    @abstractmethod
    def delete(self, ids: Sequence[Any]) -> None:
        """Delete points."""

    @abstractmethod
    def count(self) -> int:
        """Number of points."""

    @abstractmethod
    def space(self) -> Space | None:
        """The recorded space."""

    @abstractmethod
    def record_space(self, space: Space) -> None:
        """Record the space."""

    @abstractmethod
    def nearest(
        self, query: NDArray[np.float32], k: int, exact: bool
    ) -> tuple[list[Any], NDArray[np.float32]]:
        """Ids and scores of the best points, in the collection's own metric."""

    def index(self) -> IndexInfo | None:
        """ANN index that can be built in a step of its own."""
        return None

    def forget_further_names(self, points: Points) -> None:
        """Delete those of these points that have a name too many; for servers that merge old and new."""
        there = self.get(list(self.present(points.ids)))
        wanted = dict(zip(points.ids, points.payloads, strict=True))
        rows = zip(there.ids, there.payloads, strict=True)
        self.delete([one for one, payload in rows if not payload.keys() <= wanted[one].keys()])

    def columns(self, points: Points, names: Sequence[str]) -> dict[str, pa.Array]:
        """Payload by name."""
        return {name: column([one.get(name) for one in points.payloads]) for name in names}

    def ranked(
        self, queries: FloatMatrix, k: int, metric: Metric, exact: bool
    ) -> list[tuple[list[Any], Any]]:
        """Ids and scores of the `k` best points of each query; by reading all where the metric is another."""
        if metric == self.metric:
            return [self.nearest(query, k, exact) for query in queries]
        return self.ranked_by_reading(queries, k, metric)

    def ranked_by_reading(self, queries: FloatMatrix, k: int, metric: Metric) -> list[tuple[list[Any], Any]]:
        """Ids and scores of the `k` best points of each query, by reading all."""
        best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        ids: list[Any] = []
        for points in self.scan():
            usable = np.flatnonzero(~points.null)
            if len(usable):
                scores, rows = search(queries, points.vectors[usable], k, metric, engine="numpy")
                for number, held in enumerate(best):
                    best[number] = merged(held, (usable[rows[number]] + len(ids), scores[number]), k)
            ids += points.ids
        return [([ids[row] for row in rows], scores) for rows, scores in best]


def as_rows(points: Points, columns: dict[str, pa.Array]) -> Rows:
    """Points as the rest of Crossfade sees them."""
    return Rows(pa.array(points.ids), points.vectors, points.null, columns)


def column(values: list[Any]) -> pa.Array:
    """Values as one column; of mixed types, or nested, as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if one is None else str(one) for one in values])


def in_order(points: Points, ids: Sequence[Any]) -> list[int]:
    """Place of each id among the points; -1 where it is absent."""
    places = {one: row for row, one in enumerate(points.ids)}
    return [places.get(one, -1) for one in ids]
