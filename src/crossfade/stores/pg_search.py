"""Nearest rows of a PostgreSQL table, and rows by the addresses that a search returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import NotSupported, StoreError
from crossfade.extras import load
from crossfade.spaces import Metric
from crossfade.stores.pg_rows import Field
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, listed, literal, text
from crossfade.stores.pg_table import Column, Table
from crossfade.stores.pg_vectors import OPERATORS
from crossfade.stores.records import Hits
from crossfade.vectors import FloatMatrix

MOST_CANDIDATES = 1000
"""Of an HNSW search, by pgvector's limit on `hnsw.ef_search`."""
_CANDIDATES = (
    "SELECT set_config('hnsw.ef_search', "
    "greatest(coalesce(current_setting('hnsw.ef_search', true), '40')::int, %s)::text, true)"
)


def nearest(
    server: Server,
    table: Table,
    column: Column,
    queries: FloatMatrix,
    k: int,
    metric: Metric,
    ids: Field,
    further: dict[str, Field],
    exact: bool,
) -> list[Hits]:
    """The `k` nearest rows of each query; an exact search is kept from using an index."""
    if metric not in OPERATORS:
        raise NotSupported(f"{server.what}: pgvector does not compare vectors by {metric}")
    found = []
    with server.connection() as connection, connection.transaction():
        connection.execute(_CANDIDATES, [min(k, MOST_CANDIDATES)])
        for query in queries:
            statement = _statement(table, column, query, k, metric, [ids, *further.values()], exact)
            rows = connection.execute(statement, binary=True).fetchall()
            found.append(_hits(rows, metric, ids, further))
    return found


def _statement(
    table: Table,
    column: Column,
    query: NDArray[np.float32],
    k: int,
    metric: Metric,
    fields: Sequence[Field],
    exact: bool,
) -> Query:
    kind = column.vector
    assert kind is not None
    pgvector = load("pgvector", "pgvector")
    maker = pgvector.Vector if kind.name == "vector" else pgvector.HalfVector
    value = text(
        "{value}::{kind}", value=literal(maker(query).to_text()), kind=identifier(kind.schema, kind.name)
    )
    distance = text(
        "({column} {operator} {value})",
        column=identifier(column.name),
        operator=kind.operator(metric),
        value=value,
    )
    return text(
        "SELECT {distance}, ctid::text, xmin::text, {fields} FROM {table} WHERE {column} IS NOT NULL "
        "ORDER BY {order} LIMIT {k}",
        distance=distance,
        fields=listed([one.query for one in fields]),
        table=table.query,
        column=identifier(column.name),
        order=text("{distance} + 0", distance=distance) if exact else distance,
        k=literal(k),
    )


def _hits(rows: list[Any], metric: Metric, ids: Field, further: dict[str, Field]) -> Hits:
    columns = [list(one) for one in zip(*rows, strict=True)] or [[] for _ in range(4 + len(further))]
    distances, places, versions, found, *rest = columns
    named = zip(further.items(), rest, strict=True)
    return Hits(
        ids=ids.array(found),
        scores=_similarity(np.array(distances, dtype=np.float64), metric),
        handles=np.array([_handle(*one) for one in zip(places, versions, strict=True)], dtype=np.uint64),
        columns={name: one.array(values) for (name, one), values in named},
    )


def _similarity(distance: NDArray[np.float64], metric: Metric) -> NDArray[np.float32]:
    """pgvector returns 1 - cosine, minus the dot product and the distance; scores grow with similarity."""
    scores = {"cosine": 1 - distance, "dot": -distance, "l2": -np.square(distance)}[metric]
    return np.asarray(scores, dtype=np.float32)


def _handle(place: str, version: str) -> int:
    """Where a row lies, and the lower half of its version, which tells it from a later one in its place."""
    block, offset = map(int, place.strip("()").split(","))
    return (int(version) & 0xFFFF) << 48 | block << 16 | offset


def fetch(server: Server, table: Table, handles: NDArray[np.uint64], further: dict[str, Field]) -> pa.Table:
    """Columns of the rows that a search has just returned, in their order.

    Raises:
        StoreError: some are gone.
    """
    places = [f"({(one >> 16) & 0xFFFFFFFF},{one & 0xFFFF})" for one in handles.tolist()]
    query = text(
        "SELECT ctid::text, xmin::text, {fields} FROM {table} WHERE ctid = ANY({places}::text[]::tid[])",
        fields=listed([one.query for one in further.values()]),
        table=table.query,
        places=literal(places),
    )
    rows = {_handle(*row[:2]): row[2:] for row in server.all(query, binary=True)}
    gone = sum(one not in rows for one in handles.tolist())
    if gone:
        raise StoreError(
            f"{server.what}: {gone} rows were deleted or rewritten while they were searched; search again"
        )
    columns = [list(one) for one in zip(*(rows[one] for one in handles.tolist()), strict=True)]
    columns = columns or [[] for _ in further]
    named = zip(further.items(), columns, strict=True)
    return pa.table({name: one.array(values) for (name, one), values in named})
