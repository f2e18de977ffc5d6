"""A Qdrant collection that is used by its own name: in the client's local mode, or on the server named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_backend import QdrantBackend, as_vector

from crossfade.stores import Receipt

RECORD = "crossfade.serving.vector"


class QdrantVectorsBackend(QdrantBackend):
    """Points with a named vector, of an application that changes to the new name right after a switch."""

    name = "qdrant-vectors"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._alias = self._collection  # the application's name for it

    def _name_it(self) -> None:
        """The collection's own name is used."""

    @property
    def _in_use(self) -> str:
        record = (self.client.get_collection(self._collection).config.metadata or {}).get(RECORD)
        return str(record["vector"]) if record else "vector"

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        self._upsert(ids, vectors, self._in_use)

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        wanted = {"vector": self._in_use, "vector__next": "vector__u1"}.get(column, "vector")
        points, _ = self.client.scroll(self._collection, limit=10_000, with_vectors=True)
        return {one.id: as_vector(one.vector.get(wanted)) for one in points}

    def traces(self) -> set[Any]:
        config = self.client.get_collection(self._collection).config
        return super().traces() | set(config.params.vectors) | set(config.metadata or {})

    def damages(self, receipt: Receipt) -> Iterator[str]:
        from qdrant_client import models

        name = receipt.location["collection"]
        first = self.client.scroll(self._collection, limit=1)[0][0].id
        other = {name: [0.5] * 12}
        self.client.update_vectors(self._collection, [models.PointVectors(id=first, vector=other)])
        yield "other content"
        self.client.delete_vectors(self._collection, [name], [first])
        yield "gone"
        self.client.delete_vector_name(self._collection, name)
        yield "gone"
