"""A Milvus collection behind an alias: on a server of Milvus Lite, or on the one that is named."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from server_process import folder_for, free_port, started
from store_backend import Backend

from crossfade.stores import Receipt, Store

NAMED = os.environ.get("CROSSFADE_MILVUS_URL", "").removeprefix("http://")


@cache
def server() -> str:
    """HOST:PORT of a server that lives as long as the tests."""
    if NAMED:
        return NAMED
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    folder, port = folder_for("milvus"), free_port()
    program = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "data")]
    started([*program, "--host", "127.0.0.1", "--port", str(port)], port, folder)
    return f"127.0.0.1:{port}"


@cache
def client() -> Any:
    """The application's client."""
    from pymilvus import MilvusClient

    return MilvusClient(f"http://{server()}", timeout=30)


class MilvusBackend(Backend):
    """Rows with an id, a text and a vector."""

    name = "milvus"
    library = "pymilvus"
    packages = ("pymilvus", "milvus-lite")
    part_rows = 16_384

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["CROSSFADE_HOME"] = str(folder)
        self._alias = f"items_{uuid.uuid4().hex[:8]}"

    @classmethod
    def engine(cls) -> str:
        return f"{super().engine()}, " + (f"server {NAMED}" if NAMED else "its server")

    @property
    def uri(self) -> str:
        return f"milvus://{server()}#{self._alias}.vector"

    def open(self) -> Store:
        store: Any = super().open()
        store.part_rows = self.part_rows
        return store

    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        from pymilvus import DataType

        self.part_rows = -(-len(ids) // parts)
        schema = client().create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("text", DataType.VARCHAR, max_length=200)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        client().create_collection(f"{self._alias}_v1", schema=schema, consistency_level="Strong")
        self._index("FLAT", "L2")
        client().create_alias(f"{self._alias}_v1", self._alias)
        self.append(ids, vectors)

    def _index(self, kind: str, metric: str, **parameters: int) -> None:
        name = f"{self._alias}_v1"
        if client().list_indexes(name):
            client().release_collection(name)
            client().drop_index(name, "vector")
        wanted = client().prepare_index_params()
        wanted.add_index("vector", index_type=kind, metric_type=metric, params=parameters)
        client().create_index(name, wanted, sync=False)
        client().load_collection(name)

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        assert vectors is not None, "the field is not nullable"
        rows = [
            {"id": one, "text": f"item {one}", "vector": vectors[row].tolist()} for row, one in enumerate(ids)
        ]
        client().upsert(self._alias, rows)

    def delete(self, ids: list[Any]) -> None:
        client().delete(self._alias, ids=ids)

    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        self.append(ids, vectors)

    def compact(self) -> None:
        client().flush(self._alias)

    def index(self, metric: str) -> None:
        client().flush(f"{self._alias}_v1")
        names = {"l2": "L2", "dot": "IP", "cosine": "COSINE"}
        self._index("HNSW", names[metric], M=8, efConstruction=40)

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        own = {"vector": self._alias, "vector__next": f"{self._alias}__crossfade_u1"}
        name = own.get(column, f"{self._alias}_v1")
        rows = client().query(name, filter="id >= 0", output_fields=["*"], consistency_level="Strong")
        return {one["id"]: np.array(one["vector"], dtype=np.float32) for one in rows}

    def traces(self) -> set[Any]:
        return super().traces() | {one for one in client().list_collections() if one.startswith(self._alias)}

    def damages(self, receipt: Receipt) -> Iterator[str]:
        name = receipt.location["collection"]
        row = dict(client().query(name, filter="id >= 0", limit=1, output_fields=["*"])[0])
        client().upsert(name, [{**row, "vector": [0.5] * len(row["vector"])}])
        yield "other content"
        client().delete(name, ids=[row["id"]])
        yield "gone"
