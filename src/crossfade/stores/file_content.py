"""One version of a file of vectors, as it was when it was opened."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from os import stat_result
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import StoreError
from crossfade.evaluation.search import search
from crossfade.spaces import Metric
from crossfade.stores.records import IndexInfo, Rows
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.ids import IdIndex, normalize_ids

Positions = NDArray[np.int64]
SETTLED_SECONDS = 0.05
"""Two writes within one tick of the file system's clock look alike; an identity is taken after that."""


class Unreadable(StoreError):
    """A version of a file is gone, cut short or garbled."""


def identity(path: Path) -> str:
    """Changes when a file is written or replaced; stays when it is renamed.

    Raises:
        FileNotFoundError: there is none.
    """
    while 0 <= time.time() - (found := path.stat()).st_mtime < SETTLED_SECONDS:
        time.sleep(SETTLED_SECONDS / 5)
    return _mark(found)


def quick_identity(path: Path) -> str:
    """The identity of a file that may just have been written."""
    return _mark(path.stat())


def _mark(found: stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


class Content(ABC):
    """Rows of a file in their order: ids, vectors, further columns.

    Attributes:
        rows, dimension, column_type: of the vectors.
        id_column, id_type: where ids come from, empty if nothing says; int64, uint64 or string.
        payload: further columns.
    """

    rows: int
    dimension: int
    column_type: str
    id_column: str
    payload: tuple[str, ...]
    id_type: pa.DataType
    nulls_lie_there: bool = True
    """Whether rows without a vector have a place in the file itself."""
    _ids: IdIndex | None = None

    @abstractmethod
    def batches(
        self, rows: int = BATCH_ROWS, columns: Sequence[str] = (), start: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        """Stream rows from `start` to `stop`, at most `rows` at a time."""

    @abstractmethod
    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        """Stream the ids alone."""

    @abstractmethod
    def take(self, positions: Positions, columns: Sequence[str] = ()) -> Rows:
        """Some rows, in the order asked for."""

    def ids_at(
        self, positions: Positions, columns: Sequence[str] = ()
    ) -> tuple[pa.Array, Mapping[str, pa.Array]]:
        """Ids of some rows and further columns, in the order asked for."""
        rows = self.take(positions, columns)
        return rows.ids, rows.columns

    def as_written(self, start: int, rows: int) -> Iterator[FloatMatrix]:
        """Vectors in the order in which they were written into the file; NaN where a row has none."""
        for batch in self.batches(start=start, stop=start + rows):
            yield batch.vectors

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def index(self) -> IndexInfo | None:
        """The ANN index in it, if any."""
        return None

    def find(self, ids: pa.Array) -> Positions:
        """Positions of ids; -1 where there is none."""
        if self._ids is None:
            self._ids = IdIndex(self.ids_in_batches())
        return self._ids.rows(ids)

    def vectors_of(self, ids: pa.Array, start: int) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        """Vectors (n, d) of ids and which of them have none.

        Args:
            start: where they stand if nothing has moved, which is looked at first; below 0 if unknown.
        """
        stop = start + len(ids)
        if start >= 0 and stop <= self.rows and len(ids):
            batch = next(self.batches(len(ids), start=start, stop=stop))
            if len(batch) == len(ids) and batch.ids.equals(ids):
                return batch.vectors, batch.null
        vectors = np.full((len(ids), self.dimension), np.nan, dtype=np.float32)
        null = np.ones(len(ids), dtype=bool)
        found = self.find(ids)
        here = np.flatnonzero(found >= 0)
        if len(here):
            taken = self.take(found[here])
            vectors[here], null[here] = taken.vectors, taken.null
        return vectors, null

    def nearest(
        self, queries: FloatMatrix, k: int, metric: Metric, exact: bool
    ) -> list[tuple[Positions, NDArray[np.float32]]]:
        """Positions and scores of the `k` best rows of each query; by reading all of them here."""
        best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        start = 0
        for batch in self.batches():
            usable = np.flatnonzero(~batch.null)
            if len(usable):
                scores, rows = search(queries, batch.vectors[usable], k, metric, engine="numpy")
                for number, held in enumerate(best):
                    best[number] = merged(held, (usable[rows[number]] + start, scores[number]), k)
            start += len(batch)
        return best


Ranked = tuple[Positions, NDArray[np.float32]]


def merged(one: Ranked, other: Ranked, k: int) -> Ranked:
    """The k best of two rankings; of equal scores the earlier row comes first."""
    positions, scores = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(-scores, kind="stable")[:k]
    return positions[order], scores[order]


def ids_of(column: pa.Array, what: str) -> pa.Array:
    """Ids as they are compared; null ones are left for the inspection to find."""
    return column if column.null_count else normalize_ids(column, what)
