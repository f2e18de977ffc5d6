"""What is particular to FAISS index files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.errors import InvalidVectors, NotSupported, StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores import IndexInfo, Produced, Receipt, Rows, Staged, open_store
from crossfade.stores.faiss_index import loss

ROWS = 600
OLD, NEW = Space("old-model", 8, "l2"), Space("new-model", 16, "l2")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")
IDS = np.random.default_rng(5).permutation(5 * ROWS)[:ROWS].astype(np.int64)


def _vectors(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ROWS, 8)).astype(np.float32)


def _lift(old: np.ndarray) -> np.ndarray:
    return np.hstack([old, 2 * old]).astype(np.float32)


def _produce(rows: Rows) -> Produced:
    return Produced(_lift(np.nan_to_num(rows.vectors)), ~rows.null)


def _make(path: Path, factory: str, metric: int = faiss.METRIC_L2, ids: np.ndarray | None = None) -> Any:
    index = faiss.index_factory(8, factory, metric)
    index.train(_vectors())
    if ids is None:
        index.add(_vectors())
    else:
        index.add_with_ids(_vectors(), ids)
    faiss.write_index(index, str(path))
    return index


def _upgrade(uri: str, staged: Staged = STAGED, switch: bool = True) -> tuple[Any, dict[str, Receipt]]:
    store, receipts = open_store(uri), {}
    for part in store.pending(staged, receipts):
        receipts[part.key] = store.write_part(part, staged, _produce, rows=100)
    assert store.publish(staged, receipts) == []
    if switch:
        assert store.switch(staged, receipts) == []
    return store, receipts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my items.faiss"


@pytest.mark.parametrize(
    "factory", ["Flat", "HNSW8", "IDMap,Flat", "IDMap2,HNSW8", "IVF4,Flat", "IDMap,IVF4,Flat"]
)
def test_every_vector_is_mapped_under_its_id(path: Path, factory: str) -> None:
    keeps_ids = "IDMap" in factory or "IVF" in factory
    _make(path, factory, ids=IDS if keeps_ids else None)
    old = faiss.read_index(str(path))
    store, _ = _upgrade(f"faiss://{path}#index")
    made = faiss.read_index(str(path))
    assert type(made) is type(old)
    _, labels = made.search(_lift(_vectors()), 1)
    np.testing.assert_array_equal(labels[:, 0], IDS if keeps_ids else np.arange(ROWS))
    found = {
        one: row
        for batch in store.scan()
        for one, row in zip(batch.ids.to_pylist(), batch.vectors, strict=True)
    }
    ids = IDS.tolist() if keeps_ids else range(ROWS)
    np.testing.assert_array_equal(np.stack([found[one] for one in ids]), _lift(_vectors()))


def test_parameters_are_kept(path: Path) -> None:
    index = _make(path, "HNSW12")
    index.hnsw.efConstruction, index.hnsw.efSearch = 55, 33
    faiss.write_index(index, str(path))
    store, _ = _upgrade(f"faiss://{path}#index")
    assert store.describe().index == IndexInfo(
        "", "HNSW", "l2", {"m": 12, "ef_construction": 55, "ef_search": 33}, ROWS
    )


def test_codes_are_decoded_mapped_and_encoded_again_and_the_loss_is_told(path: Path) -> None:
    index = _make(path, "IVF4,PQ4x4")
    index.nprobe = 3
    faiss.write_index(index, str(path))
    store, receipts = _upgrade(f"faiss://{path}#index", switch=False)
    kept = {"num_partitions": 4, "nprobe": 3, "num_bits": 4}
    index.make_direct_map()
    wanted = _lift(index.reconstruct_n(0, ROWS))
    rows = np.concatenate([one.vectors for one in store.scan(STAGED.name)])
    np.testing.assert_array_equal(rows, store.stored(wanted, STAGED))
    assert np.abs(rows - wanted).max() > 0
    [said] = store.remarks(STAGED)
    error = np.linalg.norm(rows - wanted) / np.linalg.norm(wanted)
    assert f"relative error of {error:.1%}" in said
    store.switch(STAGED, receipts)
    assert store.describe().index == IndexInfo("", "IVF_PQ", "l2", {**kept, "num_sub_vectors": 8}, ROWS)
    store.drop_old(STAGED)
    assert store.remarks(STAGED) == []


def test_loss_against_plain_arithmetic() -> None:
    index = faiss.index_factory(8, "IVF1,PQ2x4")
    vectors = _vectors()
    index.train(vectors)
    index.add(vectors)
    index.make_direct_map()
    back, kept = index.reconstruct_n(0, ROWS), []
    for row in range(200):
        near = [
            np.argsort(np.square(one - one[row]).sum(axis=1), kind="stable")[:10] for one in (vectors, back)
        ]
        far = [np.square(one - vectors[row]).sum(axis=1) for one in (vectors, back)]
        near = [np.argsort(one, kind="stable")[:10] for one in far]
        kept.append(len(set(near[0]) & set(near[1])) / 10)
    found = loss(index, vectors, "l2")
    assert found["error"] == pytest.approx(np.linalg.norm(back - vectors) / np.linalg.norm(vectors), rel=1e-4)
    assert found["overlap"] == pytest.approx(np.mean(kept), abs=0.01)


def test_cosine_is_the_inner_product_of_unit_vectors(path: Path) -> None:
    _make(path, "Flat", faiss.METRIC_INNER_PRODUCT)
    new = Space("new-model", 16, "cosine")
    store, _ = _upgrade(f"faiss://{path}#index", Staged("n", "p", OLD, new, "u1"))
    vectors = next(store.scan()).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert faiss.read_index(str(path)).metric_type == faiss.METRIC_INNER_PRODUCT
    hits = store.search(_lift(_vectors())[:5] * 7, 1, new)
    assert [one.ids[0].as_py() for one in hits] == list(range(5))
    assert [float(one.scores[0]) for one in hits] == pytest.approx([1.0] * 5, abs=1e-5)


def test_another_kind_of_index_if_told(path: Path) -> None:
    _make(path, "HNSW8")
    store, receipts = _upgrade(f"faiss://{path}#index", switch=False)
    wanted = IndexInfo("", "IVF_FLAT", "l2", {"num_partitions": 3, "nprobe": 2})
    store.build_index(STAGED, wanted)
    store.switch(STAGED, receipts)
    assert wanted.same_kind(store.describe().index)


def test_a_table_beside_the_index_matched_row_by_row(path: Path) -> None:
    _make(path, "Flat")
    names = [f"item {one}" for one in range(ROWS + 2)]
    pq.write_table(pa.table({"sku": names, "price": range(ROWS + 2)}), path.with_suffix(".parquet"))
    store, _ = _upgrade(f"faiss://{path}#index?id=sku")
    assert store.describe().payload == ("price",)
    assert store.count_null("index") == 2
    hits = store.search(_lift(_vectors())[:3], 1, NEW, columns=["price"])
    assert [(one.ids[0].as_py(), one.columns["price"][0].as_py()) for one in hits] == [
        (f"item {row}", row) for row in range(3)
    ]


def test_rows_known_by_number_cannot_be_left_out(path: Path) -> None:
    _make(path, "Flat")
    store, receipts = open_store(f"faiss://{path}#index"), {}

    def all_but_one(rows: Rows) -> Produced:
        valid = np.ones(len(rows), dtype=bool)
        valid[3] = False
        return Produced(_lift(rows.vectors), valid)

    for part in store.parts(STAGED):
        receipts[part.key] = store.write_part(part, STAGED, all_but_one, rows=ROWS)
    with pytest.raises(InvalidVectors, match=r"knows rows by their number.*give the index an id map"):
        store.publish(STAGED, receipts)
    np.testing.assert_array_equal(faiss.read_index(str(path)).reconstruct_n(0, ROWS), _vectors())
    assert not list(path.parent.rglob("vector__next*"))


def test_bad_files(path: Path) -> None:
    path.write_bytes(b"IxFI no more")
    with pytest.raises(StoreError, match="cannot be read as a FAISS index"):
        open_store(f"faiss://{path}#index")
    _make(path, "SQ8")
    with pytest.raises(NotSupported, match="kind IndexScalarQuantizer cannot be rebuilt"):
        open_store(f"faiss://{path}#index")
    _make(path, "Flat")
    with pytest.raises(UsageError, match="no table beside the index that could hold a column 'sku'"):
        open_store(f"faiss://{path}#index?id=sku")
    pq.write_table(pa.table({"id": [1, 2, 3]}), path.with_suffix(".parquet"))
    with pytest.raises(StoreError, match=r"index has 600 vectors, the table beside it 3 rows"):
        open_store(f"faiss://{path}#index")
    _make(path, "IDMap,Flat", ids=IDS)
    pq.write_table(pa.table({"id": ["a", "b"]}), path.with_suffix(".parquet"))
    with pytest.raises(StoreError, match="integer ids, those of the table beside it are string"):
        open_store(f"faiss://{path}#index")
    path.with_suffix(".parquet").unlink()
    with pytest.raises(UsageError, match="no column 'text' beside the vectors"):
        next(open_store(f"faiss://{path}#index").scan(columns=["text"]))


def test_an_empty_index_is_described(path: Path) -> None:
    faiss.write_index(faiss.IndexFlatL2(8), str(path))
    assert open_store(f"faiss://{path}#index").describe().rows == 0
