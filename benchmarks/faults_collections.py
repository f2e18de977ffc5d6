"""Galleries on servers of collections, reached through a proxy: Chroma, and Milvus Lite."""

from __future__ import annotations

import importlib
import itertools
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from faults_galleries import D_OLD, ROWS, Bits, Gallery, digest, old_vectors
from faults_processes import ChromaProcess, MilvusProcess, ServerProcess

from crossfade.errors import StoreError

_numbers = itertools.count()
PATIENCE_SECONDS = 10
UPGRADE = re.compile(r"[0-9a-f]{8}(?=$|[./_])")
"""The id of an upgrade in a name; it is another one in every run."""


@dataclass(frozen=True)
class CollectionGallery(Gallery):
    """A gallery on a server that runs in a process of its own.

    Attributes:
        server: where it is.
        called: the name that the application uses.
    """

    server: ServerProcess = field(repr=False, compare=False)
    called: str = "items"

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which needs no more than the address."""
        return {"folder": self.folder, "called": self.called, "port": self.port}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def port(self) -> int:
        """Of the proxy before the server."""
        return int(self.__dict__.get("port") or self.server.proxy.port)

    def copy(self, folder: Any) -> CollectionGallery:
        made = type(self)(folder, self.server, f"items{next(_numbers)}")
        made.create()
        return made

    def traces(self) -> set[str]:
        """Names of collections, and of files beside the journal."""
        names = {one for one in self._collections() if one.startswith(f"{self.called}_")}
        home = self.folder / "home"
        files = {str(one.relative_to(home)) for one in home.rglob("*") if one.is_file()}
        found = {one for one in names | files if not one.endswith(("-wal", "-shm"))}
        return {UPGRADE.sub("UPGRADE", one.replace(self.called, "items")) for one in found}

    def remove(self) -> None:
        for one in self._collections():
            if one == self.called or one.startswith(f"{self.called}_"):
                self._delete(one)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait(self) -> None:
        """Until a client that has lost its server tries it again: gRPC lets a second or two pass."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.open().describe()
                return
            except StoreError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    @property
    def _client(self) -> Any:
        return _client(self.server)

    def _collections(self) -> list[str]:
        raise NotImplementedError

    def _delete(self, name: str) -> None:
        raise NotImplementedError


_clients: dict[int, Any] = {}


def _client(server: ServerProcess) -> Any:
    """The application's client, one for all runs."""
    if server.port not in _clients:
        _clients[server.port] = server.client()
    return _clients[server.port]


@dataclass(frozen=True)
class ChromaGallery(CollectionGallery):
    """A collection of Chroma; records have a document and metadata."""

    server: ChromaProcess = field(repr=False, compare=False)

    @property
    def uri(self) -> str:
        return f"chroma://127.0.0.1:{self.port}#{self.called}"

    def create(self) -> None:
        settings = {"hnsw": {"space": "l2", "max_neighbors": 8}}
        made = self._client.create_collection(self.called, configuration=settings, embedding_function=None)
        ids = [f"{one:03d}" for one in range(ROWS)]
        documents, metadata = [f"item {one}" for one in ids], [{"price": one} for one in range(ROWS)]
        made.add(ids, old_vectors(range(ROWS)), metadatas=metadata, documents=documents)

    def named(self) -> bool:
        """Between the two renames of a switch there is no collection of the name."""
        return self.called in self._collections()

    def live(self) -> Bits:
        read = self._client.get_collection(self.called, embedding_function=None)
        found = read.get(include=["embeddings", "documents", "metadatas"])
        order = sorted(range(len(found["ids"])), key=found["ids"].__getitem__)
        vectors = np.asarray(found["embeddings"], dtype=np.float32)[order]
        rest = [(found["ids"][one], found["documents"][one], found["metadatas"][one]) for one in order]
        index = {name: value for name, value in read.configuration_json["hnsw"].items() if value is not None}
        return {"rows": digest(repr(rest)), "vectors": digest(vectors.tobytes()), "index": str(index)}

    def _collections(self) -> list[str]:
        return [str(one.name) for one in self._client.list_collections()]

    def _delete(self, name: str) -> None:
        self._client.delete_collection(name)


@dataclass(frozen=True)
class MilvusGallery(CollectionGallery):
    """A collection of Milvus Lite behind an alias, on its server."""

    server: MilvusProcess = field(repr=False, compare=False)

    @property
    def uri(self) -> str:
        return f"milvus://127.0.0.1:{self.port}#{self.called}.vector"

    def create(self) -> None:
        types = importlib.import_module("pymilvus").DataType
        client, name = self._client, f"{self.called}_v1"
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("text", types.VARCHAR, max_length=200)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=D_OLD)
        wanted = client.prepare_index_params()
        wanted.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 8})
        client.create_collection(name, schema=schema, index_params=wanted, consistency_level="Strong")
        client.create_alias(name, self.called)
        vectors = old_vectors(range(ROWS)).tolist()
        rows = [{"id": one, "text": f"item {one}", "vector": vectors[one]} for one in range(ROWS)]
        client.insert(self.called, rows)
        client.flush(name)

    def live(self) -> Bits:
        options = {"filter": "id >= 0", "output_fields": ["*"], "limit": 10_000}
        rows = self._loaded(lambda: self._client.query(self.called, consistency_level="Strong", **options))
        rows = sorted(rows, key=lambda one: int(one["id"]))
        vectors = np.array([one["vector"] for one in rows], dtype=np.float32)
        index = self._client.describe_index(self.called, "vector")
        return {
            "rows": digest(repr([(one["id"], one["text"]) for one in rows])),
            "vectors": digest(vectors.tobytes()),
            "index": f"{index['index_type']} {index['metric_type']}",
        }

    def _loaded(self, read: Callable[[], Any]) -> Any:
        """Milvus Lite forgets at a restart that a collection was loaded; its applications load it again."""
        try:
            return read()
        except importlib.import_module("pymilvus").MilvusException as error:
            if "released" not in str(error):
                raise
            self._client.load_collection(self.called)
            return read()

    def _collections(self) -> list[str]:
        return [str(one) for one in self._client.list_collections()]

    def _delete(self, name: str) -> None:
        for alias in self._client.list_aliases(name)["aliases"]:
            self._client.drop_alias(alias)
        self._client.drop_collection(name)
