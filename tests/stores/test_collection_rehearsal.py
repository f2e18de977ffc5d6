"""Writing is tried out in a collection of its own, which nobody sees and which goes again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_collections import KINDS, ROWS, STAGED, VECTORS, store_of

from crossfade.adapters import make_adapter
from crossfade.stores.collection import Collection
from crossfade.stores.collection_store import REHEARSAL, CollectionStore
from crossfade.upgrade import plan


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CollectionStore:
    pytest.importorskip(request.param.library, reason=f"{request.param.library} is not installed")
    monkeypatch.setattr(CollectionStore, "rehearsal_rows", 20)
    backend = request.param(tmp_path / "db")
    backend.create(list(range(ROWS)), VECTORS[:ROWS])
    return store_of(backend)


def _written(store: CollectionStore, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> list[Any]:
    """What is put into collections from now on."""
    seen: list[Any] = []
    honest = type(store._live()).put

    def put(self: Collection, points: Any) -> None:
        seen.append((self.name, points))
        time.sleep(seconds)
        honest(self, points)

    monkeypatch.setattr(type(store._live()), "put", put)
    return seen


def test_vectors_are_written_with_payloads_and_nothing_stays(
    store: CollectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = store.describe(), _written(store, monkeypatch)
    batches = [np.full((20, 12), 1.0 + one, dtype=np.float32) for one in range(3)]
    batches[1][4], batches[1][5] = np.nan, np.inf
    store.rehearse(iter(batches), STAGED)
    assert [len(points) for _, points in seen] == [20, 18, 20]
    assert all(name != before.version for name, _ in seen)
    assert all("item" in str(one) for _, points in seen for one in points.payloads)
    assert store.describe() == before
    assert store._open(seen[0][0]) is None


def test_what_breaks_off_leaves_nothing_and_one_that_was_killed_is_replaced(
    store: CollectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _written(store, monkeypatch)

    def broken() -> Any:
        yield np.ones((20, 12), dtype=np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.rehearse(broken(), STAGED)
    assert store._open(seen[0][0]) is None
    left = store._create(store._live(), replace(STAGED, upgrade=REHEARSAL))
    store.rehearse(iter([np.ones((20, 12), dtype=np.float32)]), STAGED)
    assert store._open(left.name) is None


def test_a_plan_says_how_long_the_server_takes(
    store: CollectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = np.hstack([VECTORS, VECTORS[:, :4]])
    made = make_adapter("ridge").fit(VECTORS, target, source=STAGED.old, target=STAGED.new)
    _written(store, monkeypatch, seconds=0.2)
    estimates = plan(store, strategy="gallery", adapter=made, old=STAGED.old).estimates
    assert estimates.rows == ROWS
    assert 0.2 * ROWS / 20 < estimates.seconds < 0.8 * ROWS / 20
