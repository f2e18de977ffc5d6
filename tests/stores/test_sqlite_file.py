"""What lies beside a store in SQLite ends with errors that say what to do, and survives a full disk."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from crossfade.errors import OutOfSpace, StoreError
from crossfade.spaces import Space
from crossfade.stores import sqlite_file
from crossfade.stores.id_cache import IdCache
from crossfade.stores.ledger import Entry, Ledger

SPACE = Space("model", 64)
FULL = r"sqlite: no space left on the disk; .*free some space and run the same command again"


class FullDisk(sqlite3.Connection):
    """A file that cannot grow beyond a few pages."""

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.execute("PRAGMA max_page_count = 12")


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, SPACE.dimension)).astype(np.float32)


def ids(count: int) -> pa.Array:
    return pa.array(range(count))


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file.sqlite3, "connect", partial(sqlite3.connect, factory=FullDisk))


def test_the_ledger_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, entry = Ledger(tmp_path / "ledger.sqlite"), Entry(1, 2, 3)
    ledger.put([1, "a"], [entry, entry])
    full(monkeypatch)
    with pytest.raises(OutOfSpace, match=FULL):
        ledger.put(list(range(5000)), [entry] * 5000)
    monkeypatch.undo()
    assert sorted(map(str, ledger.ids())) == ["1", "a"]
    ledger.put([2], [entry])
    assert ledger.get([1, 2, 3]) == [entry, entry, None]


def test_kept_vectors_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = IdCache(tmp_path / "cache.sqlite", SPACE)
    cache.put(ids(3), vectors(3))
    full(monkeypatch)
    with pytest.raises(OutOfSpace, match=FULL):
        cache.put(ids(2000), vectors(2000))
    monkeypatch.undo()
    assert len(cache) == 3
    cache.put(ids(2000), vectors(2000))
    assert len(IdCache(tmp_path / "cache.sqlite", SPACE)) == 2000


@pytest.mark.parametrize("content", [b"", None])
def test_a_file_that_a_crash_left_empty_is_as_none(tmp_path: Path, content: bytes | None) -> None:
    """Empty, or with tables of which none was made."""
    for name in ("ledger.sqlite", "cache.sqlite"):
        if content is None:
            with sqlite3.connect(tmp_path / name) as file:
                file.execute("CREATE TABLE other (one INTEGER)")
        else:
            (tmp_path / name).write_bytes(content)
    ledger, cache = Ledger(tmp_path / "ledger.sqlite"), IdCache(tmp_path / "cache.sqlite", SPACE)
    assert (ledger.ids(), ledger.get([1]), len(cache)) == ([], [None], 0)
    assert not cache.get(ids(2))[1].any()
    ledger.put([1], [Entry(1, 2, 3)])
    cache.put(ids(2), vectors(2))
    assert ledger.ids() == [1]
    np.testing.assert_array_equal(cache.get(ids(2))[0], vectors(2))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for name in ("ledger.sqlite", "cache.sqlite"):
        (tmp_path / name).write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(StoreError, match=r"ledger\.sqlite: cannot be used: .*; without it the upgrade"):
        Ledger(tmp_path / "ledger.sqlite").ids()
    with pytest.raises(StoreError, match=r"cache\.sqlite: cannot be used: .*; delete it: the vectors"):
        IdCache(tmp_path / "cache.sqlite", SPACE)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(StoreError, match="cannot be used"):
        Ledger(tmp_path / "folder" / "ledger.sqlite").put([1], [Entry(1, 2, 3)])
