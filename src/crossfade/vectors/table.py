"""What Parquet files and Lance tables share as sources of vectors."""

from __future__ import annotations

import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from crossfade.errors import CrossfadeError, DataError, UnreadableFile
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, VectorBatch, VectorSource
from crossfade.vectors.columns import (
    ROW_NUMBERS,
    choose_id_column,
    choose_vector_column,
    require_columns,
    to_matrix,
)
from crossfade.vectors.ids import normalize_ids
from crossfade.vectors.metadata import recorded_space, settle_space

_BROKEN = (pa.ArrowException, OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class TableSource(VectorSource):
    """Ids and vectors from two columns of a table of Arrow type.

    A subclass opens the table in `__init__`, sets `schema` and `_rows`, and calls `_settle`.

    Attributes:
        schema: Arrow schema of the whole table.
        id_column: where the ids come from; `ROW_NUMBERS` if the rows are numbered.
        vector_column: where the vectors come from.
    """

    schema: pa.Schema
    id_column: str
    vector_column: str
    _rows: int

    def _settle(self, space: Space | str | None, id_column: str | None, vector_column: str | None) -> None:
        self.id_column = choose_id_column(self.schema, id_column, self.name)
        self.vector_column = choose_vector_column(self.schema, vector_column, self.name)
        recorded = recorded_space(self.schema, self.vector_column)
        self._space = settle_space(recorded, space, self._dimension(recorded or space), self.name)

    def _dimension(self, said: Space | str | None) -> int:
        column_type = self.schema.field(self.vector_column).type
        if pa.types.is_fixed_size_list(column_type):
            return int(column_type.list_size)
        for batch in self._read((self.vector_column,), 1):
            first = batch.column(0)[0]
            return len(first) if first.is_valid else self._dimension_when_empty(said)
        return self._dimension_when_empty(said)

    def _dimension_when_empty(self, said: Space | str | None) -> int:
        if isinstance(said, Space):
            return said.dimension
        raise DataError(
            f"{self.name}: no vector in the first row, so their dimension is unknown; write some first"
        )

    @abstractmethod
    def _scan(self, columns: tuple[str, ...], rows: int) -> Iterator[pa.RecordBatch]:
        """Stream the columns in a stable order, at most `rows` rows at a time."""

    def _read(self, columns: tuple[str, ...], rows: int) -> Iterator[pa.RecordBatch]:
        with reading(self.name):
            for batch in self._scan(columns, rows):
                if len(batch):
                    yield batch

    @property
    def space(self) -> Space:
        return self._space

    def __len__(self) -> int:
        return self._rows

    def batches(self, rows: int = BATCH_ROWS, columns: tuple[str, ...] = ()) -> Iterator[VectorBatch]:
        require_columns(self.schema, columns, self.name)
        start = 0
        for batch in self._read(self._needed(self.vector_column, *columns), rows):
            vectors = to_matrix(batch.column(self.vector_column), self._space.dimension, self.name, start)
            further = {name: batch.column(name) for name in columns}
            yield VectorBatch(self._ids(batch, start), vectors, further)
            start += len(batch)

    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        if self.id_column == ROW_NUMBERS:
            yield from row_numbers(self._rows, rows)
            return
        start = 0
        for batch in self._read((self.id_column,), rows):
            yield self._ids(batch, start)
            start += len(batch)

    def _needed(self, *columns: str) -> tuple[str, ...]:
        ids = () if self.id_column == ROW_NUMBERS else (self.id_column,)
        return tuple(dict.fromkeys((*ids, *columns)))

    def _ids(self, batch: pa.RecordBatch, start: int) -> pa.Array:
        if self.id_column == ROW_NUMBERS:
            return pa.array(np.arange(start, start + len(batch)))
        return normalize_ids(batch.column(self.id_column), self.name, start)


def row_numbers(count: int, rows: int) -> Iterator[pa.Array]:
    """0 to `count` - 1 in batches, for items that have no other id."""
    for start in range(0, count, rows):
        yield pa.array(np.arange(start, min(start + rows, count)))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What a library raises on a broken file becomes UnreadableFile."""
    try:
        yield
    except CrossfadeError:
        raise
    except FileNotFoundError:
        raise UnreadableFile(f"{name}: no such file; check the path") from None
    except _BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableFile(
            f"{name}: cannot be read, it may be cut short or of another format: {reason}; "
            "copy or export it again"
        ) from error
