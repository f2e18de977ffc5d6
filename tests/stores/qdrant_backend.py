"""A Qdrant collection behind an alias: in the client's local mode, or on the server that is named."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from store_backend import Backend

from crossfade.stores import Receipt, Store

SERVER = os.environ.get("CROSSFADE_QDRANT_URL", "").removeprefix("http://")


class QdrantBackend(Backend):
    """Points with an id, a text and a named vector."""

    name = "qdrant"
    library = "qdrant_client"
    packages = ("qdrant-client",)
    part_rows = 16_384

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["CROSSFADE_HOME"] = str(folder)
        self._alias = f"items {uuid.uuid4().hex[:8]}"
        self._collection = f"{self._alias} v1"
        self._place = SERVER or f":memory:{folder}"

    @classmethod
    def engine(cls) -> str:
        return f"{super().engine()}, " + (f"server {SERVER}" if SERVER else "its local mode, in memory")

    @property
    def uri(self) -> str:
        return f'qdrant://{self._place}#"{self._alias}".vector'

    @property
    def client(self) -> Any:
        from crossfade.stores.qdrant import client_for

        return client_for(f"qdrant://{self._place}")

    def open(self) -> Store:
        store: Any = super().open()
        store.part_rows = self.part_rows
        return store

    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        from qdrant_client import models

        self.part_rows = -(-len(ids) // parts)
        size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.EUCLID)
        self.client.create_collection(self._collection, vectors_config={"vector": size})
        self._name_it()
        self.append(ids, vectors)

    def _name_it(self) -> None:
        from qdrant_client import models

        made = models.CreateAlias(collection_name=self._collection, alias_name=self._alias)
        self.client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        self._upsert(ids, vectors, "vector")

    def _upsert(self, ids: list[Any], vectors: NDArray[np.float32] | None, name: str) -> None:
        from qdrant_client import models

        points = [
            models.PointStruct(
                id=one,
                vector={} if vectors is None else {name: vectors[row].tolist()},
                payload={"text": f"item {one}"},
            )
            for row, one in enumerate(ids)
        ]
        self.client.upsert(self._alias, points, wait=True)

    def delete(self, ids: list[Any]) -> None:
        self.client.delete(self._alias, ids, wait=True)

    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        self.append(ids, vectors)

    def compact(self) -> None:
        """The server does that itself."""

    def index(self, metric: str) -> None:
        raise NotImplementedError

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        own = {"vector": self._alias, "vector__next": f"{self._alias}__crossfade_u1"}
        name = own.get(column, self._collection)
        points, _ = self.client.scroll(name, limit=10_000, with_vectors=True)
        return {one.id: as_vector(one.vector.get("vector")) for one in points}

    def traces(self) -> set[Any]:
        names = {one.name for one in self.client.get_collections().collections}
        return super().traces() | {one for one in names if one.startswith(self._alias)}

    def damages(self, receipt: Receipt) -> Iterator[str]:
        from qdrant_client import models

        name = receipt.location["collection"]
        point = self.client.scroll(name, limit=1, with_vectors=True)[0][0]
        other = {"vector": [0.5] * len(point.vector["vector"])}
        self.client.update_vectors(name, [models.PointVectors(id=point.id, vector=other)])
        yield "other content"
        self.client.delete(name, [point.id])
        yield "gone"


def as_vector(found: list[float] | None) -> NDArray[np.float32] | None:
    """What the client gives back, as an array."""
    return None if found is None else np.array(found, dtype=np.float32)
