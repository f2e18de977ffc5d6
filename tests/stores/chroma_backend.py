"""A Chroma collection, on a server of the tests' own."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from server_process import folder_for, free_port, started
from store_backend import Backend

from crossfade.stores import Receipt, Store


@cache
def server() -> str:
    """HOST:PORT of a server, ``chroma run``, that lives as long as the tests."""
    folder, port = folder_for("chroma"), free_port()
    options = ["run", "--path", str(folder / "data"), "--host", "127.0.0.1", "--port", str(port)]
    started([str(Path(sys.executable).parent / "chroma"), *options], port, folder)
    return f"127.0.0.1:{port}"


@cache
def client() -> Any:
    """The application's client."""
    import chromadb

    host, _, port = server().partition(":")
    settings = chromadb.Settings(anonymized_telemetry=False)
    return chromadb.HttpClient(host, int(port), settings=settings)


class ChromaBackend(Backend):
    """Records with a text and a vector; ids are numbers, written as Chroma takes them."""

    name = "chroma"
    library = "chromadb"
    packages = ("chromadb",)
    part_rows = 16_384

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["CROSSFADE_HOME"] = str(folder)
        self._name = f"items-{uuid.uuid4().hex[:8]}"

    @classmethod
    def engine(cls) -> str:
        return f"{super().engine()}, its server"

    @property
    def uri(self) -> str:
        return f"chroma://{server()}#{self._name}"

    def open(self) -> Store:
        store: Any = super().open()
        store.part_rows = self.part_rows
        return store

    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        self.part_rows = -(-len(ids) // parts)
        settings = {"hnsw": {"space": "l2", "max_neighbors": 8}}
        client().create_collection(self._name, configuration=settings, embedding_function=None)
        self.append(ids, vectors)

    def _get(self, name: str) -> Any:
        return client().get_collection(name, embedding_function=None)

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        assert vectors is not None, "Chroma keeps no record without a vector"
        texts = [{"text": f"item {one}"} for one in ids]
        self._get(self._name).upsert([str(one) for one in ids], vectors, texts)

    def delete(self, ids: list[Any]) -> None:
        self._get(self._name).delete([str(one) for one in ids])

    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        self.append(ids, vectors)

    def compact(self) -> None:
        """The server does that itself."""

    def index(self, metric: str) -> None:
        raise NotImplementedError

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        names = {"vector": "", "vector__next": "__crossfade_u1", "vector__previous": "__previous_u1"}
        found = self._get(self._name + names[column]).get(include=["embeddings"])
        vectors = np.asarray(found["embeddings"], dtype=np.float32)
        return {int(one): vector for one, vector in zip(found["ids"], vectors, strict=True)}

    def traces(self) -> set[Any]:
        names = {one.name for one in client().list_collections()}
        return super().traces() | {one for one in names if one.startswith(self._name)}

    def damages(self, receipt: Receipt) -> Iterator[str]:
        names = {str(one.id): one.name for one in client().list_collections()}
        written = self._get(names[receipt.location["collection"]])
        found = written.get(limit=1, include=["embeddings"])
        written.update(found["ids"], np.full_like(found["embeddings"], 0.5))
        yield "other content"
        written.delete(found["ids"])
        yield "gone"
