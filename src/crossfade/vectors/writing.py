"""Write vectors: a file that appears whole at the end, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.errors import DataError, OutOfSpace, UsageError
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, VectorBatch
from crossfade.vectors.columns import to_column
from crossfade.vectors.metadata import record_space

if TYPE_CHECKING:
    from typing_extensions import Self

FULL = (errno.ENOSPC, errno.EDQUOT)
LITTLE_BYTES = 1 << 20


class VectorWriter(ABC):
    """Takes batches of one space; a context manager that keeps everything or nothing.

    Leaving the block normally commits; leaving it by any exception, Ctrl-C included, removes what
    was written so far.

    Attributes:
        name: where the vectors go, for messages.
        space: space of the vectors.
        rows: rows taken so far.
    """

    name: str
    space: Space
    rows: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.commit()
        except BaseException:
            self.abort()
            raise

    def write(self, batch: VectorBatch) -> None:
        """Take a batch; all batches have the same id type and further columns.

        Raises:
            DataError: the vectors are of another dimension than the space.
            OutOfSpace: the disk is full.
        """
        if batch.vectors.shape[1] != self.space.dimension:
            raise DataError(
                f"{self.name}: got vectors of {batch.vectors.shape[1]} dimensions for {self.space}; "
                "the map and the space it was said to map into do not belong together"
            )
        self._write(batch)
        self.rows += len(batch)

    @abstractmethod
    def _write(self, batch: VectorBatch) -> None: ...

    @abstractmethod
    def commit(self) -> None:
        """Make what was written visible, safely on the disk."""

    @abstractmethod
    def abort(self) -> None:
        """Leave nothing behind."""


class ParquetVectorWriter(VectorWriter):
    """A Parquet file of ids, float32 vectors and the batches' further columns; the space in its metadata.

    The file is written beside its place and renamed into it at the end. Vectors are neither
    compressed nor dictionary-encoded: they do not shrink.

    Args:
        path: where the file goes.
        space: space of the vectors.
        id_column, vector_column: names of the columns.
        overwrite: replace a file that is there (at the end, in one step).

    Raises:
        UsageError: there is a file already, or no folder.
    """

    def __init__(
        self,
        path: str | Path,
        space: Space,
        *,
        id_column: str = "id",
        vector_column: str = "vector",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.space = space
        self.id_column, self.vector_column = id_column, vector_column
        _require_place(self.path, overwrite)
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        self._sink: pa.NativeFile | None = None
        self._file: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []

    def _write(self, batch: VectorBatch) -> None:
        self._pending.append(to_record_batch(batch, self.space, self.id_column, self.vector_column))
        if sum(map(len, self._pending)) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        with full_disk_as_error(self.name, self.rows):
            self._opened(pending[0].schema).write_table(pa.Table.from_batches(pending))

    def _opened(self, schema: pa.Schema) -> pq.ParquetWriter:
        if self._file is None:
            further = [name for name in schema.names if name not in (self.id_column, self.vector_column)]
            self._sink = _open_sink(self._temporary)
            self._file = pq.ParquetWriter(
                self._sink,
                schema,
                compression="none",
                use_dictionary=further,
                write_statistics=[self.id_column],
            )
        return self._file

    def commit(self) -> None:
        if not self._pending and self._file is None:
            self._pending.append(empty_record_batch(self.space, self.id_column, self.vector_column))
        if self._pending:
            self._flush()
        with full_disk_as_error(self.name, self.rows):
            for opened in (self._file, self._sink):
                if opened is not None:
                    opened.close()
            sync(self._temporary)
            self._temporary.replace(self.path)
            sync(self.path.parent)

    def abort(self) -> None:
        self._pending.clear()
        for opened in (self._file, self._sink):
            if opened is not None:
                with suppress(Exception):
                    opened.close()
        self._temporary.unlink(missing_ok=True)


def to_record_batch(batch: VectorBatch, space: Space, id_column: str, vector_column: str) -> pa.RecordBatch:
    """A batch as Arrow columns, with the space in the schema; the vectors are not copied."""
    arrays = {id_column: batch.ids, **batch.columns, vector_column: to_column(batch.vectors)}
    fields = [
        pa.field(name, values.type, nullable=name not in (id_column, vector_column))
        for name, values in arrays.items()
    ]
    return pa.RecordBatch.from_arrays(list(arrays.values()), schema=record_space(pa.schema(fields), space))


def empty_record_batch(space: Space, id_column: str, vector_column: str) -> pa.RecordBatch:
    """No rows, for sources that had none."""
    none = VectorBatch(pa.array([], pa.string()), np.empty((0, space.dimension), dtype=np.float32))
    return to_record_batch(none, space, id_column, vector_column)


@contextmanager
def full_disk_as_error(name: str, rows: int) -> Iterator[None]:
    """A full disk becomes OutOfSpace; any other failure passes."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error, Path(name).parent):
            raise
        raise OutOfSpace(
            f"{name}: the disk was full after {rows} rows; nothing was kept; "
            "free some space, or choose another disk, and run it again"
        ) from error


def disk_is_full(error: BaseException, folder: Path) -> bool:
    """Whether an error means that there is no space left; SQLite calls some of these an I/O error.

    Args:
        folder: that was written to.
    """
    said = str(error)
    if getattr(error, "errno", None) in FULL or "No space left" in said or "disk is full" in said:
        return True
    return "disk I/O error" in said and folder.is_dir() and shutil.disk_usage(folder).free < LITTLE_BYTES


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_sink(path: Path) -> pa.NativeFile:
    return pa.OSFile(str(path), "wb")


def _require_place(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already; choose another name or move it away first")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {str(path.parent)!r}; make it first")
