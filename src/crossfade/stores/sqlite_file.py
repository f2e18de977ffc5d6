"""Small SQLite files beside a store: each use is one transaction, and ends with errors of Crossfade's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from crossfade.errors import OutOfSpace, StoreError
from crossfade.vectors.writing import disk_is_full

WAIT_SECONDS = 30


@contextmanager
def reading(path: Path, table: str, remedy: str) -> Iterator[sqlite3.Connection | None]:
    """The file at `path`; None where it does not hold `table`, as when a crash came before it did.

    Args:
        remedy: what to do if the file cannot be used.

    Raises:
        StoreError: it is damaged, or may not be read.
    """
    if not path.exists():
        yield None
        return
    with _transaction(path, "BEGIN", remedy) as file:
        found = file.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table])
        yield file if found.fetchone() else None


@contextmanager
def writing(path: Path, remedy: str) -> Iterator[sqlite3.Connection]:
    """The file at `path`, made if there is none; what is done in the block is kept whole, or not at all.

    Raises:
        OutOfSpace: the disk is full.
        StoreError: it is damaged, or may not be written.
    """
    with _transaction(path, "BEGIN IMMEDIATE", remedy) as file:
        yield file


@contextmanager
def _transaction(path: Path, begin: str, remedy: str) -> Iterator[sqlite3.Connection]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)) as file:
            file.execute(begin)
            with file:
                yield file
    except (sqlite3.Error, OSError) as error:
        if disk_is_full(error, path.parent):
            raise OutOfSpace(
                f"{path}: no space left on the disk; what was written before is kept: "
                "free some space and run the same command again"
            ) from None
        raise StoreError(f"{path}: cannot be used: {error}; {remedy}") from error
