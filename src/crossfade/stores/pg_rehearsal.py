"""Write new vectors into a temporary table as they will be written into the table, to time it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import psycopg, text
from crossfade.stores.pg_vectors import VectorType, marks, vector_array
from crossfade.stores.pg_writer import ROWS_PER_STATEMENT, Binary, BinaryDumper
from crossfade.vectors import FloatMatrix

_TABLE = "CREATE TEMP TABLE crossfade_rehearsal (k bigint PRIMARY KEY, v {kind}, m bytea) ON COMMIT DROP"
_ROWS = "INSERT INTO crossfade_rehearsal (k) SELECT generate_series(%s::bigint, %s::bigint)"
_UPDATE = """
UPDATE crossfade_rehearsal AS t SET v = s.v, m = s.m
FROM unnest(%s::bigint[], %s::{kind}, %s::bytea[]) AS s(k, v, m) WHERE t.k = s.k
"""


def rehearse(server: Server, kind: VectorType, dimension: int, batches: Iterator[FloatMatrix]) -> bool:
    """Write all batches, and leave nothing behind.

    A temporary table has neither WAL nor the indexes of the table, and one connection writes where there will
    be two; so the speed is about that of a table without an index.

    Returns:
        False if the account may not make temporary tables; then no batch was taken.
    """
    refused = psycopg.errors.InsufficientPrivilege
    try:
        with server.connection(passing=refused) as connection, connection.transaction(force_rollback=True):
            connection.adapters.register_dumper(Binary, BinaryDumper)
            connection.execute(text(_TABLE, kind=kind.sized(dimension)))
            first = 0
            for vectors in batches:
                connection.execute(_ROWS, [first, first + len(vectors) - 1])
                for start in range(0, len(vectors), ROWS_PER_STATEMENT):
                    _update(connection, kind, first + start, vectors[start : start + ROWS_PER_STATEMENT])
                first += len(vectors)
    except refused:
        return False
    return True


def _update(connection: Any, kind: VectorType, first: int, vectors: FloatMatrix) -> None:
    records = kind.encode(np.nan_to_num(vectors, posinf=0.0, neginf=0.0))
    valid = np.ones(len(vectors), dtype=bool)
    keys = list(range(first, first + len(vectors)))
    made = Binary(vector_array(kind.oid, records, valid))
    connection.execute(text(_UPDATE, kind=kind.array), [keys, made, marks(records, valid)])
