"""pgvector's ANN indexes: described, and built again alike beside the table's readers and writers."""

from __future__ import annotations

from typing import Any

from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import identifier, text
from crossfade.stores.pg_table import Column, Table
from crossfade.stores.records import IndexInfo

TYPES = ("hnsw", "ivfflat")
_DEFAULTS = {"hnsw": {"m": 16, "ef_construction": 64}, "ivfflat": {"lists": 100}}
_METRICS = {"l2": "l2", "dot": "ip", "cosine": "cosine", "l1": "l1"}
_NAMED = {"l2": "l2", "ip": "dot", "cosine": "cosine", "l1": "l1"}
_INDEXES = """
SELECT c.relname, am.amname, o.opcname, coalesce(c.reloptions, '{}'), c.reltuples::bigint
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = %s AND i.indkey[0] = %s AND i.indnatts = 1 AND i.indisvalid AND i.indpred IS NULL
  AND am.amname = ANY(%s)
ORDER BY i.indexrelid
"""


def indexes_on(server: Server, table: Table, column: Column) -> list[IndexInfo]:
    """The ANN indexes on a column, the oldest first; partial ones and those on expressions are left out."""
    rows = server.all(_INDEXES, [table.oid, column.number, list(TYPES)])
    return [_info(*row) for row in rows]


def describe_index(server: Server, table: Table, column: Column) -> IndexInfo | None:
    """The ANN index on a column, or None."""
    found = indexes_on(server, table, column)
    return found[0] if found else None


def _info(name: str, kind: str, operators: str, options: list[str], rows: int) -> IndexInfo:
    given = dict(option.split("=", 1) for option in options)
    parameters = {one: int(given.get(one, default)) for one, default in _DEFAULTS[kind].items()}
    metric = _NAMED.get(operators.split("_")[1], operators)
    return IndexInfo(name, kind, metric, parameters, max(rows, 0))


def build_index(
    server: Server, table: Table, column: Column, name: str, like: IndexInfo, metric: str
) -> None:
    """Index a column with the type and parameters of `like`, in `metric`; others go on writing.

    An index of this name that is whole is kept; one that a crash left half built is replaced.
    """
    state = _state(server, table, name)
    if state == "valid":
        return
    if state == "broken":
        drop_index(server, table, name)
    assert column.vector is not None
    operators = identifier(column.vector.schema, f"{column.vector.name}_{_METRICS[metric]}_ops")
    options = ", ".join(f"{one} = {int(value)}" for one, value in like.parameters.items())
    with server.connection() as connection:
        connection.execute("RESET lock_timeout")
        connection.execute(
            text(
                "CREATE INDEX CONCURRENTLY {name} ON {table} USING " + like.type + " ({column} {operators}) "
                f"WITH ({options})",
                name=identifier(name),
                table=table.query,
                column=identifier(column.name),
                operators=operators,
            )
        )


def build_todo_index(server: Server, table: Table, mark: str) -> None:
    """A small index on the rows that have no vector of this upgrade, so that they are found at once."""
    name = f"{mark}_todo"
    state = _state(server, table, name)
    if state == "valid":
        return
    if state == "broken":
        drop_index(server, table, name)
    parts = {"name": identifier(name), "table": table.query, "mark": identifier(mark)}
    with server.connection() as connection:
        connection.execute(
            text(
                "CREATE INDEX CONCURRENTLY {name} ON {table} ({mark}) "
                "WHERE {mark} IS NULL OR {mark} = ''::bytea",
                **parts,
            )
        )


def drop_index(server: Server, table: Table, name: str) -> None:
    """Drop an index, if it is there, without holding up anybody."""
    with server.connection() as connection:
        statement = text("DROP INDEX CONCURRENTLY IF EXISTS {name}", name=identifier(table.schema, name))
        connection.execute(statement)


def _state(server: Server, table: Table, name: str) -> str:
    """Whether an index of the table is ``valid``, ``broken`` or absent (empty)."""
    found: Any = server.one(
        "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = %s AND c.relname = %s",
        [table.oid, name],
    )
    return "" if found is None else "valid" if found[0] else "broken"
