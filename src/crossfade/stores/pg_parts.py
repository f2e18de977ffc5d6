"""Parts of a PostgreSQL table: ranges of the key, and the rows in them that lack their new vector.

Every row carries a mark of the upgrade's own (`Names.mark`): empty until its new vector is written, and
emptied by a trigger when what that was made from changes. So what is pending is known row by row, and
the ranges only divide the first pass: where they are drawn matters to nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, listed, literal, text
from crossfade.stores.pg_table import Table
from crossfade.stores.records import Part, Receipt, Staged

CHANGED = "changed-"
"""Begins the key of a part that is every pending row outside of the first pass."""


@dataclass(frozen=True, slots=True)
class Names:
    """The columns of an upgrade as they are named now.

    Attributes:
        old, new: of the vectors.
        mark: of the mark; also the name of the trigger and of its function.
        staged: whether the new column exists.
        switched: whether the new vectors are in use.
    """

    old: str
    new: str
    mark: str
    staged: bool
    switched: bool

    @classmethod
    def of(cls, table: Table, column: str, staged: Staged) -> Names:
        """As the table is now."""
        mark = mark_name(staged.upgrade)
        if staged.previous and staged.previous in table.columns:
            return cls(staged.previous, column, mark, True, True)
        return cls(column, staged.name, mark, mark in table.columns, False)

    @property
    def pending(self) -> Query:
        """Whether a row lacks its new vector. After the switch, the application's own rows do not."""
        if not self.staged:
            return text("true")
        after = "{mark} IS NULL AND {new} IS NULL AND {old} IS NOT NULL"
        query = after if self.switched else "{mark} IS NULL"
        names = {"mark": self.mark, "new": self.new, "old": self.old}
        return text(query, **{role: identifier(name) for role, name in names.items()})


def mark_name(upgrade: str) -> str:
    """Name of the column, trigger and function of an upgrade."""
    return f"crossfade_{upgrade}"


class Ranges:
    """The table cut into ranges of its key, `rows` in each when they were drawn.

    Args:
        bounds: the first key of each range but the first, its columns as text.
    """

    def __init__(self, table: Table, bounds: list[tuple[str, ...]]) -> None:
        self._table, self._bounds = table, bounds

    @classmethod
    def draw(cls, server: Server, table: Table, rows: int) -> Ranges:
        """Reads the index of the key once."""
        if not table.key:
            return cls(table, [])
        query = text(
            "SELECT {texts} FROM (SELECT {key}, row_number() OVER (ORDER BY {key}) AS crossfade_n "
            "FROM {table}) AS s WHERE crossfade_n > 1 AND crossfade_n % {rows} = 1 ORDER BY crossfade_n",
            texts=listed([text("{one}::text", one=identifier(one.name)) for one in table.key]),
            key=table.key_columns,
            table=table.query,
            rows=literal(rows),
        )
        return cls(table, server.all(query))

    def __len__(self) -> int:
        return len(self._bounds) + 1

    @property
    def number(self) -> Query:
        """The number of the range that a row is in."""
        if not self._bounds:
            return text("0")
        rows = [self._row(bound) for bound in self._bounds]
        return text("width_bucket({key}, ARRAY[{bounds}])", key=self._key, bounds=listed(rows))

    def within(self, number: int) -> Query:
        """Whether a row is in a range."""
        conditions = []
        if number > 0:
            conditions.append(text("{key} >= {low}", key=self._key, low=self._row(self._bounds[number - 1])))
        if number < len(self._bounds):
            conditions.append(text("{key} < {high}", key=self._key, high=self._row(self._bounds[number])))
        return listed(conditions, " AND ") if conditions else text("true")

    @property
    def _key(self) -> Query:
        if len(self._table.key) == 1:
            return self._table.key_columns
        return text("ROW({key})", key=self._table.key_columns)

    def _row(self, bound: tuple[str, ...]) -> Query:
        values = [
            text("{value}::" + column.bare_type, value=literal(value))
            for column, value in zip(self._table.key, bound, strict=True)
        ]
        return values[0] if len(values) == 1 else text("ROW({values})", values=listed(values))


def count_rows(server: Server, table: Table, ranges: Ranges, where: Query) -> dict[int, tuple[int, str]]:
    """Rows by range that fulfil a condition, and what changes when one of them is rewritten."""
    query = text(
        "SELECT {number}, count(*), sum(xmin::text::bigint)::text FROM {table} WHERE {where} GROUP BY 1",
        number=ranges.number,
        table=table.query,
        where=where,
    )
    return {number: (count, f"{count}:{versions}") for number, count, versions in server.all(query)}


def all_parts(server: Server, table: Table, ranges: Ranges) -> list[Part]:
    """Every range."""
    counts = count_rows(server, table, ranges, text("true"))
    return [Part(str(one), *counts.get(one, (0, "0"))) for one in range(len(ranges))]


def pending_parts(
    server: Server, table: Table, ranges: Ranges, names: Names, receipts: Mapping[str, Receipt]
) -> list[Part]:
    """Ranges that were never finished, and one part of all rows that changed in the others.

    The rows of these parts are those that are pending.
    """
    counts = count_rows(server, table, ranges, names.pending)
    first = [] if names.switched else [one for one in range(len(ranges)) if str(one) not in receipts]
    parts = [Part(str(one), *counts.pop(one, (0, "0"))) for one in first]
    if counts:
        now = server.one("SELECT txid_snapshot_xmax(txid_current_snapshot())")[0]
        rows = sum(count for count, _ in counts.values())
        parts.append(Part(f"{CHANGED}{now}", rows, " ".join(source for _, source in counts.values())))
    return parts
