"""A column of pgvector as it is now: described, scanned, sampled, searched; and where things of it lie."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import UsageError
from crossfade.spaces import Space
from crossfade.stores import pg_index, pg_lock, pg_obstacles, pg_search
from crossfade.stores.address import Address
from crossfade.stores.base import Store
from crossfade.stores.home import safe_name, server_folder
from crossfade.stores.pg_cache import PgCache
from crossfade.stores.pg_parts import Ranges
from crossfade.stores.pg_rows import Field, field_of, id_field, id_name
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import identifier, listed, literal, text
from crossfade.stores.pg_table import SPACE_NOTE, UPGRADE_NOTE, Column, Table, find_table, read_table
from crossfade.stores.records import Description, Hits, Obstacle, Rows
from crossfade.vectors import BATCH_ROWS, FloatMatrix

LOCAL = ("localhost", "127.0.0.1", "::1")


class PgColumn(Store):
    """A column of type ``vector`` or ``halfvec`` in a PostgreSQL table, without what upgrades it.

    Args:
        address: server, database and options for libpq; schema, table and column. ``***`` for the user,
            as in a plan, leaves user and password to libpq (``PGUSER``, ``PGPASSWORD``, ``~/.pgpass``).
        id_column: column of the ids; the primary key unless given.

    Raises:
        MissingExtra: psycopg is not installed.
        StoreError: no connection, or no such table.
        UsageError: no such column.
    """

    knows_rows = True
    part_rows = 32_768
    """Rows of a part of the first pass."""

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        place = address.place.removeprefix("***@")
        self._server = Server(f"postgresql://{place}", str(address))
        self._oid = find_table(self._server, address.schema, address.table)
        table = self._read()
        self.column = table.vector_column(address.column)
        self._id_column = id_column or ""
        if id_column and id_column not in table.columns:
            raise UsageError(f"{address}: no column {id_column!r} for the ids; it has {table.described}")
        schema = address.schema and table.schema
        named = (address.scheme, address.place, address.table, self.column, id_column or "", schema)
        self.uri = self._server.what = str(Address(*named))
        with self._server.connection() as connection:
            info = connection.info
            self._host = info.host
            where = (f"{info.host}-{info.port}", info.dbname, table.schema, table.name)
        self._folder = server_folder(*where)
        self._ranges: Ranges | None = None

    # --- reading ------------------------------------------------------------------------------

    def describe(self) -> Description:
        table = self._read()
        column = table.column(self.column)
        count, versions, latest = self._server.one(text(_CONTENT, table=table.query))
        identity = id_name(table, self._id_column)
        hidden = {self.column, identity, *(one.name for one in table.columns.values() if _is_ours(one))}
        return Description(
            uri=self.uri,
            column=self.column,
            rows=count,
            dimension=self._dimension(table, self.column),
            column_type=column.type,
            id_column=identity,
            payload=tuple(name for name in table.columns if name not in hidden),
            index=pg_index.describe_index(self._server, table, column),
            space=column.space,
            version=latest,
            content=f"{count}:{versions}",
            parts=max(1, -(-count // self.part_rows)),
            writable=not any(one.kind == "read-only" for one in self._examined(table).access()),
        )

    def scan(
        self, column: str | None = None, *, rows: int = BATCH_ROWS, columns: Sequence[str] = ()
    ) -> Iterator[Rows]:
        table = self._read()
        chosen, ids = table.column(column or self.column), self._ids(table)
        dimension, further = self._dimension(table, chosen.name), self._fields(table, columns)
        fields = [ids.query, identifier(chosen.name), *(one.query for one in further.values())]
        order = table.key_order if table.key else ids.query
        parts = {"fields": listed(fields), "table": table.query, "order": order}
        query = text("SELECT {fields} FROM {table} ORDER BY {order}", **parts)
        with (
            self._server.connection() as connection,
            connection.transaction(),
            connection.cursor("crossfade_scan", binary=True) as cursor,
        ):
            cursor.execute(query)
            while found := cursor.fetchmany(rows):
                yield self._rows(found, ids, [(chosen, dimension)], further)[0]

    def sample(
        self, count: int, seed: int, vectors: Sequence[str], columns: Sequence[str], parts: Collection[str]
    ) -> tuple[Rows, ...]:
        table, ranges = self._read(), self._drawn()
        ids, further = self._ids(table), self._fields(table, columns)
        chosen = [(table.column(one), self._dimension(table, one)) for one in vectors]
        numbers = [number for number in range(len(ranges)) if str(number) in parts]
        within = [ranges.within(one) for one in numbers] if len(numbers) < len(ranges) else [text("true")]
        fields = [ids.query, *(identifier(one.name) for one, _ in chosen)]
        query = text(
            _SAMPLE,
            fields=listed([*fields, *(one.query for one in further.values())]),
            table=table.query,
            key=table.key_columns,
            order=table.key_order,
            within=listed([text("({one})", one=one) for one in within] or [text("false")], " OR "),
            seed=literal(seed),
            count=literal(count),
        )
        return tuple(self._rows(self._server.all(query, binary=True), ids, chosen, further))

    def search(
        self,
        queries: FloatMatrix,
        k: int,
        space: Space,
        *,
        column: str | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Hits]:
        table = self._read()
        chosen, further = table.column(column or self.column), self._fields(table, columns)
        self._require_queries(queries, self._dimension(table, chosen.name), chosen.space, space)
        ids = self._ids(table)
        return pg_search.nearest(self._server, table, chosen, queries, k, space.metric, ids, further, exact)

    def fetch(self, handles: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        table = self._read()
        return pg_search.fetch(self._server, table, handles, self._fields(table, columns))

    def space(self) -> Space | None:
        return self._read().column(self.column).space

    def obstacles(self, new: Space | None = None) -> list[Obstacle]:
        return self._examined(self._read(), new).obstacles()

    def _examined(self, table: Table, new: Space | None = None) -> pg_obstacles.Examination:
        return pg_obstacles.Examination(self._server, table, table.column(self.column), new)

    def _rows(
        self, found: list[Any], ids: Field, vectors: Sequence[tuple[Column, int]], further: dict[str, Field]
    ) -> list[Rows]:
        """One `Rows` per column of vectors, from rows of id, vectors and further columns."""
        width = 1 + len(vectors) + len(further)
        named, *columns = [list(one) for one in zip(*found, strict=True)] or [[] for _ in range(width)]
        taken, rest = ids.array(named), zip(further.items(), columns[len(vectors) :], strict=True)
        arrays = {name: one.array(values) for (name, one), values in rest}
        read = []
        for (column, dimension), values in zip(vectors, columns, strict=False):
            assert column.vector is not None
            read.append(Rows(taken, *column.vector.decode(values, dimension, self.uri), arrays))
        return read

    # --- surroundings -------------------------------------------------------------------------

    @contextmanager
    def alone(self, action: str) -> Iterator[None]:
        with pg_lock.alone(self._server, self._oid, self.column, action):
            yield

    @property
    def neighbourhood(self) -> Path:
        return self._folder

    @property
    def journal(self) -> Path:
        return self.neighbourhood / f"{safe_name(self.column)}.sqlite"

    def free_bytes(self) -> int | None:
        found = self._server.one("SELECT setting FROM pg_settings WHERE name = 'data_directory'")
        here = self._host.startswith("/") or self._host in LOCAL
        folder = Path(found[0]) if found and found[0] and here else None
        return shutil.disk_usage(folder).free if folder and folder.is_dir() else None

    def bytes_for(self, rows: int, dimension: int) -> int:
        """Every row is written anew beside its vector, which lies outside of it unless it is short."""
        table = self._read()
        main = int(self._server.one("SELECT pg_relation_size(%s::oid)", [table.oid])[0])
        kind = table.column(self.column).vector
        component = 2 if kind and kind.name == "halfvec" else 4
        return main + int(rows * (dimension * component * 1.1 + 40))

    def count_null(self, column: str) -> int:
        query = "SELECT count(*) FROM {table} WHERE {column} IS NULL"
        return int(self._server.one(text(query, **_of(self._read(), column, "column")))[0])

    def cache(self, name: str, space: Space) -> PgCache:
        table = self._read()
        kind = table.column(self.column).vector
        assert kind is not None
        return PgCache(self._server, table.schema, f"crossfade_cache_{name}", kind, space)

    def _read(self) -> Table:
        return read_table(self._server, self._oid)

    def _drawn(self) -> Ranges:
        """Drawn once: where the ranges lie matters to nothing but the first pass."""
        if self._ranges is None:
            self._ranges = Ranges.draw(self._server, self._read(), self.part_rows)
        return self._ranges

    def _ids(self, table: Table) -> Field:
        found = id_field(table, self._id_column)
        if found is None:
            raise UsageError(
                f"{self.uri}: no primary key; name the column that identifies rows: {self.uri}?id=NAME"
            )
        return found

    def _fields(self, table: Table, columns: Sequence[str]) -> dict[str, Field]:
        return {name: field_of(table.column(name)) for name in columns}

    def _dimension(self, table: Table, name: str) -> int:
        column = table.column(name)
        if column.dimension or column.vector is None:
            return column.dimension
        dims = identifier(column.vector.schema, "vector_dims")
        query = "SELECT {dims}({column}) FROM {table} WHERE {column} IS NOT NULL LIMIT 1"
        found = self._server.one(text(query, dims=dims, **_of(table, name, "column")))
        return int(found[0]) if found else 0


_CONTENT = """
SELECT count(*), coalesce(sum(xmin::text::bigint), 0)::text, coalesce(max(xmin::text::bigint), 0)::text
FROM {table}
"""
_SAMPLE = """
SELECT {fields} FROM {table} JOIN (
  SELECT {key} FROM {table} WHERE {within} ORDER BY hashtextextended(ROW({key})::text, {seed}), {key}
  LIMIT {count}
) AS crossfade_chosen USING ({key}) ORDER BY {order}
"""


def _is_ours(column: Column) -> bool:
    """A mark, or a column of new vectors that is not published."""
    return UPGRADE_NOTE in column.notes and SPACE_NOTE not in column.notes


def _of(table: Table, column: str, role: str) -> dict[str, Any]:
    return {"table": table.query, role: identifier(column)}
