"""Write new vectors into the pending rows of a PostgreSQL table.

Rows are read through a server-side cursor, mapped, and written batch by batch: one UPDATE from arrays in
binary form, which is faster than COPY into a staging table and an UPDATE from there, since nothing is
written twice. A row is written only if it is still the version that was read (`xmin`): one that others
have changed stays pending. Nor does it wait long for a row that others hold: it leaves it pending.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from crossfade.errors import InvalidVectors
from crossfade.stores.base import Produce, Produced, Rows
from crossfade.stores.pg_parts import Names
from crossfade.stores.pg_rows import Field
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, listed, psycopg, text
from crossfade.stores.pg_table import Table
from crossfade.stores.pg_vectors import VectorType, marks, vector_array
from crossfade.vectors.channel import Consumer, read_ahead

ROWS_PER_STATEMENT = 2048
WRITERS = 2
"""Connections that write at a time; each batch is a transaction of its own."""
ROW_WAIT_MS = 200
"""How long a batch waits for rows that others hold: less than PostgreSQL waits to look for a deadlock."""


@dataclass(frozen=True)
class Batch:
    """Rows that were read, and what identifies their versions."""

    keys: list[list[str]]
    versions: list[str]
    rows: Rows
    written: np.ndarray | None


class Written:
    """Counts what is written."""

    def __init__(self) -> None:
        self.rows = self.nulls = 0
        self.digest = hashlib.sha256()

    def add(self, made: Sequence[bytes]) -> None:
        """Rows that were written, by their marks."""
        self.rows += len(made)
        self.nulls += sum(not one for one in made)
        self.digest.update(b"".join(made))


class RowWriter:
    """Writes the pending rows of a table.

    Args:
        names: the upgrade's columns as they are named now.
        ids, further: what is read beside the vectors.
        dimensions: of the old and the new vectors.
        quiet: whether the application's triggers are kept from firing.
    """

    def __init__(
        self,
        server: Server,
        table: Table,
        names: Names,
        ids: Field,
        further: dict[str, Field],
        dimensions: tuple[int, int],
        quiet: bool,
    ) -> None:
        self._server, self._table, self._names = server, table, names
        self._ids, self._further, self._dimensions, self._quiet = ids, further, dimensions, quiet
        old, new = table.column(names.old).vector, table.column(names.new).vector
        assert old is not None
        assert new is not None
        self._old: VectorType = old
        self._new: VectorType = new

    def write(self, where: Query, produce: Produce, rows: int) -> Written:
        """Write the pending rows that fulfil a condition, in batches of at most `rows`."""
        done = Written()
        if self._server.holds:
            self._update_all(self._made(self._read(where, rows), produce, done))
            return done
        sinks: list[Consumer[_Values]] = [Consumer(self._update_all, depth=1) for _ in range(WRITERS)]
        try:
            made = self._made(read_ahead(self._read(where, rows)), produce, done)
            for sink, values in zip(cycle(sinks), made, strict=False):
                sink.put(values)
            for sink in sinks:
                sink.finish()
        except BaseException:
            for sink in sinks:
                sink.abandon()
            raise
        return done

    def _made(self, batches: Iterator[Batch], produce: Produce, done: Written) -> Iterator[_Values]:
        for batch in batches:
            values = _Values(batch, self._produce(batch, produce), self._new)
            done.add(values.marks)
            yield values

    # --- reading ------------------------------------------------------------------------------

    def _read(self, where: Query, rows: int) -> Iterator[Batch]:
        with (
            self._server.connection() as connection,
            connection.transaction(),
            connection.cursor("crossfade_rows", binary=True) as cursor,
        ):
            cursor.execute(self._selection(where))
            while found := cursor.fetchmany(rows):
                yield self._batch(found)

    def _selection(self, where: Query) -> Query:
        """Key and version as text, id, old vector, the new one where there is no old one, further columns."""
        old, new = identifier(self._names.old), identifier(self._names.new)
        only_new = text("CASE WHEN {old} IS NULL THEN {new} END", old=old, new=new)
        keys = [text("{one}::text", one=identifier(one.name)) for one in self._table.key]
        fields = [self._ids.query, old, only_new, *(one.query for one in self._further.values())]
        return text(
            "SELECT {fields} FROM {table} WHERE {pending} AND {where} ORDER BY {order}",
            fields=listed([*keys, text("xmin::text"), *fields]),
            table=self._table.query,
            pending=self._names.pending,
            where=where,
            order=self._table.key_order,
        )

    def _batch(self, found: list[Any]) -> Batch:
        columns = [list(one) for one in zip(*found, strict=True)]
        width = len(self._table.key)
        keys, (versions, ids, old, new, *further) = columns[:width], columns[width:]
        vectors, null = self._old.decode(old, self._dimensions[0], self._server.what)
        written = kept = None
        if null.any():
            written, missing = self._new.decode(new, self._dimensions[1], self._server.what)
            kept = null & ~missing
        named = zip(self._further.items(), further, strict=True)
        arrays = {name: one.array(values) for (name, one), values in named}
        return Batch(keys, versions, Rows(self._ids.array(ids), vectors, null, arrays, kept), written)

    def _produce(self, batch: Batch, produce: Produce) -> Produced:
        made, expected = produce(batch.rows), (len(batch.rows), self._dimensions[1])
        if made.vectors.shape != expected:
            raise InvalidVectors(
                f"{self._server.what}: expected new vectors {expected}, got {made.vectors.shape}"
            )
        kept = batch.rows.kept
        if kept is None or batch.written is None:
            return made
        return Produced(np.where(kept[:, None], batch.written, made.vectors), made.valid | kept)

    # --- writing ------------------------------------------------------------------------------

    def _update_all(self, batches: Iterator[_Values]) -> None:
        with self._server.connection() as connection:
            connection.adapters.register_dumper(Binary, dumper(self._new.array_oid))
            for values in batches:
                try:
                    self._update(connection, values, self._update_query(skip=False))
                except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                    self._update(connection, values, self._update_query(skip=True))

    def _update(self, connection: Any, values: _Values, query: Query) -> None:
        settings = {
            "lock_timeout": f"{ROW_WAIT_MS}ms",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "enable_seqscan": "off",
            **({"session_replication_role": "replica"} if self._quiet else {}),
        }
        with connection.transaction():
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            for start in range(0, len(values), ROWS_PER_STATEMENT):
                connection.execute(query, values.between(start, start + ROWS_PER_STATEMENT))

    def _update_query(self, *, skip: bool) -> Query:
        """One statement that writes rows from arrays; with `skip` it passes over rows that others hold."""
        keys = [f"k{number}" for number in range(len(self._table.key))]
        arrays = [f"%s::text[]::{one.bare_type}[]" for one in self._table.key]
        found = "t" if not skip else "u"
        same = [
            text("{column} = s.{key}", column=identifier(found, column.name), key=identifier(key))
            for key, column in zip(keys, self._table.key, strict=True)
        ]
        source = text("unnest(" + ", ".join([*arrays, "%s::text[]::xid[]", "%s", "%s::bytea[]"]) + ")")
        parts = {
            "table": self._table.query,
            "new": identifier(self._names.new),
            "mark": identifier(self._names.mark),
            "source": source,
            "names": listed([identifier(one) for one in (*keys, "x", "v", "m")]),
            "same": listed([*same, text(f"{found}.xmin = s.x")], " AND "),
        }
        return text(_SKIPPING if skip else _PLAIN, **parts)


_PLAIN = """
UPDATE {table} AS t SET {new} = s.v, {mark} = s.m FROM {source} AS s({names}) WHERE {same}
"""
_SKIPPING = """
UPDATE {table} AS t SET {new} = s.v, {mark} = s.m FROM (
  SELECT u.ctid AS c, s.v, s.m FROM {source} AS s({names}) JOIN {table} AS u ON {same}
  FOR UPDATE OF u SKIP LOCKED
) AS s WHERE t.ctid = s.c
"""


class _Values:
    """What is sent for a batch."""

    def __init__(self, batch: Batch, made: Produced, kind: VectorType) -> None:
        self._keys, self._versions = batch.keys, batch.versions
        self._valid, self._oid = made.valid, kind.oid
        vectors = (
            made.vectors if made.valid.all() else np.where(made.valid[:, None], made.vectors, np.float32(0))
        )
        self._records = kind.encode(vectors)
        self.marks = marks(self._records, made.valid)

    def __len__(self) -> int:
        return len(self.marks)

    def between(self, start: int, stop: int) -> list[Any]:
        """The parameters for some of the rows."""
        keys = [values[start:stop] for values in self._keys]
        vectors = vector_array(self._oid, self._records[start:stop], self._valid[start:stop])
        return [*keys, self._versions[start:stop], Binary(vectors), self.marks[start:stop]]


@dataclass(frozen=True, slots=True)
class Binary:
    """A parameter in binary form."""

    data: bytes


def dumper(oid: int) -> Any:
    """Sends `Binary` as it is, as a value of the type `oid`."""

    def dump(self: Any, value: Binary) -> bytes:
        return value.data

    members = {"oid": oid, "format": psycopg.pq.Format.BINARY, "dump": dump}
    return type("BinaryDumper", (psycopg.adapt.Dumper,), members)
