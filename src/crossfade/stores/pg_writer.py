"""Write new vectors into the pending rows of a PostgreSQL table.

Rows are read through a server-side cursor, mapped, and written some hundred at a time: one UPDATE from arrays
in binary form, which is faster than COPY into a staging table and an UPDATE from there, since nothing is
written twice. A row is written only if it is still the version that was read (`xmin`): one that others
have changed stays pending. Nor does it wait long for a row that others hold: it leaves it pending.

The order of writing spares the table's indexes, above all that of the old vectors. PostgreSQL keeps a row in
its page, and leaves all indexes alone, if the page has room for the new version (a heap-only update). A full
page has none until another row of it was updated, that is committed, and nobody sees its old version any
more. So a part is not written page after page: the first row of every page comes first, then the second, each
statement in a transaction of its own, and from the second on most rows find room. Each writer has pages to
itself, and the reader is done before most is written, so that its snapshot does not keep old versions.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfade.errors import InvalidVectors
from crossfade.stores.pg_parts import Names
from crossfade.stores.pg_rows import Field
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, listed, literal, psycopg, text
from crossfade.stores.pg_table import Table
from crossfade.stores.pg_vectors import VectorType, bytes_array, fixed_array, marks, vector_array
from crossfade.stores.records import Produce, Produced, Rows
from crossfade.vectors.channel import Consumer, read_ahead

ROWS_PER_STATEMENT = 256
"""Each statement is a transaction of its own: few rows, so that a page soon has room for its next one."""
WRITERS = 2
"""Connections that write at a time."""
FEW_ROWS = 4096
"""In batches of so many a part is read before much of it is written. For smaller ones, the server keeps the
rows that the cursor is to give, so that the reader has no snapshot; that costs it a copy."""
BYTEA, TEXT, XID = 17, 25, 28
"""Type numbers, the same on every server."""
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

    def write(self, where: Query, produce: Produce, rows: int, *, by_place: bool) -> Written:
        """Write the pending rows that fulfil a condition, in batches of at most `rows`.

        Args:
            by_place: in the order that spares indexes, which is for parts of the first pass: their rows are
                few enough for the server to keep, and their marks are in no index yet.
        """
        done = Written()
        if self._server.holds:
            self._update_all(self._made(self._read(where, rows, by_place), produce, done))
            return done
        sinks: list[Consumer[_Values]] = [Consumer(self._update_all, depth=1) for _ in range(WRITERS)]
        try:
            with ExitStack() as reading:
                turns = deque[tuple[Consumer[_Values], Iterator[_Values]]]()
                for lane, sink in enumerate(sinks):
                    batches = read_ahead(self._read(_within(where, lane), rows, by_place), depth=1)
                    turns.append((sink, self._made(reading.enter_context(closing(batches)), produce, done)))
                while turns:
                    sink, made = turns.popleft()
                    if (values := next(made, None)) is not None:
                        sink.put(values)
                        turns.append((sink, made))
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

    def _read(self, where: Query, rows: int, by_place: bool) -> Iterator[Batch]:
        kept = by_place and rows < FEW_ROWS and not self._server.holds
        with (
            self._server.connection() as connection,
            nullcontext() if kept else connection.transaction(),
            connection.cursor("crossfade_rows", binary=True, withhold=kept) as cursor,
        ):
            cursor.execute(self._selection(where, by_place))
            while found := cursor.fetchmany(rows):
                yield self._batch(found)

    def _selection(self, where: Query, by_place: bool) -> Query:
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
            order=listed([*[_PLACE] * by_place, self._table.key_order]),
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
            connection.adapters.register_dumper(Binary, BinaryDumper)
            for values in batches:
                for start in range(0, len(values), ROWS_PER_STATEMENT):
                    some = values.between(start, start + ROWS_PER_STATEMENT)
                    try:
                        self._update(connection, some, self._update_query(skip=False))
                    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                        self._update(connection, some, self._update_query(skip=True))

    def _update(self, connection: Any, values: list[Any], query: Query) -> None:
        settings = {
            "lock_timeout": f"{ROW_WAIT_MS}ms",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "enable_seqscan": "off",
            **({"session_replication_role": "replica"} if self._quiet else {}),
        }
        if not self._server.holds:
            # What a crash of the server takes back lacks its marks, too, and so is pending again. The switch,
            # which `hold` is for, has to be on disk before anybody is told of it.
            settings["synchronous_commit"] = "off"
        calls = "SELECT " + ", ".join(["set_config(%s, %s, true)"] * len(settings))
        with connection.transaction():
            connection.execute(calls, [one for setting in settings.items() for one in setting])
            connection.execute(query, values)

    def _update_query(self, *, skip: bool) -> Query:
        """One statement that writes rows from arrays; with `skip` it passes over rows that others hold."""
        keys = [f"k{number}" for number in range(len(self._table.key))]
        arrays = [f"%s::text[]::{one.bare_type}[]" for one in self._table.key]
        found = "t" if not skip else "u"
        same = [
            text("{column} = s.{key}", column=identifier(found, column.name), key=identifier(key))
            for key, column in zip(keys, self._table.key, strict=True)
        ]
        vectors = text("%s::{kind}", kind=self._new.array)
        given = [*map(text, arrays), text("%s::xid[]"), vectors, text("%s::bytea[]")]
        source = text("unnest({given})", given=listed(given))
        parts = {
            "table": self._table.query,
            "new": identifier(self._names.new),
            "mark": identifier(self._names.mark),
            "source": source,
            "names": listed([identifier(one) for one in (*keys, "x", "v", "m")]),
            "same": listed([*same, text(f"{found}.xmin = s.x")], " AND "),
        }
        return text(_SKIPPING if skip else _PLAIN, **parts)


_PAGE, _PLACE = text("(ctid::text::point)[0]::bigint"), text("(ctid::text::point)[1]")
"""Of a row: the page that it lies in, and its place there."""


def _within(where: Query, lane: int) -> Query:
    """Rows in the pages of one writer."""
    parts = {"where": where, "page": _PAGE, "writers": literal(WRITERS), "lane": literal(lane)}
    return text("{where} AND {page} % {writers} = {lane}", **parts)


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
        keys = [bytes_array(TEXT, [one.encode() for one in values[start:stop]]) for values in self._keys]
        versions = fixed_array(XID, np.array(self._versions[start:stop]).astype(">u4"))
        vectors = vector_array(self._oid, self._records[start:stop], self._valid[start:stop])
        found = bytes_array(BYTEA, self.marks[start:stop])
        return [Binary(one) for one in (*keys, versions, vectors, found)]


@dataclass(frozen=True, slots=True)
class Binary:
    """A parameter in binary form; the statement says of what type it is."""

    data: bytes


class BinaryDumper(psycopg.adapt.Dumper):  # type: ignore[misc]
    """Sends `Binary` as it is."""

    format = psycopg.pq.Format.BINARY

    def dump(self, value: Binary) -> bytes:
        """The bytes themselves."""
        return value.data
