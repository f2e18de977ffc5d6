"""Ids and vectors that belong together, and anything that streams them in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import DataError, DimensionMismatch, UsageError
from crossfade.spaces import Space
from crossfade.vectors.ids import normalize_ids

BATCH_ROWS = 8192
FloatMatrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """Some rows of a source: `ids` (n,), `vectors` (n, d) float32, and the columns asked for."""

    ids: pa.Array
    vectors: FloatMatrix
    columns: Mapping[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


class VectorSource(ABC):
    """Ids and vectors of one space, in a stable order, streamed so that memory holds one batch.

    `len(source)` is the number of rows; iterating twice gives the same rows in the same order. Ids are
    int64, uint64 or string. `name` says in messages where the vectors come from.
    """

    name: str = "vectors"

    @property
    @abstractmethod
    def space(self) -> Space:
        """The space that the vectors live in."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def batches(self, rows: int = BATCH_ROWS, columns: tuple[str, ...] = ()) -> Iterator[VectorBatch]:
        """Stream batches of at most `rows` rows, with the named further `columns`."""

    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        """Stream the ids alone; a source that can leave the vectors unread overrides this."""
        for batch in self.batches(rows):
            yield batch.ids

    def read(self, columns: tuple[str, ...] = ()) -> Vectors:
        """Everything at once, for a sample or for queries; a gallery should be streamed."""
        matrix = np.empty((len(self), self.space.dimension), dtype=np.float32)
        ids: list[pa.Array] = []
        further: dict[str, list[pa.Array]] = {name: [] for name in columns}
        start = 0
        for batch in self.batches(columns=columns):
            matrix[start : start + len(batch)] = batch.vectors
            start += len(batch)
            ids.append(batch.ids)
            for name in columns:
                further[name].append(batch.columns[name])
        joined = {name: _join(parts) for name, parts in further.items()}
        return Vectors(_join(ids), matrix, self.space, joined, name=self.name)


class Vectors(VectorSource):
    """A set of vectors in memory: a sample, the queries, a small gallery.

    Args:
        ids: (n,) ids, strings or integers; any sequence.
        matrix: (n, d) float32; not copied when it is float32 and contiguous already.
        space: the space that the vectors live in.
        columns: further columns by name, (n,) each (labels, captions).
        name: where they come from, for messages.

    Raises:
        DataError: the numbers of ids, vectors and column values differ, or an id is null.
        DimensionMismatch: the vectors' length is not the space's dimension.
    """

    def __init__(
        self,
        ids: object,
        matrix: NDArray[np.floating],
        space: Space,
        columns: Mapping[str, object] | None = None,
        *,
        name: str = "vectors",
    ) -> None:
        self.name = name
        self.ids: pa.Array = normalize_ids(_as_array(ids), name)
        with np.errstate(over="ignore"):
            self.matrix: FloatMatrix = np.ascontiguousarray(matrix, dtype=np.float32)
        self._space = space
        self.columns = {name: _as_array(values) for name, values in (columns or {}).items()}
        self._check()

    def _check(self) -> None:
        if self.matrix.ndim != 2:
            raise DataError(f"vectors must be a matrix (n, d), got shape {self.matrix.shape}")
        if self.matrix.shape[1] != self._space.dimension:
            raise DimensionMismatch(
                f"vectors have {self.matrix.shape[1]} dimensions, their space {self._space} says "
                f"{self._space.dimension}; correct the space or pass the vectors of that model"
            )
        for name, values in {"ids": self.ids, **self.columns}.items():
            if len(values) != len(self.matrix):
                raise DataError(
                    f"{len(self.matrix)} vectors but {len(values)} values in {name!r}; they must be as many"
                )

    @property
    def space(self) -> Space:
        return self._space

    def __len__(self) -> int:
        return len(self.matrix)

    def batches(self, rows: int = BATCH_ROWS, columns: tuple[str, ...] = ()) -> Iterator[VectorBatch]:
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            chosen = {name: self._column(name)[start:stop] for name in columns}
            yield VectorBatch(self.ids[start:stop], self.matrix[start:stop], chosen)

    def _column(self, name: str) -> pa.Array:
        if name not in self.columns:
            raise UsageError(f"{self.name}: no column {name!r}; it has {sorted(self.columns) or 'none'}")
        return self.columns[name]

    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        for start in range(0, len(self), rows):
            yield self.ids[start : start + rows]

    def read(self, columns: tuple[str, ...] = ()) -> Vectors:
        for name in columns:
            self._column(name)
        return self

    def take(self, rows: NDArray[np.integer]) -> Vectors:
        """The given rows, in that order, as a new set (copied)."""
        chosen = pa.array(rows)
        columns = {name: values.take(chosen) for name, values in self.columns.items()}
        return Vectors(self.ids.take(chosen), self.matrix[rows], self._space, columns, name=self.name)


def _join(parts: list[pa.Array]) -> pa.Array:
    return pa.chunked_array(parts).combine_chunks() if parts else pa.array([], pa.string())


def _as_array(values: object) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values)
