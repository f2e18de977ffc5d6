"""Vectors by id in a Lance table of their own, appended to as they are made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.stores.base import VectorCache
from crossfade.vectors import FloatMatrix
from crossfade.vectors.columns import to_column, to_matrix
from crossfade.vectors.metadata import SPACE_KEY, recorded_space

COMPACT_EVERY = 64


class LanceCache(VectorCache):
    """Ids and vectors in the table at `path`.

    Two processes may append the same id; the vector that came first counts.

    Raises:
        SpaceMismatch, DimensionMismatch: the table holds vectors of another space.
    """

    def __init__(self, path: Path, space: Space) -> None:
        self._lance = load("lance", "lance")
        self._path, self._space = path, space
        dataset = self._open()
        recorded = recorded_space(dataset.schema, "vector") if dataset else None
        if recorded is not None:
            space.require_same(recorded, f"vectors kept in {path}")

    def _open(self) -> Any:
        return self._lance.dataset(str(self._path)) if self._path.exists() else None

    def __len__(self) -> int:
        dataset = self._open()
        if dataset is None:
            return 0
        return int(pc.count_distinct(dataset.to_table(columns=["id"]).column("id")).as_py())

    def get(self, ids: pa.Array) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        vectors = np.zeros((len(ids), self._space.dimension), dtype=np.float32)
        known = np.zeros(len(ids), dtype=bool)
        dataset = self._open()
        if dataset is None or not len(ids):
            return vectors, known
        table = dataset.to_table(filter=pc.field("id").isin(ids)).combine_chunks()
        kept = to_matrix(_chunk(table.column("vector")), self._space.dimension, str(self._path))
        rows = pc.index_in(ids, value_set=_chunk(table.column("id")))
        known = rows.is_valid().to_numpy(zero_copy_only=False)
        vectors[known] = kept[rows.drop_null().to_numpy()]
        return vectors, known

    def put(self, ids: pa.Array, vectors: FloatMatrix) -> None:
        if not len(ids):
            return
        metadata = {SPACE_KEY: json.dumps(self._space.to_dict()).encode()}
        schema = pa.schema([("id", ids.type), ("vector", pa.list_(pa.float32(), self._space.dimension))])
        column = to_column(vectors).cast(schema.field("vector").type)
        table = pa.table([ids, column], schema=schema.with_metadata(metadata))
        mode = "append" if self._path.exists() else "create"
        dataset = self._lance.write_dataset(table, str(self._path), mode=mode)
        if len(dataset.get_fragments()) >= COMPACT_EVERY:
            dataset.optimize.compact_files()

    def drop(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
