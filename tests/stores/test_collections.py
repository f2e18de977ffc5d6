"""What the stores of collections share: how points are listed, read once, and written behind one another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chroma_backend import ChromaBackend
from milvus_backend import MilvusBackend
from qdrant_backend import QdrantBackend
from store_backends import Backend

from crossfade.errors import StoreError
from crossfade.spaces import Metric, Space
from crossfade.stores import Produced, Receipt, Rows, Staged
from crossfade.stores.collection import Points
from crossfade.stores.collection_store import CollectionStore
from crossfade.stores.ledger import vector_digests

KINDS = (ChromaBackend, MilvusBackend, QdrantBackend)
ROWS, BATCH = 203, 17
VECTORS = np.random.default_rng(0).standard_normal((ROWS + 5, 8)).astype(np.float32)


def staged(metric: Metric = "l2") -> Staged:
    return Staged("vector__next", "vector__previous", Space("old", 8, "l2"), Space("new", 12, metric), "u1")


STAGED = staged()


def produce(rows: Rows) -> Produced:
    return Produced(np.hstack([rows.vectors, rows.vectors[:, :4]]), ~rows.null)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    pytest.importorskip(request.param.library, reason=f"{request.param.library} is not installed")
    backend: Backend = request.param(tmp_path / "db")
    backend.create(list(range(ROWS)), VECTORS[:ROWS])
    return backend


def store_of(backend: Backend) -> CollectionStore:
    store = backend.open()
    assert isinstance(store, CollectionStore)
    return store


def write(store: CollectionStore, receipts: dict[str, Receipt]) -> int:
    """Write what is pending; number of parts."""
    pending = store.pending(STAGED, receipts)
    for part in pending:
        receipts[part.key] = store.write_part(part, STAGED, produce, rows=BATCH)
    return len(pending)


def count_reads(monkeypatch: pytest.MonkeyPatch, kind: type[Any]) -> Counter[str]:
    """How many points are read whole, by the name of their collection, from now on."""
    read: Counter[str] = Counter()
    honest = kind.get

    def get(self: Any, ids: Any) -> Points:
        read[self.name] += len(ids)
        points: Points = honest(self, ids)
        return points

    monkeypatch.setattr(kind, "get", get)
    return read


def test_ids_are_those_of_a_scan(made: Backend) -> None:
    live = store_of(made)._live()
    ids = live.ids()
    assert ids == [one for points in live.scan(50) for one in points.ids]
    assert len(ids) == ROWS
    other = [type(one)(9000 + row) for row, one in enumerate(ids[:2])]
    assert live.present([*other, *ids[:3]]) == set(ids[:3])
    assert live.present([]) == set()


@pytest.mark.parametrize("metric", ["l2", "dot", "cosine"])
def test_vectors_that_are_said_to_come_back_as_they_were_do(made: Backend, metric: Metric) -> None:
    store = store_of(made)
    new = store._create(store._live(), staged(metric))
    old = store._live().get(store._live().ids())
    vectors = np.ascontiguousarray(np.hstack([old.vectors, 3 * old.vectors[:, :4]]))
    points = Points(old.ids, vectors, old.null, old.payloads)
    new.put(points)
    back = dict(zip((found := new.get(old.ids)).ids, found.vectors, strict=True))
    same = [np.array_equal(back[one], vectors[row]) for row, one in enumerate(old.ids)]
    assert new.gives_back or metric == "cosine"
    assert all(same) or not new.gives_back


def test_an_apply_reads_each_point_twice(made: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to bring it over, and once more to see that nobody has changed it."""
    store, receipts = store_of(made), dict[str, Receipt]()
    live = store._live()
    read = count_reads(monkeypatch, type(live))
    write(store, receipts)
    assert store.rows_in_parts(STAGED) == ROWS
    assert store.publish(STAGED, receipts) == []
    assert read[live.name] == 2 * ROWS
    assert read.total() - read[live.name] == 0, "what the server keeps as it gets it is not read back"


def test_a_listing_that_fails_halfway_is_no_listing(made: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken for deleted because a server stopped answering."""
    store, receipts = store_of(made), dict[str, Receipt]()
    write(store, receipts)
    kind, name = type(store._live()), store._live().name
    honest = kind.get

    def fail(self: Any, ids: Any) -> Points:
        if self.name == name:
            raise StoreError("the server does not answer")
        points: Points = honest(self, ids)
        return points

    with monkeypatch.context() as patched:
        patched.setattr(kind, "get", fail)
        with pytest.raises(StoreError, match="does not answer"):
            store.publish(STAGED, receipts)
    assert len(store._begun(STAGED).ids()) == ROWS
    assert store.publish(STAGED, receipts) == []
    assert len(store._begun(STAGED).ids()) == ROWS


def test_the_ledger_knows_nothing_that_is_not_there(made: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are written behind the one that is made; what fails there ends the part, and it is resumed."""
    store, receipts = store_of(made), dict[str, Receipt]()
    new = store._begun(STAGED)
    honest, left = type(new).put, [True, True]

    def put(self: Any, points: Points) -> None:
        if not left:
            raise StoreError("the server is gone")
        left.pop()
        honest(self, points)

    with monkeypatch.context() as patched:
        patched.setattr(type(new), "put", put)
        with pytest.raises(StoreError, match="the server is gone"):
            write(store, receipts)
    ledger = store._ledger(STAGED)
    assert len(ledger.ids()) == 2 * BATCH
    assert new.present(ledger.ids()) == set(ledger.ids())
    store = store_of(made)
    assert write(store, receipts) > 1
    assert store.publish(STAGED, receipts) == []
    points = store._begun(STAGED).get(ledger.ids())
    known = [one.new if one else None for one in ledger.get(points.ids)]
    assert known == vector_digests(points.vectors, points.null)
    assert len(points) == ROWS


def test_what_others_do_while_a_part_is_written_is_found(made: Backend) -> None:
    store, receipts = store_of(made), dict[str, Receipt]()
    changed, fresh = list(range(0, 60, 7)), list(range(ROWS, ROWS + 5))
    todo = [
        lambda: made.replace(changed, 2 * VECTORS[changed]),
        lambda: made.append(fresh, VECTORS[fresh]),
        lambda: made.delete([200, 3]),
    ]

    def beside(rows: Rows) -> Produced:
        if todo:
            todo.pop(0)()
        return produce(rows)

    for part in store.pending(STAGED, receipts):
        receipts[part.key] = store.write_part(part, STAGED, beside, rows=BATCH)
    for _ in range(3):
        if not (pending := store.publish(STAGED, receipts)):
            break
        for part in pending:
            receipts[part.key] = store.write_part(part, STAGED, produce, rows=BATCH)
    assert store.pending(STAGED, receipts) == []
    old = {int(one): VECTORS[one] for one in range(ROWS + 5) if one not in (200, 3)}
    old.update({one: 2 * VECTORS[one] for one in changed})
    new = store._begun(STAGED)
    found = {
        int(one): vector
        for points in new.scan()
        for one, vector in zip(points.ids, points.vectors, strict=True)
    }
    assert found.keys() == old.keys()
    for one, vector in found.items():
        np.testing.assert_array_equal(vector, np.concatenate([old[one], old[one][:4]]))
