"""What PostgreSQL's catalog says of a table: columns, key, types, notes of ours in comments.

The space of a column's vectors is recorded in the column's comment, which stays with the column when it
is renamed and is part of every dump. The comment's other lines are left as they are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from crossfade.errors import StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, listed, literal, text
from crossfade.stores.pg_vectors import COMPONENTS, VectorType

SPACE_NOTE, UPGRADE_NOTE, REQUIRED_NOTE = "space", "upgrade", "required"
_NOTE = re.compile(r"^crossfade\.(?P<name>\w+): (?P<value>.*)$")
_KINDS = {"p": "partitioned", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its number, its type with and without modifier, whether null is forbidden, its comment."""

    name: str
    number: int
    type: str
    bare_type: str
    type_name: str
    modifier: int
    required: bool
    generated: bool
    comment: str
    vector: VectorType | None

    @property
    def notes(self) -> dict[str, str]:
        """Our notes in the comment."""
        found = (_NOTE.match(line) for line in self.comment.splitlines())
        return {one["name"]: one["value"] for one in found if one}

    @property
    def space(self) -> Space | None:
        """The space that is recorded."""
        noted = self.notes.get(SPACE_NOTE)
        return Space.from_dict(json.loads(noted)) if noted else None

    @property
    def dimension(self) -> int:
        """Of the vectors, where the type says so; else 0."""
        return max(self.modifier, 0) if self.vector else 0


@dataclass(frozen=True)
class Table:
    """A table as it is now.

    Attributes:
        key: columns of the primary key, or of another unique key that is never null.
    """

    oid: int
    schema: str
    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    key: tuple[Column, ...] = ()

    @property
    def query(self) -> Query:
        """The table's quoted name."""
        return identifier(self.schema, self.name)

    @property
    def key_columns(self) -> Query:
        """The key as a list of columns."""
        return listed([identifier(one.name) for one in self.key])

    @property
    def key_order(self) -> Query:
        """The same for ORDER BY, where a plain name would mean what is selected under it."""
        return listed([identifier(self.schema, self.name, one.name) for one in self.key])

    @property
    def described(self) -> str:
        """Names and types of the columns, for a message."""
        return ", ".join(f"{one.name!r} ({one.type})" for one in self.columns.values()) or "no columns"

    def column(self, name: str) -> Column:
        """The column of this name.

        Raises:
            StoreError: there is none.
        """
        if name not in self.columns:
            raise StoreError(f"{self.schema}.{self.name}: no column {name!r}; it has {self.described}")
        return self.columns[name]

    def vector_column(self, chosen: str) -> str:
        """The column that was chosen, else ``vector`` or ``embedding``, else the only one of vectors.

        Raises:
            UsageError: there is no such column, or several could be meant.
        """
        vectors = [one.name for one in self.columns.values() if one.vector]
        usual = [name for name in ("vector", "embedding") if name in vectors]
        candidates = [chosen] if chosen else usual or (vectors if len(vectors) == 1 else [])
        if candidates and candidates[0] in vectors:
            return candidates[0]
        problem = f"no column {chosen!r}" if chosen and chosen not in self.columns else "no column of vectors"
        if chosen in self.columns:
            problem = f"column {chosen!r} holds no vectors"
        if len(vectors) > 1:
            problem = f"{len(vectors)} columns of vectors and none was named" if not chosen else problem
        raise UsageError(
            f"{self.schema}.{self.name}: {problem}; it has {self.described}; "
            "name a column of type vector or halfvec: #table.column"
        )


def find_table(server: Server, schema: str, name: str) -> int:
    """The table's oid.

    Raises:
        StoreError: there is no such table, or it is something else.
    """
    wanted = identifier(*filter(None, (schema, name))).as_string(None)
    found = server.one("SELECT oid, relkind FROM pg_class WHERE oid = to_regclass(%s)", [wanted])
    if found is None:
        raise StoreError(
            f"{server.what}: no table {wanted}; write #table.column, or #schema.table.column where the "
            "schema is not on the search path"
        )
    oid, kind = found
    if kind != "r":
        raise StoreError(
            f"{server.what}: {wanted} is a {_KINDS.get(kind, kind)}, a plain table is needed; "
            + ("a partitioned one cannot be upgraded in place" if kind == "p" else "address its table")
        )
    return int(oid)


def read_table(server: Server, oid: int) -> Table:
    """What the catalog says now.

    Raises:
        StoreError: the table is gone.
    """
    named = server.one(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.oid = %s",
        [oid],
    )
    if named is None:
        raise StoreError(f"{server.what}: the table is gone")
    columns = [_column(row) for row in server.all(_COLUMNS, [oid])]
    numbered = {one.number: one for one in columns}
    key: tuple[Column, ...] = ()
    for (numbers,) in server.all(_KEYS, [oid]):
        members = [numbered.get(number) for number in numbers]
        if not key and all(one is not None and one.required for one in members):
            key = tuple(one for one in members if one is not None)
    schema, name = named
    return Table(oid, schema, name, {one.name: one for one in columns}, key)


_COLUMNS = """
SELECT a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1), t.typname,
  a.atttypmod, a.attnotnull, a.attgenerated <> '', coalesce(col_description(a.attrelid, a.attnum), ''),
  n.nspname, t.oid
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS = """
SELECT (indkey::int2[])[0:indnkeyatts - 1] FROM pg_index
WHERE indrelid = %s AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL AND indexprs IS NULL
ORDER BY indisprimary DESC, indnkeyatts, indexrelid
"""


def _column(row: Any) -> Column:
    *plain, schema, oid = row
    type_name = plain[4]
    vector = VectorType(type_name, schema, oid) if type_name in COMPONENTS else None
    return Column(*[*plain, vector])


def note(connection: Any, table: Table, column: Column, **notes: str | None) -> None:
    """Write notes into a column's comment; None takes one out. What else it says stays."""
    kept = [line for line in column.comment.splitlines() if not _NOTE.match(line)]
    values = {**column.notes, **notes}
    kept += [f"crossfade.{name}: {value}" for name, value in values.items() if value is not None]
    connection.execute(
        text(
            "COMMENT ON COLUMN {table}.{column} IS {comment}",
            table=table.query,
            column=identifier(column.name),
            comment=literal("\n".join(kept) or None),
        )
    )


def space_note(space: Space) -> str:
    """A space on one line."""
    return json.dumps(space.to_dict(), ensure_ascii=False)
