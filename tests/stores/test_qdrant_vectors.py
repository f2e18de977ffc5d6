"""What is particular to a second named vector in a Qdrant collection, in the client's local mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
from qdrant_client import models

from crossfade.errors import NotSupported, StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores import Produced, Receipt, Rows, Staged, open_store
from crossfade.stores.qdrant import client_for
from crossfade.stores.qdrant_vectors import QdrantVectors

ROWS, NAME, NEW_NAME = 60, "my items", "a__u1"
OLD, NEW = Space("old-model", 4, "dot"), Space("new-model", 6, "dot")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")
VECTORS = np.random.default_rng(0).standard_normal((ROWS + 10, 4)).astype(np.float32)
OWN = [9.0] * 6
"""A vector of the new model, as the application makes it."""


def _lift(old: Any) -> np.ndarray:
    old = np.float32(old)
    return np.hstack([old, 2 * old[:, :2]])


def _produce(rows: Rows) -> Produced:
    return Produced(_lift(np.nan_to_num(rows.vectors)), ~rows.null)


class Shop:
    """A collection of items that is used by its own name, and an upgrade of its vector ``a``."""

    def __init__(self, folder: Path, rows: int = ROWS) -> None:
        self.place = f"qdrant://:memory:{folder}"
        self.client = client_for(self.place)
        size = models.VectorParams(
            size=4, distance=models.Distance.DOT, on_disk=True, hnsw_config=models.HnswConfigDiff(m=24)
        )
        other = models.VectorParams(size=2, distance=models.Distance.DOT)
        self.client.create_collection(NAME, vectors_config={"a": size, "b": other})
        self.put(*range(rows))

    def uri(self, vector: str = "a") -> str:
        return f'{self.place}#"{NAME}".{vector}'

    def put(self, *ids: int, scale: float = 1, **vectors: list[float]) -> None:
        """The application writes points whole, with their old vectors unless others are given."""
        points = []
        for one in ids:
            given = {"b": [float(one), 1.0], **(vectors or {"a": (scale * VECTORS[one]).tolist()})}
            payload = {"price": 1, "tags": [{"größe": one}]}
            points.append(models.PointStruct(id=one, vector=given, payload=payload))
        self.client.upsert(NAME, points)

    def change(self, one: int, **vectors: list[float]) -> None:
        """The application changes some vectors of a point."""
        self.client.update_vectors(NAME, [models.PointVectors(id=one, vector=vectors)])

    def read(self) -> dict[int, Any]:
        return {one.id: one for one in self.client.scroll(NAME, limit=1000, with_vectors=True)[0]}

    def names(self) -> set[str]:
        return set(self.client.get_collection(NAME).config.params.vectors)

    def open(self, vector: str = "a") -> Any:
        return open_store(self.uri(vector))

    def build(self) -> tuple[Any, dict[str, Receipt]]:
        store, receipts = self.open(), {}
        write(store, receipts)
        assert store.publish(STAGED, receipts) == []
        return store, receipts

    def cut_over(self) -> tuple[Any, dict[str, Receipt]]:
        store, receipts = self.build()
        switch(store, receipts)
        return store, receipts

    def expect_lifted(self, *but: int, name: str = NEW_NAME) -> None:
        """Every point but some has the map of its old vector."""
        for one, point in self.read().items():
            if one not in but:
                np.testing.assert_array_equal(
                    np.float32(point.vector[name]), _lift([point.vector["a"]])[0], f"point {one}"
                )


def write(store: Any, receipts: dict[str, Receipt], produce: Any = _produce) -> None:
    for part in store.pending(STAGED, receipts):
        receipts[part.key] = store.write_part(part, STAGED, produce, rows=7)


def switch(store: Any, receipts: dict[str, Receipt]) -> None:
    while store.switch(STAGED, receipts):
        write(store, receipts)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))
    return Shop(tmp_path)


def test_the_points_stay_the_same_ones(shop: Shop) -> None:
    before = shop.read()
    shop.cut_over()
    after = shop.read()
    assert [one.name for one in shop.client.get_collections().collections] == [NAME]
    assert after.keys() == before.keys()
    for one, point in after.items():
        assert point.payload == before[one].payload
        assert {name: point.vector[name] for name in ("a", "b")} == before[one].vector
    shop.expect_lifted()


def test_the_new_vector_gets_the_settings_of_the_old(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local mode applies none, so what the server would be told is looked at."""
    told: list[Any] = []
    honest = shop.client.update_collection

    def update(name: str, **options: Any) -> Any:
        told.append(options.get("vectors_config"))
        return honest(name, **options)

    monkeypatch.setattr(shop.client, "update_collection", update)
    shop.build()
    made = shop.client.get_collection(NAME).config.params.vectors[NEW_NAME]
    assert (made.size, made.distance) == (6, models.Distance.DOT)
    assert [one for one in told if one] == [
        {NEW_NAME: models.VectorParamsDiff(on_disk=True, hnsw_config=models.HnswConfigDiff(m=24))}
    ]


@pytest.mark.parametrize("writes_others", [True, False])
def test_a_point_that_is_deleted_while_it_is_written_does_not_come_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, writes_others: bool
) -> None:
    """Whether a server writes the other points of a call in which one is missing, or none."""
    honest, waiting = shop.client.update_vectors, [3, 11, 12]

    def update(name: str, points: list[Any], **options: Any) -> Any:
        here = [one for one in waiting if one in {point.id for point in points}]
        if here:
            waiting.remove(here[0])
            shop.client.delete(NAME, here[:1])
            if not writes_others:
                raise KeyError(here[0])
        return honest(name, points, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shop.client, "update_vectors", update)
        store, receipts = shop.open(), {}
        write(store, receipts)
    assert waiting == []
    assert set(shop.read()) == set(range(ROWS)) - {3, 11, 12}
    shop.expect_lifted()
    switch(store, receipts)
    shop.expect_lifted()


def test_a_point_that_loses_its_new_vector_while_it_is_written_gets_it_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client writes the point whole, as it was, between our write and our look at it."""
    honest, waiting = shop.client.update_vectors, [3]

    def update(name: str, points: list[Any], **options: Any) -> Any:
        honest(name, points, **options)
        if 3 in {point.id for point in points} and waiting:
            shop.put(waiting.pop())

    with monkeypatch.context() as patched:
        patched.setattr(shop.client, "update_vectors", update)
        store, receipts = shop.open(), {}
        write(store, receipts)
    assert NEW_NAME not in shop.read()[3].vector
    assert len(store.publish(STAGED, receipts)) == 1
    switch(store, receipts)
    shop.expect_lifted()


def test_a_point_written_whole_as_it_was_gets_its_new_vector_again(shop: Shop) -> None:
    store, receipts = shop.build()
    shop.put(3)
    assert NEW_NAME not in shop.read()[3].vector
    switch(store, receipts)
    shop.expect_lifted()


def test_before_the_switch_the_old_vector_counts(shop: Shop) -> None:
    store, receipts = shop.build()
    shop.change(3, **{NEW_NAME: OWN})
    shop.put(4, **{"a": (2 * VECTORS[4]).tolist(), NEW_NAME: OWN})
    shop.put(ROWS, **{NEW_NAME: OWN})
    seen: list[int] = []

    def watch(rows: Rows) -> Produced:
        seen.extend(rows.ids.to_pylist())
        return _produce(rows)

    write(store, receipts, watch)
    assert seen == [3, 4, ROWS]
    switch(store, receipts)
    shop.expect_lifted(ROWS)
    assert shop.read()[ROWS].vector[NEW_NAME] == OWN


def test_after_the_switch_what_the_application_writes_under_the_new_name_stays(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, receipts = shop.build()
    honest = QdrantVectors._move

    def move(self: QdrantVectors, *arguments: Any, **options: Any) -> None:
        honest(self, *arguments, **options)
        shop.change(3, **{NEW_NAME: OWN})
        shop.put(4, **{"a": (2 * VECTORS[4]).tolist(), NEW_NAME: OWN})
        shop.put(ROWS, **{NEW_NAME: OWN})
        shop.put(5, scale=5)
        shop.change(6, a=(5 * VECTORS[6]).tolist())
        shop.put(ROWS + 1)
        shop.client.delete(NAME, [7])

    monkeypatch.setattr(QdrantVectors, "_move", move)
    switch(store, receipts)
    after = shop.read()
    assert set(after) == set(range(ROWS + 2)) - {7}
    assert [after[one].vector[NEW_NAME] for one in (3, 4, ROWS)] == [OWN] * 3
    shop.expect_lifted(3, 4, ROWS)


def test_what_the_application_writes_between_our_look_and_our_write_stays(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, receipts = shop.cut_over()
    shop.put(3)
    shop.put(4)
    honest, waiting = shop.client.update_vectors, [3]

    def update(name: str, points: list[Any], **options: Any) -> Any:
        if waiting and 3 in {point.id for point in points}:
            honest(name, [models.PointVectors(id=waiting.pop(), vector={NEW_NAME: OWN})])
        return honest(name, points, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shop.client, "update_vectors", update)
        switch(store, receipts)
    assert waiting == []
    assert shop.read()[3].vector[NEW_NAME] == OWN
    shop.put(4, **{"a": VECTORS[3].tolist()})
    shop.change(3, a=VECTORS[5].tolist())
    switch(store, receipts)
    assert shop.read()[3].vector[NEW_NAME] == OWN
    shop.expect_lifted(3)


@pytest.mark.parametrize("old", list(models.Distance.__members__))
def test_the_new_vector_is_compared_as_its_space_says(shop: Shop, old: str) -> None:
    """Whatever the old one is compared by; a server keeps those compared by cosine with unit length."""
    name = f"by {old}"
    size = models.VectorParams(size=4, distance=models.Distance[old])
    shop.client.create_collection(name, vectors_config={"a": size})
    points = [models.PointStruct(id=one, vector={"a": VECTORS[one].tolist()}) for one in range(9)]
    shop.client.upsert(name, points)
    store: Any = open_store(f'{shop.place}#"{name}"')
    staged = Staged("n", "p", OLD, NEW.with_metric("cosine"), "u1")
    receipts = {one.key: store.write_part(one, staged, _produce) for one in store.parts(staged)}
    assert store.switch(staged, receipts) == []
    assert [store.check_part(one) for one in receipts.values()] == [None]
    given = np.concatenate([one.vectors for one in store.scan("p")])
    found = np.concatenate([one.vectors for one in store.scan()])
    np.testing.assert_allclose(found, store.stored(_lift(given), staged), atol=1e-6)
    assert [one.ids[0].as_py() for one in store.search(found, 1, staged.new)] == list(range(9))


def test_it_ends_though_writers_keep_to_the_old_name(shop: Shop) -> None:
    store, receipts = shop.cut_over()
    rounds = 0
    shop.put(3, scale=2)
    while store.switch(STAGED, receipts):
        write(store, receipts)
        rounds += 1
        shop.put(3, scale=2 + rounds)
    assert 0 < rounds <= store.strict_rounds
    assert store.switched(STAGED)


def test_points_with_the_old_vector_alone_keep_it_from_being_deleted(shop: Shop) -> None:
    store, receipts = shop.cut_over()
    shop.put(3)
    shop.put(ROWS)
    shop.change(5, a=(3 * VECTORS[5]).tolist())
    message = (
        r"3 points were written with vector 'a' alone since the cutover \(3, 5, 60\).*'a__u1'.*"
        "crossfade rollback and crossfade cutover"
    )
    with pytest.raises(StoreError, match=message):
        store.drop_old(STAGED)
    assert shop.names() == {"a", "b", NEW_NAME}
    store.switch_back(STAGED)
    switch(store, receipts)
    shop.expect_lifted()
    store.drop_old(STAGED)
    assert shop.names() == {"b", NEW_NAME}


def test_points_left_without_a_new_vector_on_purpose_do_not(shop: Shop) -> None:
    store, receipts = shop.open(), {}

    def all_but_five(rows: Rows) -> Produced:
        return Produced(_produce(rows).vectors, np.array([one != 5 for one in rows.ids.to_pylist()]))

    write(store, receipts, all_but_five)
    while store.switch(STAGED, receipts):
        write(store, receipts, all_but_five)
    assert store.left_null(STAGED, receipts) == 1
    store.drop_old(STAGED)
    assert shop.read()[5].vector == {"b": [5.0, 1.0]}


def test_going_forward_again_keeps_what_the_application_wrote(shop: Shop) -> None:
    store, receipts = shop.cut_over()
    shop.change(3, **{NEW_NAME: OWN})
    shop.put(ROWS, **{NEW_NAME: OWN})
    shop.put(ROWS + 1, **{"a": VECTORS[ROWS + 1].tolist(), NEW_NAME: OWN})
    shop.change(9, **{"a": VECTORS[5].tolist(), NEW_NAME: OWN})
    shop.client.delete(NAME, [8])
    store.switch_back(STAGED)
    assert store.search(VECTORS[:1], 1, OLD)[0].ids.to_pylist()
    assert store.count_null("a") == 1
    for one in (4, ROWS + 1):
        shop.change(one, a=(2 * VECTORS[one]).tolist())
    shop.client.set_payload(NAME, {"price": 2}, points=[3])
    switch(store, receipts)
    after = shop.read()
    kept = (3, 9, ROWS)
    assert [after[one].vector[NEW_NAME] for one in kept] == [OWN] * 3
    shop.expect_lifted(*kept)
    assert 8 not in after


def test_the_address_keeps_its_meaning(shop: Shop) -> None:
    store, _ = shop.cut_over()
    assert shop.open().describe().dimension == 6
    assert shop.open().describe().version == NEW_NAME
    with pytest.raises(StoreError, match="'a__u1' is the new vector of the upgrade of 'a'"):
        _refused(shop.open(NEW_NAME))
    store.drop_old(STAGED)
    for name in ("a", NEW_NAME):
        found = shop.open(name)
        assert (found.describe().dimension, found.space()) == (6, NEW)
        assert [one.kind for one in found.obstacles() if one.blocks] == []
    assert set(shop.client.get_collection(NAME).config.metadata["crossfade.spaces"]) == {NEW_NAME}


def _refused(store: Any) -> None:
    """What a plan would say."""
    for one in store.obstacles():
        if one.blocks:
            raise StoreError(one.message)


@pytest.mark.parametrize("called", ["a", "a__0123abcd"])
def test_a_second_upgrade(shop: Shop, called: str) -> None:
    first = Staged("n", "p", OLD, NEW, "0123abcd")
    second = Staged("n", "p", NEW, Space("newest", 8, "dot"), "89abcdef")
    _carry_out(shop.open(), first, _produce)
    again = shop.open(called)

    def widen(rows: Rows) -> Produced:
        return Produced(np.hstack([rows.vectors, rows.vectors[:, :2]]), ~rows.null)

    _carry_out(again, second, widen)
    assert shop.names() == {"b", "a__89abcdef"}
    assert [shop.open(one).space().model for one in ("a", called, "a__89abcdef")] == ["newest"] * 3
    wanted = np.hstack([_lift(VECTORS[:1]), _lift(VECTORS[:1])[:, :2]])[0]
    np.testing.assert_array_equal(np.float32(shop.read()[0].vector["a__89abcdef"]), wanted)


def _carry_out(store: Any, staged: Staged, produce: Any) -> None:
    receipts = {one.key: store.write_part(one, staged, produce) for one in store.parts(staged)}
    assert store.switch(staged, receipts) == []
    store.switch_back(staged)
    assert store.space() == staged.old
    assert store.switch(staged, receipts) == []
    store.drop_old(staged)


def test_a_name_that_is_given_again_means_what_it_names(shop: Shop) -> None:
    store, _ = shop.cut_over()
    store.drop_old(STAGED)
    size = models.DenseVectorConfig(size=3, distance=models.Distance.DOT)
    shop.client.create_vector_name(NAME, "a", models.DenseVectorNameConfig(dense=size))
    assert shop.open().describe().dimension == 3
    assert shop.open(NEW_NAME).describe().dimension == 6


def test_a_new_vector_that_is_deleted_is_written_again(shop: Shop) -> None:
    store, receipts = shop.build()
    shop.client.delete_vector_name(NAME, NEW_NAME)
    assert len(store.pending(STAGED, receipts)) == len(receipts)
    switch(store, receipts)
    shop.expect_lifted()


def test_old_vectors_stay_when_the_new_ones_are_gone(shop: Shop) -> None:
    store, receipts = shop.cut_over()
    shop.client.delete_vector_name(NAME, NEW_NAME)
    assert not store.switched(STAGED)
    with pytest.raises(StoreError, match="vector 'a__u1' is gone, and 'a' was to be deleted: nothing was"):
        store.drop_old(STAGED)
    switch(store, receipts)
    shop.expect_lifted()


def test_an_address_without_a_vector_is_completed(shop: Shop) -> None:
    """There are two once the upgrade has begun, and its plan names the store."""
    size = models.VectorParams(size=4, distance=models.Distance.DOT)
    shop.client.create_collection("one vector", vectors_config={"a": size})
    assert open_store(f'{shop.place}#"one vector"').uri == f'{shop.place}#"one vector".a'


def test_a_vector_that_a_crash_left_half_made_is_made_again(shop: Shop) -> None:
    size = models.DenseVectorConfig(size=3, distance=models.Distance.DOT)
    shop.client.create_vector_name(NAME, NEW_NAME, models.DenseVectorNameConfig(dense=size))
    shop.cut_over()
    shop.expect_lifted()


def test_another_home_does_not_touch_vectors_in_use(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.cut_over()
    monkeypatch.setenv("CROSSFADE_HOME", "elsewhere")
    store = shop.open()
    with pytest.raises(StoreError, match="knows nothing of it; set CROSSFADE_HOME"):
        store.write_part(store.parts(STAGED)[0], STAGED, _produce)
    shop.expect_lifted()


def test_both_names_are_said_beforehand(shop: Shop) -> None:
    store, receipts = shop.build()
    for state in (lambda: None, lambda: switch(store, receipts)):
        state()
        advice = f"using='{NEW_NAME}' in place of 'a'"
        assert advice in str(store.pause(STAGED, 1000.0))
        assert advice in store.remarks(STAGED)[0]
        said = store.in_words("deletes the old vectors (space)", STAGED)
        assert said == "deletes the old vectors (space), 'a', and what still names it fails then"
        cutover = store.in_words("cutover: renames columns; from then on it is re-ranked", STAGED)
        assert f"records in one call that vector '{NEW_NAME}' serves in place of 'a'" in cutover
        assert cutover.endswith("; from then on it is re-ranked")
        assert "renames" not in cutover


def test_bad_addresses(shop: Shop) -> None:
    with pytest.raises(UsageError, match=r"no vector 'c' in the collection; it has 'a', 'b'"):
        shop.open("c")
    with pytest.raises(UsageError, match="no vector '' in the collection"):
        open_store(f'{shop.place}#"{NAME}"')
    with pytest.raises(UsageError, match="points are known by their id"):
        open_store(f"{shop.uri()}?id=sku")
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    size = models.DenseVectorConfig(size=4, distance=models.Distance.DOT, multivector_config=several)
    shop.client.create_vector_name(NAME, "m", models.DenseVectorNameConfig(dense=size))
    with pytest.raises(NotSupported, match="'m' holds several vectors per point"):
        shop.open("m").describe()


WRITES = ("create_vector_name", "update_collection", "update_vectors", "delete_vectors", "delete_vector_name")


class Failing:
    """Lets the count-th write fail, before it reaches the server or with only its answer lost."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.done, self.calls = 0, False, 0
        for name in WRITES:
            monkeypatch.setattr(shop.client, name, self._counted(getattr(shop.client, name)))

    def _counted(self, honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **options: Any) -> Any:
            self.calls, self.left = self.calls + 1, self.left - 1
            if self.left == 0 and not self.done:
                raise ConnectionError("cut")
            made = honest(*values, **options)
            if self.left == 0:
                raise ConnectionError("cut")
            return made

        return call


def _whole_way(shop: Shop, receipts: dict[str, Receipt]) -> None:
    """From wherever it stands, with a store that is opened anew."""
    store = shop.open()
    write(store, receipts)
    switch(store, receipts)
    store.drop_old(STAGED)


def test_it_goes_on_after_a_failure_of_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))
    counting = Shop(tmp_path / "counting", 12)
    failing = Failing(counting, monkeypatch)
    _whole_way(counting, {})
    expected, writes = counting.read(), failing.calls
    assert writes >= 9
    for done in (False, True):
        for count in range(1, writes + 1):
            shop = Shop(tmp_path / f"{done} {count}", 12)
            failing, receipts = Failing(shop, monkeypatch), dict[str, Receipt]()
            failing.left, failing.done = count, done
            with pytest.raises(ConnectionError):
                _whole_way(shop, receipts)
            _resumed(shop, receipts)
            assert shop.read() == expected
            assert shop.names() == {"b", NEW_NAME}


def _resumed(shop: Shop, receipts: dict[str, Receipt]) -> None:
    """As `retire` does, once there is nothing left to write from."""
    if "a" in shop.names():
        _whole_way(shop, receipts)
    else:
        shop.open().drop_old(STAGED)
