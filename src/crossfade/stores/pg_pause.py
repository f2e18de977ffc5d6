"""How long writers of a PostgreSQL table will wait at the switch, from what is measured just now.

Writers wait while the rows that are then pending get their new vectors. How many these are follows from how
many are pending now, and from how many others write while those are caught up with. What a row costs is more
than the speed of the first pass tells: it is entered into the index of the old vectors again, and into the
new one, which that pass did not have. Entering a row into an ANN index means searching it, so a search tells
what that takes.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from crossfade.stores import pg_index
from crossfade.stores.pg_parts import Names
from crossfade.stores.pg_search import MOST_CANDIDATES
from crossfade.stores.pg_server import LOCK_TIMEOUT_MS, Server
from crossfade.stores.pg_sql import identifier, literal, text
from crossfade.stores.pg_table import Column, Table
from crossfade.stores.pg_vectors import OPERATORS
from crossfade.stores.pg_writer import WRITERS
from crossfade.stores.records import IndexInfo

WATCH_SECONDS = 0.25
"""For how long it is counted what others write."""
STATEMENTS, LOOKS = 60, 3
"""Statements from the lock that writers wait for until the commit; how often pending rows are looked for."""
SEARCHES = 9
_BACKLOG = """
SELECT count(*), count(*) FILTER (WHERE age(xmin) <= txid_snapshot_xmax(txid_current_snapshot()) - {since}),
  txid_snapshot_xmax(txid_current_snapshot())
FROM {table} WHERE {pending}
"""
_SEARCH = """
EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT 1 FROM {table} ORDER BY {column} {operator} {value} LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows that are pending, rows that become so per second, and the seconds that it takes to count them."""

    rows: float
    per_second: float
    look: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a switch without any rows, and of each row that is written in it."""

    empty: float
    row: float


def measure_backlog(server: Server, table: Table, names: Names) -> Backlog:
    """Count pending rows, and a moment later those that others have written meanwhile."""

    def counted(since: int) -> Any:
        parts = {"since": literal(since), "table": table.query, "pending": names.pending}
        return server.one(text(_BACKLOG, **parts))

    counted(0)  # which also warms the server's caches
    started = time.perf_counter()
    _, _, since = counted(0)
    look = time.perf_counter() - started
    time.sleep(WATCH_SECONDS)
    rows, written, _ = counted(since)
    return Backlog(rows, written / (time.perf_counter() - started), look)


def measure_costs(
    server: Server, table: Table, names: Names, dimension: int, rows_per_second: float, look: float
) -> Costs:
    """What a statement and a row take now.

    Args:
        dimension: of the new vectors.
        rows_per_second: of the first pass.
        look: seconds that it takes to find the pending rows.
    """
    started = time.perf_counter()
    for _ in range(SEARCHES):
        server.one(text("SELECT count(*) FROM pg_attribute WHERE attrelid = {oid}", oid=literal(table.oid)))
    statement = (time.perf_counter() - started) / SEARCHES
    old = table.column(names.old)
    entering = _entering(server, table, old, pg_index.describe_index(server, table, old))
    new = table.columns.get(names.new)
    index = pg_index.describe_index(server, table, new) if new else None
    if new is not None and index is not None:
        again = _entering(server, table, new, index)
    else:  # it is not built yet
        again = entering * dimension / max(old.dimension, 1)
    waits = 2 * LOCK_TIMEOUT_MS / 2000  # two locks, on average half of what each may wait for
    return Costs(STATEMENTS * statement + LOOKS * look + waits, 1 / rows_per_second + entering + again)


def rows_waited_for(backlog: Backlog, costs: Costs, most: int, rounds: int) -> float:
    """Rows that are written while others wait for them.

    Args:
        most: more are not, until so many `rounds` of catching up have been too slow.
    """
    rows, locked = backlog.rows, 0.0
    for _ in range(rounds):
        if rows <= most:
            break
        # At a time, while these are caught up with; whoever meets that waits for half of them on average.
        locked = min(most, rows / WRITERS) / 2
        rows *= min(1.0, backlog.per_second * costs.row / WRITERS)  # who waits writes no faster
    return max(1.0, locked, rows + backlog.per_second * costs.empty)


def _entering(server: Server, table: Table, column: Column, index: IndexInfo | None) -> float:
    """Seconds that it takes to enter a row into an index."""
    kind = column.vector
    if index is None or kind is None or index.metric not in OPERATORS:
        return 0.0
    some = "SELECT {column}::text FROM {table} WHERE {column} IS NOT NULL LIMIT {count}"
    named: dict[str, Any] = {"column": identifier(column.name), "table": table.query}
    found = server.all(text(some, count=literal(SEARCHES), **named))
    candidates = min(index.parameters.get("ef_construction", 1), MOST_CANDIDATES)
    taken: list[float] = []
    with server.connection() as connection, connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(candidates)])
        for (vector,) in found:
            value = text("{value}::{kind}", value=literal(vector), kind=identifier(kind.schema, kind.name))
            operator = kind.operator(index.metric)
            query = text(_SEARCH, operator=operator, value=value, **named)
            taken.append(connection.execute(query).fetchone()[0][0]["Execution Time"] / 1000)
    return statistics.median(taken[1:] or [0.0])  # the first one loads what is needed
