"""The stores that the contract suite runs on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from chroma_backend import ChromaBackend
from faiss_backend import FaissBackend
from milvus_backend import MilvusBackend
from numpy.typing import NDArray
from parquet_backend import ParquetBackend
from pgvector_backend import PgVectorBackend
from qdrant_backend import QdrantBackend
from qdrant_vectors_backend import QdrantVectorsBackend
from store_backend import Backend, by_id, table

__all__ = ["BACKENDS", "Backend", "FaissBackend", "LanceBackend", "ParquetBackend", "table"]


class LanceBackend(Backend):
    """LanceDB in a folder."""

    name = "lancedb"
    packages = ("lancedb", "pylance")

    @property
    def uri(self) -> str:
        return f"lancedb://{self.folder}#items.vector"

    def _table(self) -> Any:
        import lancedb

        return lancedb.connect(self.folder).open_table("items")

    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        import lancedb

        bounds = np.linspace(0, len(ids), parts + 1).astype(int)
        made: Any = None
        for start, stop in pairwise(bounds):
            rows = table(ids[start:stop], vectors[start:stop])
            if made is None:
                made = lancedb.connect(self.folder).create_table("items", rows)
            else:
                made.add(rows)

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        self._table().add(table(ids, vectors))

    def delete(self, ids: list[Any]) -> None:
        self._table().delete(f"id IN ({', '.join(map(repr, ids))})")

    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        rows = table(ids, vectors)
        self._table().merge_insert("id").when_matched_update_all().execute(rows)

    def compact(self) -> None:
        self._table().optimize()

    def index(self, metric: str) -> None:
        import lance

        dataset = lance.dataset(str(self.folder / "items.lance"))
        dataset.create_index("vector", "IVF_FLAT", metric=metric, num_partitions=2, name="vector_idx")

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        import lance

        found = lance.dataset(str(self.folder / "items.lance")).to_table(columns=["id", column])
        return by_id(found, column)


BACKENDS = (
    LanceBackend,
    FaissBackend,
    ParquetBackend,
    PgVectorBackend,
    QdrantBackend,
    QdrantVectorsBackend,
    MilvusBackend,
    ChromaBackend,
)
