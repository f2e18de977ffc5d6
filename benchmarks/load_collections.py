"""Applications of Chroma and of Milvus Lite that insert, update, delete and read rows."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from faults_galleries import D_OLD
from faults_processes import ChromaProcess, MilvusProcess
from load_applications import Application, Switched

CREATED_AT_ONCE = 1000
PATIENCE_SECONDS = 30
"""How long an application looks for a collection that has no name for an instant."""


class CollectionApplication(Application):
    """Writes to a collection on a server, each thread through a client of its own."""

    kind = ""
    column = ""
    """Of the vectors, as the address names it; empty where a record has one vector only."""

    def __init__(self, server: ChromaProcess | MilvusProcess, *, pauses: bool = False) -> None:
        self._server, self._mine, self.pauses = server, threading.local(), pauses
        self._called = "resting" if pauses else "busy"
        self.name = f"{self.kind}, writers pause" if pauses else self.kind
        self.uri = f"{self.kind}://127.0.0.1:{server.port}#{self._called}{self.column}"

    @property
    def _client(self) -> Any:
        if not hasattr(self._mine, "client"):
            self._mine.client = self._server.client()
        return self._mine.client

    def update(self, ids: list[int], vectors: np.ndarray) -> None:
        self.insert(ids, vectors)


class ChromaApplication(CollectionApplication):
    """Gets the collection by its name for every call, as the store's page tells it to."""

    kind = "chroma"

    def create(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        settings = {"hnsw": {"space": "l2", "max_neighbors": 8}}
        self._client.create_collection(self._called, configuration=settings, embedding_function=None)
        for start in range(0, len(ids), CREATED_AT_ONCE):
            self.insert(list(ids[start : start + CREATED_AT_ONCE]), vectors[start : start + CREATED_AT_ONCE])

    def _asked(self, work: Callable[[Any], Any]) -> Any:
        """Once more where the collection had no name, or was gone between the two calls."""
        missing = importlib.import_module("chromadb.errors").NotFoundError
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return work(self._client.get_collection(self._called, embedding_function=None))
            except missing:
                if time.monotonic() > until:
                    raise
                time.sleep(0.002)

    def insert(self, ids: list[int], vectors: np.ndarray) -> None:
        texts, names = [f"item {one}" for one in ids], [str(one) for one in ids]
        refused = importlib.import_module("chromadb.errors").InvalidArgumentError
        try:
            self._asked(lambda found: found.upsert(names, vectors, documents=texts))
        except refused as error:
            if "dimension" not in str(error):
                raise
            raise Switched(str(error)) from None

    def delete(self, ids: list[int]) -> None:
        self._asked(lambda found: found.delete([str(one) for one in ids]))

    def read(self, one: int) -> None:
        self._asked(lambda found: found.get([str(one)], include=["embeddings"]))

    def rows(self) -> dict[int, np.ndarray | None]:
        found = self._asked(lambda there: there.get(include=["embeddings"]))
        vectors = np.asarray(found["embeddings"], dtype=np.float32)
        return {int(one): vector for one, vector in zip(found["ids"], vectors, strict=True)}


class MilvusApplication(CollectionApplication):
    """Milvus Lite's server, reached by the alias."""

    kind, column = "milvus", ".vector"

    def create(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        types, client, name = importlib.import_module("pymilvus").DataType, self._client, f"{self._called}_v1"
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("text", types.VARCHAR, max_length=200)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=D_OLD)
        wanted = client.prepare_index_params()
        wanted.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 8})
        client.create_collection(name, schema=schema, index_params=wanted, consistency_level="Strong")
        client.create_alias(name, self._called)
        for start in range(0, len(ids), CREATED_AT_ONCE):
            self.insert(list(ids[start : start + CREATED_AT_ONCE]), vectors[start : start + CREATED_AT_ONCE])
        client.flush(name)

    def insert(self, ids: list[int], vectors: np.ndarray) -> None:
        pymilvus = importlib.import_module("pymilvus")
        rows = [
            {"id": one, "text": f"item {one}", "vector": row}
            for one, row in zip(ids, vectors.tolist(), strict=True)
        ]
        try:
            self._client.upsert(self._called, rows)
        except pymilvus.MilvusException as error:
            if "dim" not in str(error):
                raise
            raise Switched(str(error)) from None

    def delete(self, ids: list[int]) -> None:
        self._client.delete(self._called, ids=ids)

    def read(self, one: int) -> None:
        self._client.get(self._called, ids=[one])

    def rows(self) -> dict[int, np.ndarray | None]:
        options = {"filter": "id >= 0", "output_fields": ["id", "vector"], "consistency_level": "Strong"}
        rows = self._client.query(self._called, limit=1_000_000, **options)
        return {int(one["id"]): np.array(one["vector"], dtype=np.float32) for one in rows}
