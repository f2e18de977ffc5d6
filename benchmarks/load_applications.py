"""An application that inserts, updates, deletes and reads rows of a store, and knows nothing of upgrades.

The one thing that it does know is which model its vectors are of: when the store takes its vectors no
longer, since they have another dimension there, it goes on with those of the new model.
"""

from __future__ import annotations

import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from faults_galleries import D_OLD, table
from faults_network import QdrantRemote
from faults_servers import Postgres, Qdrant

CONFLICTS = 200


class Switched(Exception):
    """The store takes vectors of another dimension by now."""


class Application(ABC):
    """Writes to one gallery; calls may come from several threads.

    Attributes:
        name: of the store.
        uri: address of the vectors.
        pauses: whether its writers have to stand still during a cutover, as the store's page says.
        rows_at_once: how many rows one write is of.
    """

    name: str
    uri: str
    pauses = False
    rows_at_once = 1

    @abstractmethod
    def create(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        """The gallery."""

    @abstractmethod
    def insert(self, ids: list[int], vectors: np.ndarray) -> None:
        """Add rows."""

    @abstractmethod
    def update(self, ids: list[int], vectors: np.ndarray) -> None:
        """Give rows other vectors."""

    @abstractmethod
    def delete(self, ids: list[int]) -> None:
        """Delete rows."""

    @abstractmethod
    def read(self, one: int) -> None:
        """Look a row up."""

    @abstractmethod
    def rows(self) -> dict[int, np.ndarray | None]:
        """Every row's vector, by id."""


class PgApplication(Application):
    """SQL, one connection per thread."""

    name = "pgvector"

    def __init__(self, server: Postgres, database: str) -> None:
        self._server, self._database, self._mine = server, database, threading.local()
        self._connections = list[Any]()
        self.uri = f"postgresql:///{database}?host={server.data}&user=postgres#items.vector"
        with server.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {database} TEMPLATE empty")

    def create(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        with self._server.connect(self._database) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector({D_OLD}) NOT NULL)"
            )
            with cursor.copy("COPY items FROM STDIN") as copy:
                for one, vector in zip(ids, vectors.tolist(), strict=True):
                    copy.write_row((one, f"item {one}", str(vector)))
            cursor.execute("CREATE INDEX ON items USING hnsw (vector vector_l2_ops) WITH (m = 8)")

    def _run(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        import psycopg

        if not hasattr(self._mine, "connection"):
            self._mine.connection = self._server.connect(self._database)
            self._mine.connection.prepare_threshold = None  # as the store's page tells applications to
            self._connections.append(self._mine.connection)
        try:
            with self._mine.connection.transaction():
                for values in rows:
                    self._mine.connection.execute(statement, values)
        except psycopg.errors.DataException as error:
            if "expected" not in str(error):
                raise
            raise Switched(str(error)) from None

    def insert(self, ids: list[int], vectors: np.ndarray) -> None:
        values = [(one, f"item {one}", str(row)) for one, row in zip(ids, vectors.tolist(), strict=True)]
        self._run("INSERT INTO items (id, text, vector) VALUES (%s, %s, %s)", values)

    def update(self, ids: list[int], vectors: np.ndarray) -> None:
        values = [(str(row), one) for one, row in zip(ids, vectors.tolist(), strict=True)]
        self._run("UPDATE items SET vector = %s WHERE id = %s", values)

    def delete(self, ids: list[int]) -> None:
        self._run("DELETE FROM items WHERE id = ANY(%s)", [[ids]])

    def read(self, one: int) -> None:
        self._run("SELECT id, vector FROM items WHERE id = %s", [[one]])

    def rows(self) -> dict[int, np.ndarray | None]:
        with self._server.connect(self._database) as connection:
            found = connection.execute("SELECT id, vector::text FROM items").fetchall()
        return {one: _parsed(vector) for one, vector in found}

    def close(self) -> None:
        """Close what every thread has opened."""
        for one in self._connections:
            one.close()


def _parsed(vector: str | None) -> np.ndarray | None:
    return None if vector is None else np.array(vector.strip("[]").split(","), dtype=np.float32)


class LanceApplication(Application):
    """LanceDB's own client; a commit that met another one is tried again."""

    name = "lancedb"
    rows_at_once = 5

    def __init__(self, folder: Path) -> None:
        self._folder, self.uri = folder, f"lancedb://{folder}#items.vector"

    def create(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        import lancedb

        made: Any = None
        for chunk in np.array_split(np.arange(len(ids)), 8):
            rows = table([ids[one] for one in chunk], vectors[chunk])
            if made is None:
                made = lancedb.connect(self._folder).create_table("items", rows)
            else:
                made.add(rows)
        made.to_lance().create_scalar_index("id", "BTREE")

    def _table(self) -> Any:
        import lancedb

        return lancedb.connect(self._folder).open_table("items")

    def _committed(self, write: Callable[[Any], object], dimension: int | None = None) -> None:
        """Write to the table as it is now; again if others did so meanwhile."""
        for _ in range(CONFLICTS):
            opened = self._table()
            self._require(opened, dimension)
            try:
                write(opened)
                return
            except (OSError, RuntimeError, ValueError) as error:
                self._require(self._table(), dimension)
                if not _is_conflict(error):
                    raise
                time.sleep(random.uniform(0, 0.05))
        raise RuntimeError("every commit met another one")

    @staticmethod
    def _require(opened: Any, dimension: int | None) -> None:
        kind = opened.schema.field("vector").type
        if dimension not in (None, kind.list_size):
            raise Switched(str(kind))

    def insert(self, ids: list[int], vectors: np.ndarray) -> None:
        self._committed(lambda opened: opened.add(table(ids, vectors)), vectors.shape[1])

    def update(self, ids: list[int], vectors: np.ndarray) -> None:
        rows = table(ids, vectors)

        def write(opened: Any) -> None:
            opened.merge_insert("id").when_matched_update_all().execute(rows)

        self._committed(write, vectors.shape[1])

    def delete(self, ids: list[int]) -> None:
        self._committed(lambda opened: opened.delete(f"id IN ({', '.join(map(str, ids))})"))

    def read(self, one: int) -> None:
        self._table().search().where(f"id = {one}").select(["id"]).limit(1).to_arrow()

    def rows(self) -> dict[int, np.ndarray | None]:
        return _by_id(self._table().to_lance().to_table(columns=["id", "vector"]))


def _is_conflict(error: Exception) -> bool:
    said = str(error).lower()
    return "conflict" in said or "concurrent" in said or "preempted" in said


def _by_id(rows: pa.Table) -> dict[int, np.ndarray | None]:
    pairs = zip(rows.column("id").to_pylist(), rows.column("vector").to_pylist(), strict=True)
    return {one: None if found is None else np.array(found, dtype=np.float32) for one, found in pairs}


class QdrantApplication(Application):
    """Qdrant's local mode behind a socket, reached by its alias."""

    name = "qdrant"

    def __init__(self, server: Qdrant, *, pauses: bool = False) -> None:
        self._server, self._mine, self.pauses = server, threading.local(), pauses
        self._alias = "resting" if pauses else "busy"
        self.uri = f"qdrant://load:6333#{self._alias}.vector"
        self.name = "qdrant, writers pause" if pauses else self.name

    @property
    def _client(self) -> Any:
        if not hasattr(self._mine, "client"):
            self._mine.client = QdrantRemote(self._server.proxied)
        return self._mine.client

    def create(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        from qdrant_client import models

        size = models.VectorParams(size=D_OLD, distance=models.Distance.EUCLID)
        self._client.create_collection(f"{self._alias}_v1", vectors_config={"vector": size})
        made = models.CreateAlias(collection_name=f"{self._alias}_v1", alias_name=self._alias)
        self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
        self.insert(list(ids), vectors)

    def insert(self, ids: list[int], vectors: np.ndarray) -> None:
        from qdrant_client import models

        points = [
            models.PointStruct(id=one, vector={"vector": row}, payload={"text": f"item {one}"})
            for one, row in zip(ids, vectors.tolist(), strict=True)
        ]
        try:
            self._client.upsert(self._alias, points, wait=True)
        except ValueError as error:  # what the local mode raises: the vectors do not fit
            raise Switched(str(error)) from None

    def update(self, ids: list[int], vectors: np.ndarray) -> None:
        self.insert(ids, vectors)

    def delete(self, ids: list[int]) -> None:
        self._client.delete(self._alias, ids, wait=True)

    def read(self, one: int) -> None:
        self._client.retrieve(self._alias, [one], with_vectors=True)

    def rows(self) -> dict[int, np.ndarray | None]:
        found, after = {}, None
        while True:
            points, after = self._client.scroll(self._alias, limit=2000, offset=after, with_vectors=True)
            for one in points:
                vector = one.vector.get("vector")
                found[int(one.id)] = None if vector is None else np.array(vector, dtype=np.float32)
            if after is None:
                return found


class ParquetApplication(Application):
    """Replaces the whole file by a rename, one writer at a time, and none during a cutover."""

    name = "parquet"
    pauses = True
    rows_at_once = 20

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._path, self._lock = folder / "items.parquet", threading.Lock()
        self.uri = f"parquet://{self._path}#vector"

    def create(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        self._replace(table(ids, vectors))

    def _replace(self, rows: pa.Table) -> None:
        draft = self._path.with_suffix(f".{os.getpid()}")
        pq.write_table(rows, draft, row_group_size=2000)
        draft.replace(self._path)

    def _changed(self, ids: list[int], vectors: np.ndarray | None) -> None:
        """The file without some rows, or with them at its end."""
        with self._lock:
            rows = pq.read_table(self._path)
            kind = rows.schema.field("vector").type
            rows = rows.filter(pc.invert(pc.is_in(rows.column("id"), value_set=pa.array(ids, pa.int64()))))
            if vectors is not None:
                if kind.list_size != vectors.shape[1]:
                    raise Switched(str(kind))
                rows = pa.concat_tables([rows, table(ids, vectors).cast(rows.schema)])
            self._replace(rows)

    def insert(self, ids: list[int], vectors: np.ndarray) -> None:
        self._changed(ids, vectors)

    def update(self, ids: list[int], vectors: np.ndarray) -> None:
        self._changed(ids, vectors)

    def delete(self, ids: list[int]) -> None:
        self._changed(ids, None)

    def read(self, one: int) -> None:
        pq.read_table(self._path, filters=[("id", "==", one)])

    def rows(self) -> dict[int, np.ndarray | None]:
        return _by_id(pq.read_table(self._path))
