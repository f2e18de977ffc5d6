"""What is particular to Qdrant, in its client's local mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
from httpx import Headers
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from crossfade.errors import NotSupported, StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores import Produced, Receipt, Rows, Staged, open_store
from crossfade.stores.qdrant import client_for
from crossfade.stores.qdrant_alias import QdrantAlias
from crossfade.stores.qdrant_server import QdrantServer
from crossfade.stores.refused import Refused

ROWS = 60
OLD, NEW = Space("old-model", 4, "dot"), Space("new-model", 6, "dot")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")
VECTORS = np.random.default_rng(0).standard_normal((ROWS + 10, 4)).astype(np.float32)


def _lift(old: np.ndarray) -> np.ndarray:
    return np.hstack([old, 2 * old[:, :2]]).astype(np.float32)


def _produce(rows: Rows) -> Produced:
    return Produced(_lift(np.nan_to_num(rows.vectors)), ~rows.null)


class Shop:
    """A collection of items behind the alias ``items``, and an upgrade of it."""

    def __init__(self, folder: Path, alias: bool = True) -> None:
        self.place = f"qdrant://:memory:{folder}"
        self.client = client_for(self.place)
        size = models.VectorParams(size=4, distance=models.Distance.DOT, on_disk=True)
        other = models.VectorParams(size=2, distance=models.Distance.DOT)
        self.client.create_collection("items v1", vectors_config={"a": size, "b": other})
        if alias:
            made = models.CreateAlias(collection_name="items v1", alias_name="items")
            self.client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
        self.put("items v1", range(ROWS))
        self.uri = f"{self.place}#items.a"

    def put(self, name: str, ids: Any, scale: float = 1, new: bool = False, price: int = 1) -> None:
        for one in ids:
            vector = _lift(VECTORS[[one]])[0] if new else VECTORS[one]
            vectors = {"a": (scale * vector).tolist(), "b": [float(one), 1.0]}
            payload = {"price": price, "tags": [{"größe": one}]}
            self.client.upsert(name, [models.PointStruct(id=one, vector=vectors, payload=payload)])

    def read(self, name: str = "items") -> dict[int, Any]:
        return {one.id: one for one in self.client.scroll(name, limit=1000, with_vectors=True)[0]}

    def build(self) -> tuple[Any, dict[str, Receipt]]:
        store, receipts = open_store(self.uri), {}
        write(store, receipts)
        assert store.publish(STAGED, receipts) == []
        return store, receipts


def write(store: Any, receipts: dict[str, Receipt]) -> None:
    for part in store.pending(STAGED, receipts):
        receipts[part.key] = store.write_part(part, STAGED, _produce, rows=7)


def switch(store: Any, receipts: dict[str, Receipt]) -> None:
    while store.switch(STAGED, receipts):
        write(store, receipts)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))
    return Shop(tmp_path)


def test_payloads_and_other_vectors_go_along(shop: Shop) -> None:
    before = shop.read()
    store, receipts = shop.build()
    switch(store, receipts)
    after = shop.read()
    assert all(point.payload == before[one].payload for one, point in after.items())
    assert all(point.vector["b"] == before[one].vector["b"] for one, point in after.items())
    found = np.array([after[one].vector["a"] for one in range(ROWS)], dtype=np.float32)
    np.testing.assert_array_equal(found, _lift(VECTORS[:ROWS]))
    parameters = shop.client.get_collection("items").config.params.vectors
    assert (parameters["a"].size, parameters["a"].on_disk, parameters["b"].size) == (6, True, 2)


def test_what_is_written_in_the_instant_of_the_switch_is_brought_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look at the old collection a row is changed, one added, one deleted."""
    store, receipts = shop.build()
    real = QdrantAlias._move

    def move(self: QdrantAlias, *arguments: Any, **options: Any) -> None:
        shop.put("items", [3], scale=5)
        shop.put("items", [ROWS])
        shop.client.delete("items", [4])
        real(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(QdrantAlias, "_move", move)
        assert store.switch(STAGED, receipts)
    switch(store, receipts)
    after = shop.read()
    assert set(after) == set(range(ROWS + 1)) - {4}
    np.testing.assert_array_equal(np.float32(after[3].vector["a"]), _lift(5 * VECTORS[[3]])[0])
    np.testing.assert_array_equal(np.float32(after[ROWS].vector["a"]), _lift(VECTORS[[ROWS]])[0])


def test_catching_up_after_the_switch_leaves_what_the_application_wrote_since(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, receipts = shop.build()
    real = QdrantAlias._move

    def move(self: QdrantAlias, *arguments: Any, **options: Any) -> None:
        shop.put("items", [3, 4, 5, ROWS], scale=5)
        real(self, *arguments, **options)
        shop.put("items", [3, ROWS], scale=9, new=True)
        shop.client.delete("items", [4])

    with monkeypatch.context() as patched:
        patched.setattr(QdrantAlias, "_move", move)
        assert store.switch(STAGED, receipts)
    switch(store, receipts)
    after = shop.read()
    assert 4 not in after
    for one, scale in ((3, 9), (ROWS, 9), (5, 5)):
        wanted = _lift(scale * VECTORS[[one]])[0]
        np.testing.assert_allclose(after[one].vector["a"], wanted, rtol=1e-6)


def test_going_back_keeps_what_the_application_did_meanwhile(shop: Shop) -> None:
    store, receipts = shop.build()
    switch(store, receipts)
    shop.put("items", [7], new=True, price=99)
    shop.put("items", [ROWS], new=True)
    shop.client.delete("items", [8])
    store.switch_back(STAGED)
    back = shop.read()
    assert set(back) == set(range(ROWS + 1)) - {8}
    assert back[7].payload["price"] == 99
    np.testing.assert_array_equal(np.float32(back[7].vector["a"]), VECTORS[7])
    assert "a" not in back[ROWS].vector
    assert store.count_null("a") == 1
    switch(store, receipts)
    again = shop.read()
    np.testing.assert_array_equal(np.float32(again[ROWS].vector["a"]), _lift(VECTORS[[ROWS]])[0])
    assert 8 not in again


def test_only_changed_points_are_written_again(shop: Shop) -> None:
    store, receipts = shop.build()
    shop.put("items", [3], scale=5)
    seen: list[int] = []

    def watch(rows: Rows) -> Produced:
        seen.extend(rows.ids.to_pylist())
        return _produce(rows)

    for part in store.pending(STAGED, receipts):
        store.write_part(part, STAGED, watch, rows=7)
    assert seen == [3]


def test_a_new_collection_that_is_deleted_is_written_again(shop: Shop) -> None:
    store, receipts = shop.build()
    shop.client.delete_collection("items__crossfade_u1")
    assert len(store.pending(STAGED, receipts)) == len(receipts)
    switch(store, receipts)
    assert len(shop.read()) == ROWS


def test_unnamed_vectors_and_cosine(shop: Shop) -> None:
    size = models.VectorParams(size=4, distance=models.Distance.COSINE)
    shop.client.create_collection("plain v1", vectors_config=size)
    made = models.CreateAlias(collection_name="plain v1", alias_name="plain")
    shop.client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    points = [models.PointStruct(id=one, vector=VECTORS[one].tolist()) for one in range(9)]
    shop.client.upsert("plain", points)
    store: Any = open_store(f"{shop.place}#plain")
    staged = Staged("n", "p", OLD.with_metric("cosine"), NEW.with_metric("cosine"), "u2")
    receipts = {one.key: store.write_part(one, staged, _produce) for one in store.parts(staged)}
    assert store.publish(staged, receipts) == []
    assert [store.check_part(one) for one in receipts.values()] == [None]
    unit = VECTORS[:9] / np.linalg.norm(VECTORS[:9], axis=1, keepdims=True)
    found = np.concatenate([one.vectors for one in store.scan("n")])
    np.testing.assert_allclose(found, store.stored(_lift(unit), staged), atol=1e-6)
    assert store.switch(staged, receipts) == []
    assert [one.ids[0].as_py() for one in store.search(_lift(unit), 1, staged.new)] == list(range(9))


def _is_refused(shop: Shop, address: str, why: str) -> None:
    before = {one.name for one in shop.client.get_collections().collections}
    store = open_store(address)
    assert [one.kind for one in store.obstacles()] == ["alias"]
    with pytest.raises(
        NotSupported, match=rf"is a collection, not an alias.*; {why}.*: make an alias for it"
    ):
        store.write_part(store.parts(STAGED)[0], STAGED, _produce)
    assert {one.name for one in shop.client.get_collections().collections} == before


def test_without_an_alias_a_server_that_adds_no_vectors_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path, alias=False)
    monkeypatch.setattr(shop.client, "info", lambda: models.VersionInfo(title="", version="1.17.1"))
    _is_refused(shop, f'{shop.place}#"items v1".a', r"server 1\.17\.1 adds no named vector .* 1\.18 does")


def test_without_an_alias_vectors_without_a_name_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path, alias=False)
    size = models.VectorParams(size=4, distance=models.Distance.DOT)
    shop.client.create_collection("plain", vectors_config=size)
    shop.client.upsert("plain", [models.PointStruct(id=1, vector=[1.0, 2.0, 3.0, 4.0])])
    _is_refused(shop, f"{shop.place}#plain", "its vectors have no name, and once there is a named one")


def test_bad_addresses(shop: Shop) -> None:
    with pytest.raises(StoreError, match="no such collection or alias"):
        open_store(f"{shop.place}#nothing.a")
    with pytest.raises(UsageError, match=r"no vector 'c' in the collection; it has 'a', 'b'"):
        open_store(f"{shop.place}#items.c")
    with pytest.raises(UsageError, match="no vector '' in the collection"):
        open_store(f"{shop.place}#items")
    with pytest.raises(UsageError, match="points are known by their id"):
        open_store(f"{shop.place}#items.a?id=sku")


@pytest.mark.filterwarnings("ignore:Api key is used")
def test_a_server_that_does_not_answer_is_named_without_its_key() -> None:
    with pytest.raises(StoreError, match="did not answer") as caught:
        open_store("qdrant://:secret@127.0.0.1:9#items.a")
    assert "secret" not in str(caught.value)
    assert "***@127.0.0.1:9" in str(caught.value)


def test_a_collection_that_a_crash_left_half_made_is_made_again(shop: Shop) -> None:
    size = models.VectorParams(size=3, distance=models.Distance.DOT)
    shop.client.create_collection("items__crossfade_u1", vectors_config={"a": size})
    store, receipts = shop.build()
    switch(store, receipts)
    assert len(shop.read()) == ROWS


def test_another_home_does_not_touch_a_collection_in_use(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store, receipts = shop.build()
    switch(store, receipts)
    monkeypatch.setenv("CROSSFADE_HOME", "elsewhere")
    with pytest.raises(StoreError, match="knows nothing of it; set CROSSFADE_HOME"):
        store.write_part(store.parts(STAGED)[0], STAGED, _produce)
    assert len(shop.read()) == ROWS


@pytest.mark.parametrize(("status", "missing"), [(404, True), (403, False), (500, False)])
def test_what_a_server_says_is_told_in_one_line(status: int, missing: bool) -> None:
    """As the client raises it where there is a server; local mode raises errors of Python's own."""
    said = b'{"status":{"error":"Not found: No point with id 7 found"},"time":0.1}'
    answer = UnexpectedResponse(status, "reason", said if missing else b"{}", Headers())

    class Client:
        def update_vectors(self) -> None:
            raise answer

    with pytest.raises(Refused, match="shop: Qdrant refused or did not answer") as caught:
        QdrantServer(Client(), "shop").update_vectors()
    assert caught.value.missing is missing
    assert "\n" not in str(caught.value)
