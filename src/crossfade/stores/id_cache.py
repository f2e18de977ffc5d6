"""Vectors by id in a SQLite file beside a store that has no better place for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.spaces import Space
from crossfade.stores.base import VectorCache
from crossfade.stores.sqlite_file import reading, writing
from crossfade.vectors import FloatMatrix

TABLES = (
    "CREATE TABLE IF NOT EXISTS facts (one INTEGER PRIMARY KEY, space TEXT)",
    "CREATE TABLE IF NOT EXISTS vectors (id TEXT PRIMARY KEY, vector BLOB)",
)
REMEDY = "delete it: the vectors in it are then embedded again when they are needed"


class IdCache(VectorCache):
    """Ids and vectors in the file at `path`; several processes may add to it.

    Raises:
        SpaceMismatch, DimensionMismatch: the file holds vectors of another space.
        OutOfSpace: the disk is full; what was kept before stays.
        StoreError: the file cannot be used.
    """

    def __init__(self, path: Path, space: Space) -> None:
        self._path, self._space = path, space
        with reading(path, "facts", REMEDY) as file:
            found = None if file is None else file.execute("SELECT space FROM facts").fetchone()
        if found is not None:
            recorded = Space.from_dict(json.loads(found[0]))
            space.require_same(recorded, f"vectors kept in {path}")

    def __len__(self) -> int:
        with reading(self._path, "vectors", REMEDY) as file:
            return 0 if file is None else int(file.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def get(self, ids: pa.Array) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        vectors = np.zeros((len(ids), self._space.dimension), dtype=np.float32)
        known = np.zeros(len(ids), dtype=bool)
        with reading(self._path, "vectors", REMEDY) as file:
            if file is None:
                return vectors, known
            for row, one in enumerate(_keys(ids)):
                found = file.execute("SELECT vector FROM vectors WHERE id = ?", [one]).fetchone()
                if found:
                    vectors[row], known[row] = np.frombuffer(found[0], dtype="<f4"), True
        return vectors, known

    def put(self, ids: pa.Array, vectors: FloatMatrix) -> None:
        if not len(ids):
            return
        rows = (
            (one, vector.astype("<f4").tobytes()) for one, vector in zip(_keys(ids), vectors, strict=True)
        )
        with writing(self._path, REMEDY) as file:
            for table in TABLES:
                file.execute(table)
            file.execute("INSERT OR IGNORE INTO facts VALUES (1, ?)", [json.dumps(self._space.to_dict())])
            file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)


def _keys(ids: pa.Array) -> list[str]:
    """Ids as text in which 7 and "7" differ."""
    return [json.dumps(one) for one in ids.to_pylist()]
