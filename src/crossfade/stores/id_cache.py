"""Vectors by id in a SQLite file beside a store that has no better place for them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.spaces import Space
from crossfade.stores.base import VectorCache
from crossfade.vectors import FloatMatrix

WAIT_SECONDS = 30


class IdCache(VectorCache):
    """Ids and vectors in the file at `path`; several processes may add to it.

    Raises:
        SpaceMismatch, DimensionMismatch: the file holds vectors of another space.
    """

    def __init__(self, path: Path, space: Space) -> None:
        self._path, self._space = path, space
        if path.exists():
            with self._open() as file:
                recorded = Space.from_dict(json.loads(file.execute("SELECT space FROM facts").fetchone()[0]))
            space.require_same(recorded, f"vectors kept in {path}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=WAIT_SECONDS)) as file, file:
            yield file

    def _create(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as file:
            file.execute("CREATE TABLE IF NOT EXISTS facts (one INTEGER PRIMARY KEY, space TEXT)")
            file.execute("CREATE TABLE IF NOT EXISTS vectors (id TEXT PRIMARY KEY, vector BLOB)")
            file.execute("INSERT OR IGNORE INTO facts VALUES (1, ?)", [json.dumps(self._space.to_dict())])

    def __len__(self) -> int:
        if not self._path.exists():
            return 0
        with self._open() as file:
            return int(file.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def get(self, ids: pa.Array) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        vectors = np.zeros((len(ids), self._space.dimension), dtype=np.float32)
        known = np.zeros(len(ids), dtype=bool)
        if not self._path.exists():
            return vectors, known
        with self._open() as file:
            for row, one in enumerate(_keys(ids)):
                found = file.execute("SELECT vector FROM vectors WHERE id = ?", [one]).fetchone()
                if found:
                    vectors[row], known[row] = np.frombuffer(found[0], dtype="<f4"), True
        return vectors, known

    def put(self, ids: pa.Array, vectors: FloatMatrix) -> None:
        if not len(ids):
            return
        self._create()
        rows = (
            (one, vector.astype("<f4").tobytes()) for one, vector in zip(_keys(ids), vectors, strict=True)
        )
        with self._open() as file:
            file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)


def _keys(ids: pa.Array) -> list[str]:
    """Ids as text in which 7 and "7" differ."""
    return [json.dumps(one) for one in ids.to_pylist()]
