"""A plain Parquet file, rewritten whole by its application as such files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from store_backend import Backend, by_id, table

from crossfade.stores import Store


class ParquetBackend(Backend):
    """A file that is replaced by rename."""

    name = "parquet"
    packages = ("pyarrow",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "items.parquet"
        self.part_rows = 65_536

    @property
    def uri(self) -> str:
        return f"parquet://{self.path}#vector"

    def open(self) -> Store:
        store: Any = super().open()
        store.part_rows = self.part_rows
        return store

    def _replace(self, rows: pa.Table) -> None:
        draft = self.path.with_suffix(".draft")
        pq.write_table(rows, draft, row_group_size=40)
        draft.replace(self.path)

    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        self.part_rows = -(-len(ids) // parts)
        self._replace(table(ids, vectors))

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        rows = pq.read_table(self.path)
        added = table(ids, vectors)
        if vectors is None:
            added = added.append_column("vector", pa.nulls(len(ids), rows.schema.field("vector").type))
        self._replace(pa.concat_tables([rows, added.select(rows.column_names).cast(rows.schema)]))

    def delete(self, ids: list[Any]) -> None:
        rows = pq.read_table(self.path)
        self._replace(rows.filter(pc.invert(pc.is_in(rows.column("id"), value_set=pa.array(ids)))))

    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        rows = pq.read_table(self.path)
        values = rows.column("vector").to_pylist()
        for one, vector in zip(ids, vectors, strict=True):
            values[rows.column("id").to_pylist().index(one)] = vector.tolist()
        column = pa.array(values, type=rows.schema.field("vector").type)
        self._replace(rows.set_column(rows.column_names.index("vector"), rows.schema.field("vector"), column))

    def compact(self) -> None:
        self._replace(pq.read_table(self.path))

    def index(self, metric: str) -> None:
        raise NotImplementedError

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        beside = self.folder / ".crossfade" / "items.parquet.vector" / f"{column}.parquet"
        return by_id(pq.read_table(self.path if column == "vector" else beside), "vector")
