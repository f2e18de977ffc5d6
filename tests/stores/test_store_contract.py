"""What every store must do; one run per store."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from store_backends import Backend

from crossfade.errors import DimensionMismatch, SpaceMismatch, StoreError
from crossfade.spaces import Space
from crossfade.stores import Description, Part, Produced, Receipt, Rows, Staged, Store

OLD, NEW = Space("old-model", 8, "l2"), Space("new-model", 12, "l2")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")
ROWS = 203


def _needs(store: Store, *lacking: str) -> None:
    """Skip a test of something that the store says it cannot do."""
    for one in lacking:
        if one in store.capabilities.lacks:
            assert store.capabilities.cannot, "what a store lacks it must also say in words"
            pytest.skip(f"{type(store).__name__} states that it lacks: {one}")


def _rows_apart(store: Store, found: Description) -> Description:
    """A description without what writing changes in a store that writes into the rows themselves."""
    return replace(found, content="", version="") if "apart" in store.capabilities.lacks else found


def _numbers(ids: pa.Array) -> list[int]:
    """Ids as the numbers that they are; some stores keep them as text."""
    return [int(one) for one in ids.to_pylist()]


def _vectors(rows: int, seed: int = 0, dimension: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


def _lift(old: np.ndarray) -> np.ndarray:
    """The map of these tests: old (n, 8) to new (n, 12)."""
    return np.hstack([2 * old, old[:, :4] + 1]).astype(np.float32)


def _produce(rows: Rows) -> Produced:
    return Produced(_lift(np.nan_to_num(rows.vectors)), ~rows.null)


def _write_all(store: Store, receipts: dict[str, Receipt]) -> list[Part]:
    pending = store.pending(STAGED, receipts)
    for part in pending:
        receipts[part.key] = store.write_part(part, STAGED, _produce, rows=17)
    return pending


def _build(store: Store) -> dict[str, Receipt]:
    receipts: dict[str, Receipt] = {}
    _write_all(store, receipts)
    assert store.publish(STAGED, receipts) == []
    return receipts


def _switch(store: Store, receipts: dict[str, Receipt]) -> int:
    """Switch, writing what is still missing; returns how often something was."""
    rounds = 0
    while store.switch(STAGED, receipts):
        _write_all(store, receipts)
        rounds += 1
    return rounds


@pytest.fixture
def store(backend: Backend) -> Store:
    backend.create(list(range(ROWS)), _vectors(ROWS))
    return backend.open()


def _expect_lifted(backend: Backend, column: str = "vector") -> None:
    """Every row's new vector is the map of its current old vector."""
    old, new = backend.read("vector__previous" if column == "vector" else "vector"), backend.read(column)
    assert old.keys() == new.keys()
    for one, vector in old.items():
        np.testing.assert_array_equal(new[one], _lift(vector[None])[0])


def test_describe(store: Store, backend: Backend) -> None:
    found = store.describe()
    assert (found.rows, found.dimension, found.id_column, found.column) == (ROWS, 8, "id", "vector")
    assert found.payload == ("text",)
    assert found.writable
    assert found.index is None
    assert found.space is None
    assert found.uri == backend.uri


def test_description_survives_json(store: Store, backend: Backend) -> None:
    if "index" not in store.capabilities.lacks:
        backend.index("l2")
    store.record_space(OLD)
    found = store.describe()
    assert type(found).from_dict(found.to_dict()) == found


def test_content_changes_with_the_rows_only(store: Store, backend: Backend) -> None:
    _needs(store, "content")
    before = store.describe().content
    store.record_space(OLD)
    assert store.describe().content == before
    backend.delete([3])
    after_delete = store.describe().content
    backend.append([900], _vectors(1, 5))
    after_append = store.describe().content
    backend.replace([4], _vectors(1, 6))
    assert len({before, after_delete, after_append, store.describe().content}) == 4


def test_recorded_space_is_read_back(store: Store) -> None:
    store.record_space(OLD)
    assert store.space() == OLD
    assert store.describe().space == OLD


def test_scan_gives_every_row_once_and_in_the_same_order(store: Store) -> None:
    first = [(_numbers(batch.ids), batch.vectors.copy()) for batch in store.scan(rows=50, columns=["text"])]
    again = [_numbers(batch.ids) for batch in store.scan(rows=50)]
    ids = [one for batch, _ in first for one in batch]
    assert sorted(ids) == list(range(ROWS))
    assert [one for batch in again for one in batch] == ids
    np.testing.assert_array_equal(np.concatenate([v for _, v in first])[np.argsort(ids)], _vectors(ROWS))


def test_scan_marks_rows_without_a_vector(store: Store, backend: Backend) -> None:
    _needs(store, "null vectors")
    backend.append([500], None)
    batches = list(store.scan())
    null = [
        one
        for batch in batches
        for one, is_null in zip(batch.ids.to_pylist(), batch.null, strict=True)
        if is_null
    ]
    assert null == [500]
    assert store.count_null("vector") == 1


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("indexed", [False, True])
def test_search_agrees_with_exact_arithmetic(
    store: Store, backend: Backend, metric: str, indexed: bool
) -> None:
    space = OLD.with_metric(metric)
    if indexed:
        _needs(store, "index")
        backend.index(metric)
    gallery, queries = _vectors(ROWS).astype(np.float64), _vectors(3, 9)
    products = queries @ gallery.T
    expected = {
        "dot": products,
        "cosine": products / np.linalg.norm(gallery, axis=1) / np.linalg.norm(queries, axis=1)[:, None],
        "l2": -np.square(queries[:, None] - gallery[None]).sum(axis=2),
    }[metric]
    for query, hits in enumerate(store.search(queries, 5, space, columns=["text"], exact=True)):
        best = np.argsort(-expected[query])[:5]
        assert _numbers(hits.ids) == best.tolist()
        np.testing.assert_allclose(hits.scores, expected[query][best], rtol=1e-4, atol=1e-5)
        assert hits.columns["text"].to_pylist() == [f"item {one}" for one in best]


def test_search_through_an_index_finds_a_row_by_itself(store: Store, backend: Backend) -> None:
    _needs(store, "index")
    backend.index("l2")
    hits = store.search(_vectors(ROWS)[:20], 1, OLD)
    assert [one.ids[0].as_py() for one in hits] == list(range(20))


def test_search_refuses_queries_of_another_space(store: Store) -> None:
    store.record_space(OLD)
    with pytest.raises(DimensionMismatch, match=r"\(n, 8\), got \(1, 12\)"):
        store.search(_vectors(1, 0, 12), 1, NEW)
    with pytest.raises(SpaceMismatch, match=r"old-model.*impostor"):
        store.search(_vectors(1), 1, Space("impostor", 8, "l2"))


def test_fetch_returns_the_rows_that_were_found_in_their_order(store: Store) -> None:
    hits = store.search(_vectors(ROWS)[[7]], 6, OLD, exact=True)[0]
    handles = hits.handles[::-1].copy()
    texts = store.fetch(handles, ["text"]).column("text").to_pylist()
    assert texts == [f"item {one}" for one in hits.ids.to_pylist()[::-1]]


def test_fetch_of_a_deleted_row_says_so(store: Store, backend: Backend) -> None:
    hits = store.search(_vectors(ROWS)[[7]], 2, OLD, exact=True)[0]
    backend.delete([7])
    with pytest.raises(StoreError, match="1 rows were deleted"):
        store.fetch(hits.handles, ["text"])


def test_written_parts_are_invisible_until_they_are_published(store: Store, backend: Backend) -> None:
    before = store.describe()
    receipts: dict[str, Receipt] = {}
    parts = _write_all(store, receipts)
    assert len(parts) == before.parts > 1
    assert _rows_apart(store, store.describe()) == _rows_apart(store, before)
    assert store.publish(STAGED, receipts) == []
    assert sum(receipt.rows for receipt in receipts.values()) == ROWS
    _expect_lifted(backend, STAGED.name)
    np.testing.assert_array_equal(backend.read()[5], _vectors(ROWS)[5])


def test_writing_a_part_twice_gives_the_same_bytes(store: Store) -> None:
    part = store.parts(STAGED)[1]
    first = store.write_part(part, STAGED, _produce, rows=17)
    assert store.write_part(part, STAGED, _produce, rows=17) == first


def test_batches_are_bounded_and_deletions_move_no_boundary(store: Store, backend: Backend) -> None:
    _needs(store, "steady batches")

    def batches() -> list[list[int]]:
        seen: list[list[int]] = []

        def watch(rows: Rows) -> Produced:
            seen.append(rows.ids.to_pylist())
            return _produce(rows)

        store.write_part(store.parts(STAGED)[1], STAGED, watch, rows=17)
        return seen

    before = batches()
    assert max(map(len, before)) <= 17
    gone = before[1][3]
    backend.delete([gone])
    assert batches() == [[one for one in batch if one != gone] for batch in before]


def test_publish_twice_changes_nothing(store: Store) -> None:
    receipts = _build(store)
    version = store.describe().version
    assert store.publish(STAGED, receipts) == []
    assert store.describe().version == version


def test_rows_that_are_not_valid_stay_without_a_vector(store: Store, backend: Backend) -> None:
    _needs(store, "null vectors")

    def all_but_five(rows: Rows) -> Produced:
        made = _produce(rows)
        return Produced(made.vectors, np.array([one != 5 for one in rows.ids.to_pylist()]))

    receipts = {p.key: store.write_part(p, STAGED, all_but_five, rows=17) for p in store.parts(STAGED)}
    store.publish(STAGED, receipts)
    assert sum(receipt.nulls for receipt in receipts.values()) == 1
    assert [one for one, vector in backend.read(STAGED.name).items() if vector is None] == [5]


def test_a_damaged_part_is_found(store: Store, backend: Backend) -> None:
    receipts = _build(store)
    receipt = next(iter(receipts.values()))
    assert store.check_part(receipt) is None
    for damage in backend.damages(receipt):
        assert damage in (store.check_part(receipt) or "")


def test_switch_and_back(store: Store, backend: Backend) -> None:
    receipts = _build(store)
    assert store.columns_of(STAGED) == ("vector", "vector__next")
    assert _switch(store, receipts) == 0
    assert store.switched(STAGED)
    assert store.columns_of(STAGED) == ("vector__previous", "vector")
    assert store.describe().dimension == 12
    assert store.space() == NEW
    _expect_lifted(backend)
    assert store.switch(STAGED, receipts) == []
    store.switch_back(STAGED)
    assert not store.switched(STAGED)
    assert store.space() == OLD
    np.testing.assert_array_equal(backend.read()[5], _vectors(ROWS)[5])
    store.switch_back(STAGED)
    assert store.describe().dimension == 8


def test_rows_written_by_others_are_caught_up_with_before_the_switch(store: Store, backend: Backend) -> None:
    receipts = _build(store)
    backend.append([1000, 1001], _vectors(2, 3))
    backend.replace([10, 11], _vectors(2, 4))
    backend.delete([20, 21])
    assert store.pending(STAGED, receipts)
    assert _switch(store, receipts) >= 1
    assert len(backend.read()) == ROWS
    assert {20, 21}.isdisjoint(backend.read())
    np.testing.assert_array_equal(backend.read()[10], _lift(_vectors(2, 4))[0])
    _expect_lifted(backend)


def test_tidying_up_in_between_loses_nothing(store: Store, backend: Backend) -> None:
    if indexes := "index" not in store.capabilities.lacks:
        backend.index("l2")
    receipts = _build(store)
    if indexes:
        store.build_index(STAGED, store.describe().index)  # type: ignore[arg-type]
    backend.append([1000, 1001], _vectors(2, 3))
    backend.compact()
    _switch(store, receipts)
    _expect_lifted(backend)
    backend.append([2000], _vectors(1, 7, 12))
    backend.compact()
    store.switch_back(STAGED)
    backend.append([3000], _vectors(1, 8))
    backend.compact()
    np.testing.assert_array_equal(backend.read()[1001], _vectors(2, 3)[1])
    np.testing.assert_array_equal(backend.read("vector__next")[2000], _vectors(1, 7, 12)[0])


def test_a_row_that_has_only_a_new_vector_keeps_it(store: Store, backend: Backend) -> None:
    _needs(store, "null vectors")
    receipts = _build(store)
    _switch(store, receipts)
    backend.append([2000], _vectors(1, 7, 12))
    store.switch_back(STAGED)
    kept: list[int] = []

    def watch(rows: Rows) -> Produced:
        if rows.kept is not None:
            kept.extend(np.array(rows.ids.to_pylist())[rows.kept].tolist())
        return _produce(rows)

    for part in store.pending(STAGED, receipts):
        receipts[part.key] = store.write_part(part, STAGED, watch, rows=17)
    assert store.publish(STAGED, receipts) == []
    assert kept == [2000]
    np.testing.assert_array_equal(backend.read("vector__next")[2000], _vectors(1, 7, 12)[0])


def test_the_index_is_rebuilt_like_the_old_one_and_follows_the_switch(store: Store, backend: Backend) -> None:
    _needs(store, "index")
    backend.index("l2")
    before = store.describe().index
    assert before is not None
    receipts = _build(store)
    store.build_index(STAGED, before)
    assert store.describe().index == before
    _switch(store, receipts)
    after = store.describe().index
    assert before.same_kind(after)
    assert after is not None
    assert after.rows == ROWS
    hits = store.search(_lift(_vectors(ROWS)[:10]), 1, NEW)
    assert [one.ids[0].as_py() for one in hits] == list(range(10))
    store.switch_back(STAGED)
    assert before.same_kind(store.describe().index)
    hits = store.search(_vectors(ROWS)[:10], 1, OLD)
    assert [one.ids[0].as_py() for one in hits] == list(range(10))
    _switch(store, receipts)
    assert before.same_kind(store.describe().index)


def test_drop_old_leaves_the_new(store: Store, backend: Backend) -> None:
    _switch(store, _build(store))
    before = backend.read()
    store.drop_old(STAGED)
    found = store.describe()
    assert (found.dimension, found.payload, found.space) == (12, ("text",), NEW)
    for one, vector in backend.read().items():
        np.testing.assert_array_equal(vector, before[one])


def test_drop_new_leaves_the_old(store: Store, backend: Backend) -> None:
    _build(store)
    store.drop_new(STAGED)
    found = store.describe()
    assert (found.dimension, found.payload) == (8, ("text",))
    np.testing.assert_array_equal(backend.read()[5], _vectors(ROWS)[5])


def test_drop_new_before_publishing_leaves_no_trace(store: Store, backend: Backend) -> None:
    before = backend.traces()
    _write_all(store, {})
    assert backend.traces() > before
    store.drop_new(STAGED)
    assert backend.traces() == before


def test_vectors_in_use_are_not_dropped(store: Store) -> None:
    _switch(store, _build(store))
    with pytest.raises(StoreError, match="in use; roll back"):
        store.drop_new(STAGED)


def test_sample_takes_rows_of_the_parts_asked_for(store: Store) -> None:
    receipts = _build(store)
    chosen = sorted(receipts)[1]
    old, new = store.sample(30, 0, ["vector", "vector__next"], ["text"], [chosen])
    assert len(old) == 30
    np.testing.assert_array_equal(new.vectors, _lift(old.vectors))
    assert old.ids == new.ids
    assert old.columns["text"].to_pylist() == [f"item {one}" for one in old.ids.to_pylist()]
    assert len(set(old.ids.to_pylist())) == 30
    everything = store.sample(10_000, 0, ["vector"], [], list(receipts))[0]
    assert sorted(_numbers(everything.ids)) == list(range(ROWS))


def test_a_cache_of_vectors_grows_and_keeps_the_first(store: Store) -> None:
    cache, ids = store.cache("u1", NEW), pa.array([5, 6, 7])
    assert len(cache) == 0
    assert not cache.get(ids)[1].any()
    cache.put(ids[:2], _vectors(2, 1, 12))
    cache.put(ids[1:], _vectors(2, 2, 12))
    vectors, known = store.cache("u1", NEW).get(pa.array([7, 6, 5, 4]))
    assert known.tolist() == [True, True, True, False]
    np.testing.assert_array_equal(vectors[0], _vectors(2, 2, 12)[1])
    np.testing.assert_array_equal(vectors[1], _vectors(2, 1, 12)[1])
    assert len(cache) == 3
    with pytest.raises(DimensionMismatch):
        store.cache("u1", OLD)
    cache.drop()
    assert len(cache) == 0


def test_capabilities_are_stated(store: Store) -> None:
    said = store.capabilities
    assert said.beside
    assert said.switch
    assert said.catches_up
