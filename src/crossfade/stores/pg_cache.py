"""Vectors by id in a PostgreSQL table of their own, beside the one that is searched."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crossfade.spaces import Space
from crossfade.stores.base import VectorCache
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, literal, text
from crossfade.stores.pg_table import space_note
from crossfade.stores.pg_vectors import VectorType
from crossfade.vectors import FloatMatrix


class PgCache(VectorCache):
    """Ids (as text) and vectors in the table `schema`.`name`, made when first written.

    Raises:
        SpaceMismatch, DimensionMismatch: the table holds vectors of another space.
    """

    def __init__(self, server: Server, schema: str, name: str, kind: VectorType, space: Space) -> None:
        self._server, self._kind, self._space = server, kind, space
        self._table = identifier(schema, name)
        self._name = self._table.as_string(None)
        recorded = server.one("SELECT obj_description(to_regclass(%s), 'pg_class')", [self._name])[0]
        if recorded:
            space.require_same(Space.from_dict(json.loads(recorded)), f"vectors kept in {self._name}")

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM {table}")[0]) if self._exists() else 0

    def get(self, ids: pa.Array) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        vectors = np.zeros((len(ids), self._space.dimension), dtype=np.float32)
        known = np.zeros(len(ids), dtype=bool)
        if not len(ids) or not self._exists():
            return vectors, known
        names = _texts(ids)
        query = text("SELECT id, vector FROM {table} WHERE id = ANY(%s)", table=self._table)
        found = dict(self._server.all(query, [names], binary=True))
        values = [found.get(one) for one in names]
        kept, null = self._kind.decode(values, self._space.dimension, self._name)
        known = ~null
        vectors[known] = kept[known]
        return vectors, known

    def put(self, ids: pa.Array, vectors: FloatMatrix) -> None:
        if not len(ids):
            return
        self._create()
        query = self._query(
            "INSERT INTO {table} SELECT * FROM unnest(%s::text[], %s::text[]::{kind}[]) "
            "ON CONFLICT DO NOTHING"
        )
        texts = [f"[{','.join(map(repr, one))}]" for one in np.asarray(vectors, np.float32).tolist()]
        with self._server.connection() as connection:
            connection.execute(query, [_texts(ids), texts])

    def drop(self) -> None:
        with self._server.connection() as connection:
            connection.execute(self._query("DROP TABLE IF EXISTS {table}"))

    def _create(self) -> None:
        if self._exists():
            return
        size = self._kind.sized(self._space.dimension)
        with self._server.connection() as connection, connection.transaction():
            connection.execute(
                text(
                    "CREATE TABLE IF NOT EXISTS {table} (id text PRIMARY KEY, vector {size})",
                    table=self._table,
                    size=size,
                )
            )
            comment = literal(space_note(self._space))
            connection.execute(
                text("COMMENT ON TABLE {table} IS {comment}", table=self._table, comment=comment)
            )

    def _exists(self) -> bool:
        return self._server.one("SELECT to_regclass(%s)", [self._name])[0] is not None

    def _query(self, query: str) -> Query:
        return text(query, table=self._table, kind=identifier(self._kind.schema, self._kind.name))

    def _one(self, query: str) -> Any:
        return self._server.one(self._query(query))


def _texts(ids: pa.Array) -> list[str]:
    texts: list[str] = pc.cast(ids, pa.string()).to_pylist()
    return texts
