"""A FAISS index with an id map, and a table of ids and texts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from store_backend import Backend, table

from crossfade.stores import Store


class FaissBackend(Backend):
    """Index and table are replaced by rename."""

    name = "faiss"
    library = "faiss"
    packages = ("faiss-cpu",)
    part_rows = 65_536

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "items.faiss"

    @property
    def uri(self) -> str:
        return f"faiss://{self.path}#vector"

    def open(self) -> Store:
        store: Any = super().open()
        store.part_rows = self.part_rows
        return store

    def _index(self, path: Path | None = None) -> Any:
        import faiss

        self._owner = faiss.read_index(str(path or self.path))  # the downcast one does not own its memory
        return faiss.downcast_index(self._owner)

    def _write(self, index: Any, rows: pa.Table | None = None) -> None:
        import faiss

        faiss.write_index(index, str(self.folder / "draft"))
        (self.folder / "draft").replace(self.path)
        if rows is not None:
            pq.write_table(rows, self.folder / "draft")
            (self.folder / "draft").replace(self.path.with_suffix(".parquet"))

    @property
    def _rows(self) -> pa.Table:
        return pq.read_table(self.path.with_suffix(".parquet"))

    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        import faiss

        self.part_rows = -(-len(ids) // parts)
        index = faiss.IndexIDMap2(faiss.IndexFlatL2(vectors.shape[1]))
        index.add_with_ids(vectors, np.array(ids))
        self._write(index, table(ids, None))

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        index = self._index()
        if vectors is not None:
            index.add_with_ids(vectors, np.array(ids))
        self._write(index, pa.concat_tables([self._rows, table(ids, None)]))

    def delete(self, ids: list[Any]) -> None:
        index = self._index()
        index.remove_ids(np.array(ids))
        rows = self._rows
        self._write(index, rows.filter(pc.invert(pc.is_in(rows.column("id"), value_set=pa.array(ids)))))

    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        index = self._index()
        index.remove_ids(np.array(ids))
        index.add_with_ids(vectors, np.array(ids))
        self._write(index)

    def compact(self) -> None:
        self._write(self._index(), self._rows)

    def index(self, metric: str) -> None:
        import faiss

        old = self._index()
        measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        coarse = faiss.IndexFlat(old.d, measure)
        made = faiss.IndexIDMap2(faiss.IndexIVFFlat(coarse, old.d, 2, measure))
        vectors = old.index.reconstruct_n(0, old.ntotal)
        made.train(np.repeat(vectors, 8, axis=0) if len(vectors) < 100 else vectors)
        made.add_with_ids(vectors, faiss.vector_to_array(old.id_map))
        self._kept = coarse
        self._write(made)

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        beside = self.folder / ".crossfade" / "items.faiss.vector" / f"{column}.faiss"
        import faiss

        index = self._index(self.path if column == "vector" else beside)
        inner = faiss.downcast_index(index.index)
        if isinstance(inner, faiss.IndexIVF):
            inner.make_direct_map()
        ids = faiss.vector_to_array(index.id_map).tolist()
        return {one: index.reconstruct(one) if one in ids else None for one in self._rows["id"].to_pylist()}
