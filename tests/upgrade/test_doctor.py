from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow.parquet as pq
import pytest
from upgrade_kit import rows

from crossfade.encoders import Encoder
from crossfade.errors import SpaceMismatch, UsageError
from crossfade.spaces import Space
from crossfade.stores import Store, open_store
from crossfade.upgrade.doctor import examine, write_origins

COUNT, DIMENSION = 900, 32
MODEL = Space("right-model", DIMENSION)


def _embed(ids: Sequence[int], seed: int) -> np.ndarray:
    """What a model makes of items: a function of their id, and a direction that all its vectors share."""
    meaning = np.stack([np.random.default_rng(one).standard_normal(8) for one in ids])
    rng = np.random.default_rng(1000 + seed)
    mixed = meaning @ rng.standard_normal((8, DIMENSION)) / np.sqrt(8)
    return (mixed + 1.5 * rng.standard_normal(DIMENSION)).astype(np.float32)


class RightModel(Encoder):
    @property
    def space(self) -> Space:
        return MODEL

    def encode(self, items: Sequence[Any]) -> np.ndarray:
        return _embed([int(item.removeprefix("item ")) for item in items], 0)


def _gallery(folder: Path, foreign: set[int]) -> Store:
    ids = list(range(COUNT))
    vectors = _embed(ids, 0)
    if foreign:
        chosen = sorted(foreign)
        vectors[chosen] = _embed(chosen, 1)
    table = lancedb.connect(folder).create_table("items", rows(ids[:500], vectors[:500]))
    table.add(rows(ids[500:], vectors[500:]))
    return open_store(f"lancedb://{folder}#items.vector")


FOREIGN = set(range(100, 190))


def test_a_mixed_gallery_is_found_and_its_rows_are_listed(tmp_path: Path) -> None:
    store = _gallery(tmp_path / "db", FOREIGN)
    found = examine(store, sample=600, seed=3)
    assert found.mixed
    assert found.origins.shares[1].low <= len(FOREIGN) / COUNT <= found.origins.shares[1].high
    assert set(found.examples) <= FOREIGN
    assert write_origins(store, found.origins, tmp_path / "origins.parquet") == COUNT
    listed = pq.read_table(tmp_path / "origins.parquet").to_pydict()
    assert {one for one, origin in zip(listed["id"], listed["origin"], strict=True) if origin} == FOREIGN
    with pytest.raises(UsageError, match="exists already"):
        write_origins(store, found.origins, tmp_path / "origins.parquet")


def test_a_clean_gallery_is_clean_by_geometry_and_by_its_encoder(tmp_path: Path) -> None:
    store = _gallery(tmp_path / "db", set())
    assert not examine(store).mixed
    found = examine(store, encoder=RightModel(), items="text")
    assert not found.mixed
    assert found.foreign is not None
    assert (found.foreign.value, found.embedded) == (0, 200)


def test_the_encoder_counts_what_it_did_not_make(tmp_path: Path) -> None:
    found = examine(_gallery(tmp_path / "db", FOREIGN), encoder=RightModel(), items="text")
    assert found.foreign is not None
    assert found.foreign.low <= len(FOREIGN) / COUNT <= found.foreign.high
    assert found.foreign.value > 0
    assert set(found.examples) <= FOREIGN


def test_every_row_may_be_in_the_sample(tmp_path: Path) -> None:
    found = examine(_gallery(tmp_path / "db", FOREIGN), sample=COUNT)
    assert found.origins.sampled == COUNT
    assert found.origins.shares[1].value == pytest.approx(len(FOREIGN) / COUNT)


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    store = _gallery(tmp_path / "db", set())
    with pytest.raises(UsageError, match="name their column"):
        examine(store, encoder=RightModel())
    store.record_space(Space("another-model", DIMENSION))
    with pytest.raises(SpaceMismatch, match="another-model"):
        examine(store, encoder=RightModel(), items="text")
