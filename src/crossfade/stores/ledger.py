"""What an upgrade has written into a store that keeps no account of changes: a digest per row.

For every row that was written: its id, what it was made from, what else the row held, and what came out.
So a row that was changed since is known from one that was not, and a new vector that the application
wrote itself from one of ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.stores.sqlite_file import reading, writing
from crossfade.vectors import FloatMatrix

TABLE = "CREATE TABLE IF NOT EXISTS rows (id TEXT PRIMARY KEY, source INTEGER, payload INTEGER, new INTEGER)"
REMEDY = "without it the upgrade cannot go on: crossfade rollback, crossfade retire --confirm, and plan again"
NOTHING = 0
"""Digest of no vector."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Digests of one row: of all that its new vector could depend on, of its payload, of its new vector."""

    source: int
    payload: int
    new: int


class Ledger:
    """Entries by id in the SQLite file at `path`, made when first written.

    Raises:
        OutOfSpace: the disk is full; what was written before is kept.
        StoreError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, ids: Sequence[Any]) -> list[Entry | None]:
        """The entry of each id."""
        with reading(self.path, "rows", REMEDY) as file:
            if file is None:
                return [None] * len(ids)
            query = "SELECT source, payload, new FROM rows WHERE id = ?"
            found = [file.execute(query, [json.dumps(one)]).fetchone() for one in ids]
        return [None if row is None else Entry(*row) for row in found]

    def put(self, ids: Sequence[Any], entries: Sequence[Entry]) -> None:
        """Write entries, in place of those that are there."""
        rows = [
            (json.dumps(one), entry.source, entry.payload, entry.new)
            for one, entry in zip(ids, entries, strict=True)
        ]
        if rows:
            with writing(self.path, REMEDY) as file:
                file.execute(TABLE)
                file.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", rows)

    def remove(self, ids: Sequence[Any]) -> None:
        """Forget some rows."""
        if ids:
            with writing(self.path, REMEDY) as file:
                file.execute(TABLE)
                file.executemany("DELETE FROM rows WHERE id = ?", [(json.dumps(one),) for one in ids])

    def ids(self) -> list[Any]:
        """All ids in it."""
        with reading(self.path, "rows", REMEDY) as file:
            found = [] if file is None else file.execute("SELECT id FROM rows").fetchall()
        return [json.loads(one) for (one,) in found]

    def drop(self) -> None:
        """Delete it."""
        for end in ("", "-journal", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)


def vector_digests(vectors: FloatMatrix, null: np.ndarray) -> list[int]:
    """One signed 64-bit number per row, `NOTHING` where it has no vector."""
    packed = np.ascontiguousarray(vectors, dtype="<f4")
    return [NOTHING if gone else _number(row.tobytes()) for row, gone in zip(packed, null, strict=True)]


def payload_digests(payloads: Sequence[Any]) -> list[int]:
    """One number per row's JSON."""
    return [_number(json.dumps(one, sort_keys=True, default=str).encode()) for one in payloads]


def combined(*digests: int) -> int:
    """One number of several."""
    return _number(b"".join(one.to_bytes(8, "little", signed=True) for one in digests))


def _number(content: bytes) -> int:
    found = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
    return found or 1
