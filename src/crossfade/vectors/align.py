"""Bring two sources of the same items into the same order."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import DuplicateIds, IdMismatch
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, FloatMatrix, VectorBatch, VectorSource
from crossfade.vectors.ids import IdIndex, first_few
from crossfade.vectors.pairs import PairBatch, Pairs
from crossfade.vectors.writing import full_disk_as_error


def align(
    old: VectorSource,
    new: VectorSource,
    *,
    side: VectorSource | None = None,
    spill_folder: str | Path | None = None,
) -> SourcePairs:
    """Pair two sources by id: X from `old`, Y from `new`, in the order of `new`.

    `old` may hold more items (the gallery). Where the ids stand in the same order, both are streamed
    side by side; otherwise the ids of `new` are indexed in memory, and the vectors of `old` that are
    wanted are put in order in a temporary file.

    Args:
        side: side-information by id; like `old` it may hold more items, in any order.
        spill_folder: where the temporary file goes; the system's folder unless given. It has no name,
            so nothing is left behind.

    Raises:
        IdMismatch: ids of `new` are missing in `old` or `side`, or the ids are of different types.
        DuplicateIds: a wanted id occurs more than once.
        OutOfSpace: the temporary file does not fit on its disk.
    """
    beside = None if side is None else _in_order_of(new, side, spill_folder)
    return SourcePairs(_in_order_of(new, old, spill_folder), new, beside)


def _in_order_of(new: VectorSource, other: VectorSource, spill_folder: str | Path | None) -> VectorSource:
    """The vectors of `other` for the items of `new`, in their order."""
    if same_order(other, new):
        return other
    index = _index(new)
    _require_all(index, other, new)
    return _Reordered(other, index, spill_folder)


class SourcePairs(Pairs):
    """Two sources with the same ids in the same order.

    Attributes:
        old: gives X.
        new: gives Y.
        beside: gives the side-information; None if there is none.
    """

    def __init__(self, old: VectorSource, new: VectorSource, beside: VectorSource | None = None) -> None:
        self.old, self.new, self.beside = old, new, beside
        self.source, self.target = old.space, new.space
        if beside is not None:
            self.side, self.side_dimension = beside.space, beside.space.dimension

    def __len__(self) -> int:
        return len(self.new)

    @property
    def dimensions(self) -> tuple[int, int]:
        return self.old.space.dimension, self.new.space.dimension

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        for both in _in_step(rows, self.old, self.new):
            yield both[0], both[1]

    def full_batches(self, rows: int = BATCH_ROWS) -> Iterator[PairBatch]:
        if self.beside is None:
            yield from super().full_batches(rows)
            return
        for x, y, side in _in_step(rows, self.old, self.new, self.beside):
            yield PairBatch(x, y, side)


def _in_step(rows: int, *sources: VectorSource) -> Iterator[tuple[FloatMatrix, ...]]:
    """Equally many vectors of each source at a time, wherever each cuts its batches."""
    streams = [(batch.vectors for batch in source.batches(rows)) for source in sources]
    held = [np.empty((0, source.space.dimension), dtype=np.float32) for source in sources]
    while True:
        for position, stream in enumerate(streams):
            while not len(held[position]):
                following = next(stream, None)
                if following is None:
                    return
                held[position] = following
        count = min(map(len, held))
        yield tuple(vectors[:count] for vectors in held)
        held = [vectors[count:] for vectors in held]


def same_order(old: VectorSource, new: VectorSource) -> bool:
    """Whether both hold the same ids in the same order; reads ids only, up to the first difference."""
    if len(old) != len(new):
        return False
    return all(
        left is not None and right is not None and left.equals(right)
        for left, right in zip_longest(_even(old), _even(new))
    )


def _even(source: VectorSource) -> Iterator[pa.Array]:
    """Ids in chunks of `BATCH_ROWS`, wherever the source cuts its batches."""
    held: list[pa.Array] = []
    for ids in source.ids_in_batches():
        held.append(ids)
        if sum(map(len, held)) >= BATCH_ROWS:
            joined = pa.concat_arrays(held)
            yield joined[:BATCH_ROWS]
            held = [joined[BATCH_ROWS:]]
    if sum(map(len, held)):
        yield pa.concat_arrays(held)


def _index(new: VectorSource) -> IdIndex:
    index = IdIndex(new.ids_in_batches())
    repeated = index.repeated()
    if repeated:
        raise DuplicateIds(
            f"{new.name}: {len(repeated)} ids occur more than once; first ids: {first_few(repeated)}; "
            "keep one row of each"
        )
    return index


def _require_all(index: IdIndex, old: VectorSource, new: VectorSource) -> None:
    seen = np.zeros(len(index), dtype=np.int64)
    for ids in old.ids_in_batches():
        _require_same_type(ids, index, old, new)
        rows = index.rows(ids)
        np.add.at(seen, rows[rows >= 0], 1)
    missing, repeated = np.flatnonzero(seen == 0), np.flatnonzero(seen > 1)
    if len(missing):
        raise IdMismatch(
            f"{len(missing)} of {len(new)} ids of {new.name} are not among the {len(old)} ids of {old.name}; "
            f"first ids: {_ids_at(index, missing)}; pass vectors of the same items from both models"
        )
    if len(repeated):
        raise DuplicateIds(
            f"{old.name}: {len(repeated)} ids occur more than once; first ids: {_ids_at(index, repeated)}; "
            "keep one row of each"
        )


def _require_same_type(ids: pa.Array, index: IdIndex, old: VectorSource, new: VectorSource) -> None:
    if len(index) and ids.type != index.ids.type:
        raise IdMismatch(
            f"{old.name} has ids of type {ids.type}, {new.name} of type {index.ids.type}; "
            "they cannot be matched, cast one of the columns"
        )


def _ids_at(index: IdIndex, rows: NDArray[np.int64]) -> str:
    return first_few(index.ids[int(row)].as_py() for row in rows[:6])


class _Reordered(VectorSource):
    """The vectors of `source` whose ids are in `index`, in the order of `index`, from a nameless file."""

    def __init__(self, source: VectorSource, index: IdIndex, folder: str | Path | None) -> None:
        self.name = source.name
        self._space = source.space
        self._index = index
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="crossfade-pairs-", dir=folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        with full_disk_as_error(str(folder or tempfile.gettempdir()), len(index)):
            for batch in source.batches():
                self._put(batch)

    def _put(self, batch: VectorBatch) -> None:
        rows = self._index.rows(batch.ids)
        wanted = np.flatnonzero(rows >= 0)
        width = 4 * self._space.dimension
        for item in wanted[np.argsort(rows[wanted])]:
            self._file.seek(int(rows[item]) * width)
            self._file.write(batch.vectors[item].tobytes())

    @property
    def space(self) -> Space:
        return self._space

    def __len__(self) -> int:
        return len(self._index)

    def batches(self, rows: int = BATCH_ROWS, columns: tuple[str, ...] = ()) -> Iterator[VectorBatch]:
        dimension = self._space.dimension
        for start, ids in zip(range(0, len(self), rows), self.ids_in_batches(rows), strict=True):
            shape = (len(ids), dimension)
            vectors = np.memmap(self._file, np.float32, "r", offset=4 * start * dimension, shape=shape)
            yield VectorBatch(ids, np.asarray(vectors))

    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        for start in range(0, len(self), rows):
            yield self._index.ids[start : start + rows].combine_chunks()
