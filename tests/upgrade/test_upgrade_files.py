"""Upgrades of files: a Parquet file and a FAISS index, from plan to retire."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from upgrade_kit import NEW, OLD, OldEncoder, adapter, new_vectors, old_vectors, rows

from crossfade.upgrade import Searcher, State, Upgrade, inspect_store, plan

COUNT = 240


def _parquet(folder: Path) -> str:
    pq.write_table(rows(range(COUNT), old_vectors(range(COUNT))), folder / "items.parquet")
    return f"parquet://{folder}/items.parquet#vector"


def _faiss(folder: Path) -> str:
    vectors = old_vectors(range(COUNT))
    index = faiss.IndexIDMap2(faiss.IndexHNSWFlat(vectors.shape[1], 8, faiss.METRIC_INNER_PRODUCT))
    index.add_with_ids(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(COUNT))
    faiss.write_index(index, str(folder / "items.faiss"))
    return f"faiss://{folder}/items.faiss#vector"


@pytest.mark.parametrize("make", [_parquet, _faiss])
def test_from_plan_to_retire(tmp_path: Path, make: object) -> None:
    uri = make(tmp_path)  # type: ignore[operator]
    assert inspect_store(uri, space=OLD).ready
    made = replace(plan(uri, strategy="gallery", adapter=adapter("forward"), old=OLD), batch_rows=50)
    upgrade = Upgrade.create(made)
    assert upgrade.apply().state is State.BUILT
    assert upgrade.verify().passed
    before = Searcher(uri, old=OldEncoder()).search(["item 7"], 1)[0]
    assert before.ids[0].as_py() == 7
    assert upgrade.cutover().state is State.CUT_OVER
    found = Searcher(uri, exact=True).search(new=new_vectors([7, 11]), k=1)
    assert [one.ids[0].as_py() for one in found] == [7, 11]
    upgrade.rollback()
    assert Searcher(uri, exact=True).search(old=old_vectors([11]), k=1)[0].ids[0].as_py() == 11
    upgrade.cutover()
    upgrade.retire(confirm=True)
    again = Upgrade.open(uri)
    assert again.status().state is State.RETIRED
    assert again.store.space() == NEW
    left = {
        one.name
        for one in (tmp_path / ".crossfade").rglob("*")
        if one.suffix in (".parquet", ".faiss", ".npy")
    }
    assert not left
