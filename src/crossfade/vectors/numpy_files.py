"""Vectors in ``.npy`` and ``.npz`` files."""

from __future__ import annotations

import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from crossfade.errors import DataError, UsageError
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, FloatMatrix, VectorBatch, VectorSource
from crossfade.vectors.columns import ROW_NUMBERS, to_float32
from crossfade.vectors.ids import normalize_ids
from crossfade.vectors.metadata import settle_space
from crossfade.vectors.table import reading, row_numbers


class NumpySource(VectorSource):
    """Ids in memory (or row numbers), vectors streamed from an array file."""

    _shape: tuple[int, int]
    _space: Space
    _ids: pa.Array | None

    @abstractmethod
    def _matrices(self, rows: int) -> Iterator[FloatMatrix]:
        """Stream the vectors, at most `rows` at a time."""

    def _settle(self, shape: tuple[int, ...], dtype: np.dtype[Any], space: Space | str | None) -> None:
        if len(shape) != 2 or dtype.kind != "f":
            raise DataError(
                f"{self.name}: vectors must be a floating-point matrix (n, d), got {dtype} of shape {shape}"
            )
        self._shape = (shape[0], shape[1])
        if self._ids is not None and len(self._ids) != shape[0]:
            raise DataError(f"{self.name}: {shape[0]} vectors but {len(self._ids)} ids; they must be as many")
        self._space = settle_space(None, space, shape[1], self.name)

    @property
    def space(self) -> Space:
        return self._space

    def __len__(self) -> int:
        return self._shape[0]

    def batches(self, rows: int = BATCH_ROWS, columns: tuple[str, ...] = ()) -> Iterator[VectorBatch]:
        if columns:
            raise UsageError(f"{self.name}: no column {columns[0]!r}; array files hold ids and vectors only")
        ids = self.ids_in_batches(rows)
        for matrix in self._matrices(rows):
            yield VectorBatch(next(ids), matrix)

    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        if self._ids is None:
            yield from row_numbers(len(self), rows)
            return
        for start in range(0, len(self), rows):
            yield self._ids[start : start + rows]


class NpySource(NumpySource):
    """A ``.npy`` matrix, memory-mapped one batch at a time.

    Args:
        path: the file, e.g. ``gallery.npy``.
        space: space of the vectors, or text for `Space.parse`.
        id_column: `ROW_NUMBERS`, or None for the ids beside it in ``gallery.ids.npy`` or
            ``gallery.ids.txt`` (one a line).

    Raises:
        UnreadableFile: no such file, cut short, or no array file.
        UsageError: there are no ids beside it.
        DataError: no floating-point matrix, or another number of ids.
    """

    def __init__(
        self, path: str | Path, *, space: Space | str | None = None, id_column: str | None = None
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        with reading(self.name):
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        self._offset, self._dtype, self._in_order = array.offset, array.dtype, array.flags.c_contiguous
        self._ids = None if id_column == ROW_NUMBERS else _sidecar_ids(self.path, id_column)
        self._settle(array.shape, array.dtype, space)

    def _matrices(self, rows: int) -> Iterator[FloatMatrix]:
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            with reading(self.name):
                yield to_float32(self._window(start, stop) if self._in_order else self._whole()[start:stop])

    def _window(self, start: int, stop: int) -> np.ndarray:
        # A map per batch: pages of the batches before do not count against the process's memory.
        width = self._shape[1] * self._dtype.itemsize
        return np.memmap(
            self.path,
            self._dtype,
            "r",
            offset=self._offset + start * width,
            shape=(stop - start, self._shape[1]),
        )

    def _whole(self) -> np.ndarray:
        return np.memmap(self.path, self._dtype, "r", offset=self._offset, shape=self._shape, order="F")


class NpzSource(NumpySource):
    """Arrays ``ids`` and ``vectors`` (or ``vector``) of a ``.npz`` file; the vectors are streamed.

    Args:
        path: the file.
        space: space of the vectors, or text for `Space.parse`.
        id_column: name of the array of ids, or `ROW_NUMBERS`.
        vector_column: name of the matrix.

    Raises:
        UnreadableFile: no such file, cut short, or no array file.
        UsageError: no such array.
        DataError: no floating-point matrix, or another number of ids.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        space: Space | str | None = None,
        id_column: str | None = None,
        vector_column: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        with reading(self.name), self._archive() as archive:
            names = tuple(archive.files)
            self._array = self._choose(names, vector_column, ("vectors", "vector"), "vectors")
            self._ids = self._read_ids(archive, names, id_column)
        with reading(self.name), self._member() as member:
            shape, self._in_order, self._dtype = _read_header(member)
        self._settle(shape, self._dtype, space)

    def _choose(self, names: tuple[str, ...], chosen: str | None, usual: tuple[str, ...], what: str) -> str:
        for name in (chosen,) if chosen else usual:
            if name in names:
                return name
        option = "--vector-column" if what == "vectors" else "--id-column"
        raise UsageError(
            f"{self.name}: no array {chosen or usual[0]!r} for the {what}; it has {list(names)}; "
            f"name one with {option}"
        )

    def _read_ids(self, archive: Any, names: tuple[str, ...], chosen: str | None) -> pa.Array | None:
        if chosen == ROW_NUMBERS:
            return None
        return _to_ids(archive[self._choose(names, chosen, ("ids", "id"), "ids")], self.name)

    @contextmanager
    def _archive(self) -> Iterator[Any]:
        # np.load leaves a file open that it opened itself and could not read.
        with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive

    @contextmanager
    def _member(self) -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self._array}.npy") as member:
            yield member

    def _matrices(self, rows: int) -> Iterator[FloatMatrix]:
        if not self._in_order:
            yield from self._sliced(rows)
            return
        count, dimension = self._shape
        with reading(self.name), self._member() as member:
            _read_header(member)
            for start in range(0, count, rows):
                height = min(rows, count - start)
                raw = _read_exactly(member, height * dimension * self._dtype.itemsize)
                yield to_float32(np.frombuffer(raw, self._dtype).reshape(height, dimension))

    def _sliced(self, rows: int) -> Iterator[FloatMatrix]:
        with reading(self.name), self._archive() as archive:
            matrix = archive[self._array]
        for start in range(0, len(matrix), rows):
            yield to_float32(matrix[start : start + rows])


def _sidecar_ids(path: Path, id_column: str | None) -> pa.Array:
    arrays, lines = path.with_suffix(".ids.npy"), path.with_suffix(".ids.txt")
    if id_column is not None:
        raise UsageError(
            f"{path}: an array file has no column {id_column!r}; write the ids to {lines.name} beside it"
        )
    if arrays.exists():
        with reading(str(arrays)):
            return _to_ids(np.load(arrays, allow_pickle=False), str(arrays))
    if lines.exists():
        with reading(str(lines)):
            return pa.array(lines.read_text(encoding="utf-8").splitlines(), pa.string())
    raise UsageError(
        f"{path}: no ids beside it; write them to {arrays.name} or {lines.name} (one a line), "
        f"or number the rows with --id-column {ROW_NUMBERS}"
    )


def _to_ids(values: np.ndarray, what: str) -> pa.Array:
    if values.ndim != 1 or values.dtype.kind not in "iuU":
        raise DataError(
            f"{what}: ids must be a row of integers or strings, got {values.dtype} of shape {values.shape}; "
            "save them as an array of int64 or of str"
        )
    return normalize_ids(pa.array(values), what)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether rows are contiguous, and type, leaving `member` at the first value."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(member)
    return shape, not fortran_order, dtype


def _read_exactly(member: IO[bytes], count: int) -> bytes:
    raw = member.read(count)
    if len(raw) != count:
        raise EOFError(f"expected {count} bytes, got {len(raw)}")
    return raw
