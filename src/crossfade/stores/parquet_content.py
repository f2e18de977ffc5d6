"""One version of a Parquet file, read in batches wherever its row groups begin."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.errors import UsageError
from crossfade.stores.file_content import Content, Positions, Unreadable, ids_of
from crossfade.stores.lance_parts import read_vectors
from crossfade.stores.records import Rows
from crossfade.vectors import BATCH_ROWS
from crossfade.vectors.columns import choose_vector_column, describe_columns
from crossfade.vectors.parquet import READ_BUFFER_BYTES


class ParquetContent(Content):
    """The rows of the file at `path`, held open, so that it stays what it is when it is replaced.

    Raises:
        Unreadable: it cannot be read, now or later.
        UsageError: no such column.
    """

    def __init__(self, path: Path, column: str, id_column: str | None, what: str) -> None:
        self._path, self._what, self._column = path, what, column
        with self._reading():
            self._source = pa.OSFile(str(path))
            self.file = self._open()
        self.schema = self.file.schema_arrow
        choose_vector_column(self.schema, column, what)
        if id_column and id_column not in self.schema.names:
            raise UsageError(
                f"{what}: no column {id_column!r} for the ids; it has {describe_columns(self.schema)}"
            )
        self.id_column = id_column or ("id" if "id" in self.schema.names else "")
        self.rows, self.column_type = self.file.metadata.num_rows, str(self.schema.field(column).type)
        self.payload = tuple(one for one in self.schema.names if one not in (column, self.id_column))
        self.dimension = self._dimension()
        self.id_type = pa.string()
        if self.id_column:
            self.id_type = ids_of(pa.array([], self.schema.field(self.id_column).type), what).type
        self._cursor: tuple[tuple[str, ...], int, Iterator[pa.RecordBatch]] | None = None

    def _open(self) -> pq.ParquetFile:
        # Pre-buffering would hold whole row groups; a buffered stream holds a page of each column.
        return pq.ParquetFile(self._source, pre_buffer=False, buffer_size=READ_BUFFER_BYTES)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            why = str(error).partition("\n")[0]
            raise Unreadable(f"{self._path}: cannot be read as Parquet: {why}") from None

    def twin(self) -> ParquetContent:
        """The same file for another thread, which reads at its own pace; closed with this one."""
        made = copy.copy(self)
        made.file, made._cursor = self._open(), None
        return made

    def _id_name(self) -> str:
        if not self.id_column:
            raise UsageError(
                f"{self._what}: no column 'id'; name the one that identifies rows: {self._what}?id=NAME"
            )
        return self.id_column

    def _dimension(self) -> int:
        column_type = self.schema.field(self._column).type
        if pa.types.is_fixed_size_list(column_type):
            return int(column_type.list_size)
        for batch in self._decoded(list(range(self.file.num_row_groups)), [self._column]):
            lengths = batch.column(0).value_lengths().drop_null()
            if len(lengths):
                return int(lengths[0].as_py())
        return 0

    def batches(
        self, rows: int = BATCH_ROWS, columns: Sequence[str] = (), start: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        names = tuple(dict.fromkeys([self._column, self._id_name(), *columns]))
        for batch in self.record_batches(names, rows, start, stop):
            vectors, null = read_vectors(batch.column(self._column), self.dimension, self._what)
            further = {name: batch.column(name) for name in columns}
            yield Rows(ids_of(batch.column(self.id_column), self._what), vectors, null, further)

    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        for batch in self.record_batches((self._id_name(),), rows):
            yield ids_of(batch.column(0), self._what)

    def record_batches(
        self, names: tuple[str, ...], rows: int, start: int = 0, stop: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the rows from `start` to `stop`, `rows` at a time.

        A read that begins where the last one ended goes on with it, so that a row group which is read in
        several pieces is decoded once.
        """
        stop = self.rows if stop is None else min(stop, self.rows)
        cursor, self._cursor = self._cursor, None
        stream = cursor[2] if cursor and cursor[:2] == (names, start) else self._stream(names, start)
        held: list[pa.RecordBatch] = []
        while start < stop:
            wanted = min(rows, stop - start)
            while sum(map(len, held)) < wanted:
                held.append(next(stream))
            joined = _joined(held)
            held, start = [joined.slice(wanted)] if len(joined) > wanted else [], start + wanted
            yield joined.slice(0, wanted)
        self._cursor = (names, stop, _chain(held, stream))

    def _stream(self, names: tuple[str, ...], start: int) -> Iterator[pa.RecordBatch]:
        """All rows from `start` on; row groups before it are not read."""
        first = 0
        for group in range(self.file.num_row_groups):
            rows = self.file.metadata.row_group(group).num_rows
            if first + rows > start:
                break
            first += rows
        else:
            return
        groups = list(range(group, self.file.num_row_groups))
        for batch in self._decoded(groups, list(names)):
            skipped = max(0, min(len(batch), start - first))
            first += len(batch)
            if skipped < len(batch):
                yield batch.slice(skipped)

    def _decoded(self, groups: list[int], names: list[str]) -> Iterator[pa.RecordBatch]:
        batches = self.file.iter_batches(BATCH_ROWS, row_groups=groups, columns=names)
        while True:
            with self._reading():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def take(self, positions: Positions, columns: Sequence[str] = ()) -> Rows:
        table = self._picked(positions, [self._column, self._id_name(), *columns])
        vectors, null = read_vectors(_whole(table.column(self._column)), self.dimension, self._what)
        return Rows(self._ids_in(table), vectors, null, _further(table, columns))

    def ids_at(
        self, positions: Positions, columns: Sequence[str] = ()
    ) -> tuple[pa.Array, Mapping[str, pa.Array]]:
        table = self._picked(positions, [self._id_name(), *columns])
        return self._ids_in(table), _further(table, columns)

    def _ids_in(self, table: pa.Table) -> pa.Array:
        return ids_of(_whole(table.column(self.id_column)), self._what)

    def _picked(self, positions: Positions, columns: Sequence[str]) -> pa.Table:
        """Columns of some rows, in the order asked for."""
        order = np.argsort(positions, kind="stable")
        pieces, names = [], list(dict.fromkeys(columns))
        for group, first, rows in self._groups():
            inside = positions[order]
            inside = inside[(inside >= first) & (inside < first + rows)] - first
            pieces += self._pick(group, inside, names)
        table = pa.Table.from_batches(pieces, schema=pa.schema([self.schema.field(one) for one in names]))
        return table.take(pa.array(np.argsort(order, kind="stable"))).combine_chunks()

    def _groups(self) -> Iterator[tuple[int, int, int]]:
        first = 0
        for group in range(self.file.num_row_groups):
            rows = self.file.metadata.row_group(group).num_rows
            yield group, first, rows
            first += rows

    def _pick(self, group: int, inside: Positions, names: list[str]) -> list[pa.RecordBatch]:
        """The rows of a row group at these places, which rise."""
        pieces, first = [], 0
        if not len(inside):
            return []
        for batch in self._decoded([group], names):
            here = inside[(inside >= first) & (inside < first + len(batch))] - first
            if len(here):
                pieces.append(batch.take(pa.array(here)).select(names))
            first += len(batch)
        return pieces

    def close(self) -> None:
        self.file.close()
        self._source.close()


def _chain(held: list[pa.RecordBatch], stream: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from held
    yield from stream


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _further(table: pa.Table, columns: Sequence[str]) -> dict[str, pa.Array]:
    return {name: _whole(table.column(name)) for name in columns}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
