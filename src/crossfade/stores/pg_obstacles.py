"""What in a PostgreSQL database stands in the way of an upgrade, found before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crossfade.spaces import Space
from crossfade.stores.pg_index import describe_index
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import NAME_BYTES, identifier, text
from crossfade.stores.pg_table import Column, Table
from crossfade.stores.pg_vectors import MOST_INDEXED
from crossfade.stores.records import Obstacle

OLDEST_SERVER, OLDEST_EXTENSION = 130000, (0, 5, 0)
OPEN_SECONDS = 60.0
SHOWN = 5
SUFFIX_BYTES = len("__previous")


@dataclass(frozen=True)
class Examination:
    """Looks at one column of vectors; each method yields what it finds."""

    server: Server
    table: Table
    column: Column
    new: Space | None

    def obstacles(self) -> list[Obstacle]:
        """Everything, what blocks first."""
        found = [
            *self._versions(),
            *self._access(),
            *self._key(),
            *self._dimensions(),
            *self._names(),
            *self._index(),
            *self._dependents(),
            *self._triggers(),
            *self._transactions(),
        ]
        return sorted(found, key=lambda one: not one.blocks)

    def access(self) -> list[Obstacle]:
        """What keeps this account from writing, or from seeing every row."""
        return list(self._access())

    @property
    def _name(self) -> str:
        return f"{self.table.schema}.{self.table.name}"

    def _versions(self) -> Iterator[Obstacle]:
        number, name = self.server.one("SELECT current_setting('server_version_num')::int, version()")
        if number < OLDEST_SERVER:
            yield Obstacle("version", f"the server is {name}", "PostgreSQL 13 or later is needed")
        found = extension_version(self.server)
        if found < OLDEST_EXTENSION:
            yield Obstacle(
                "version",
                f"extension vector is {'.'.join(map(str, found)) or 'not installed'}",
                "version 0.5.0 or later is needed: ALTER EXTENSION vector UPDATE",
            )

    def _access(self) -> Iterator[Obstacle]:
        owner, owns, creates, recovers, reads, hides, who = self.server.one(_ACCESS, [self.table.oid])
        if recovers or reads == "on":
            text_ = "the server is a replica" if recovers else "transactions of this account are read-only"
            yield Obstacle("read-only", text_, "connect to the primary server as an account that may write")
        if not owns:
            yield Obstacle(
                "read-only",
                f"table {self._name} belongs to {owner}, this account is {who}, which may not alter it",
                f"connect as {owner}, or GRANT {owner} TO {who}",
            )
        elif not creates:
            yield Obstacle(
                "read-only",
                f"{who} may not create an index or a trigger function in schema {self.table.schema}",
                f"GRANT CREATE ON SCHEMA {self.table.schema} TO {who}",
            )
        if hides:
            yield Obstacle(
                "row security",
                f"row-level security hides rows of {self._name} from {who}",
                f"connect as a role with BYPASSRLS, or ALTER TABLE {self._name} NO FORCE ROW LEVEL SECURITY",
            )

    def _key(self) -> Iterator[Obstacle]:
        if not self.table.key:
            yield Obstacle(
                "ids",
                f"table {self._name} has no primary key, nor another unique key that is never null",
                f"ALTER TABLE {self._name} ADD PRIMARY KEY (...)",
            )

    def _dimensions(self) -> Iterator[Obstacle]:
        if self.column.generated:
            yield Obstacle(
                "type", f"column {self.column.name!r} is generated", "upgrade what it is generated from"
            )
        if self.column.dimension or self.column.vector is None:
            return
        dims = identifier(self.column.vector.schema, "vector_dims")
        query = "SELECT min({dims}({column})), max({dims}({column})) FROM {table}"
        parts = {"dims": dims, "column": identifier(self.column.name), "table": self.table.query}
        low, high = self.server.one(text(query, **parts))
        if low != high:
            yield Obstacle(
                "dimensions",
                f"column {self.column.name!r} mixes vectors of {low} to {high} dimensions",
                "vectors of several models cannot be upgraded together: part them into columns of one each",
            )
        else:
            yield Obstacle(
                "type",
                f"column {self.column.name!r} is of type {self.column.type} without a dimension, "
                f"all vectors have {low}",
                "the new column gets one",
                blocks=False,
            )

    def _names(self) -> Iterator[Obstacle]:
        length = len(self.column.name.encode()) + SUFFIX_BYTES
        if length > NAME_BYTES:
            yield Obstacle(
                "name",
                f"{self.column.name + '__previous'!r} has {length} bytes, names in PostgreSQL have "
                f"{NAME_BYTES} at most",
                "rename the column",
            )

    def _index(self) -> Iterator[Obstacle]:
        kind, index = self.column.vector, describe_index(self.server, self.table, self.column)
        if kind and index and self.new and self.new.dimension > MOST_INDEXED[kind.name]:
            yield Obstacle(
                "index",
                f"index {index.name} is on type {kind.name}, which is indexed up to "
                f"{MOST_INDEXED[kind.name]} dimensions; the new vectors have {self.new.dimension}",
                "use a halfvec column (up to 4000), or drop the index and plan again",
            )
        others = [name for (name,) in self.server.all(_INDEXES, [self.table.oid, self.column.number])]
        left = [name for name in others if index is None or name != index.name]
        if left:
            yield Obstacle(
                "index",
                f"{', '.join(left)} on column {self.column.name!r} will not be built for the new vectors",
                "one plain hnsw or ivfflat index is; build these yourself after the cutover",
                blocks=False,
            )

    def _dependents(self) -> Iterator[Obstacle]:
        views = [name for (name,) in self.server.all(_VIEWS, [self.table.oid, self.column.number])]
        if views:
            yield Obstacle(
                "views",
                f"views go on showing the old vectors after the switch: {', '.join(views)}",
                "create them anew right after the cutover (and after a rollback)",
                blocks=False,
            )

    def _triggers(self) -> Iterator[Obstacle]:
        names = update_triggers(self.server, self.table)
        if names and not may_silence(self.server):
            yield Obstacle(
                "triggers",
                f"triggers fire for every row that gets its new vector: {', '.join(names)}",
                "GRANT SET ON PARAMETER session_replication_role lets Crossfade keep them quiet",
                blocks=False,
            )

    def _transactions(self) -> Iterator[Obstacle]:
        """What `CREATE INDEX CONCURRENTLY` waits for, and what keeps old versions of rows in their pages."""
        found = self.server.all(_OPEN, [OPEN_SECONDS])
        if found:
            named = ", ".join(f"process {pid} ({state}, for {age})" for pid, state, age in found[:SHOWN])
            more = f" and {len(found) - SHOWN} more" * (len(found) > SHOWN)
            yield Obstacle(
                "transactions",
                f"transactions of this database have been open for long: {named}{more}",
                "end them: until then no index is finished, and writing costs more",
                blocks=False,
            )


def extension_version(server: Server) -> tuple[int, ...]:
    """Version of pgvector in this database; empty if it is not installed."""
    found = server.one("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    return tuple(int(one) for one in found[0].split(".") if one.isdigit()) if found else ()


def update_triggers(server: Server, table: Table) -> list[str]:
    """The application's triggers that would fire when a new vector is written."""
    query = """
    SELECT tgname FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal AND tgenabled IN ('O', 'A')
    AND tgtype & 16 <> 0 AND tgattr::text = '' AND tgname NOT LIKE 'zzz\\_crossfade\\_%%' ORDER BY tgname
    """
    return [name for (name,) in server.all(query, [table.oid])]


def may_silence(server: Server) -> bool:
    """Whether this account may keep triggers from firing in its own session."""
    (superuser, number) = server.one(
        "SELECT current_setting('is_superuser') = 'on', current_setting('server_version_num')::int"
    )
    if superuser or number < 150000:
        return bool(superuser)
    query = "SELECT has_parameter_privilege('session_replication_role', 'SET')"
    return bool(server.one(query)[0])


_OPEN = """
SELECT pid, coalesce(state, backend_type), date_trunc('second', now() - xact_start) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL
  AND xact_start < now() - make_interval(secs => %s) ORDER BY xact_start
"""
_ACCESS = """
SELECT r.rolname, pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(c.relnamespace, 'CREATE'),
  pg_is_in_recovery(), current_setting('transaction_read_only'), row_security_active(c.oid), current_user
FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = %s
"""
_INDEXES = """
SELECT DISTINCT c.relname FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'i'
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
  AND d.refobjid = %s AND d.refobjsubid = %s AND c.relname NOT LIKE 'crossfade\\_%%' ORDER BY 1
"""
_VIEWS = """
SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
  AND d.refobjid = %s AND d.refobjsubid = %s AND r.ev_class <> d.refobjid ORDER BY 1
"""
