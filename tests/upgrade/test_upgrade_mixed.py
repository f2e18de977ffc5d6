"""Partial backfill: lifted and re-embedded rows of one column come into one ranking."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from upgrade_kit import D_NEW, MAP, NEW, OLD, Kit, measured, old_vectors, rows

from crossfade.adapters import Adapter, make_adapter
from crossfade.encoders import Encoder
from crossfade.errors import DataError, SpaceMismatch, StoreChanged, UnreadableFile, UsageError
from crossfade.evaluation.bridge import Sample
from crossfade.spaces import Space
from crossfade.stores import Store, open_store
from crossfade.upgrade import Plan, Searcher, Upgrade, plan
from crossfade.upgrade.mixing import embedded_sample, read_levelling
from crossfade.vectors import Vectors

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

COUNT = 400
QUERIES = list(range(300_000, 300_060))
COMMON = 3 * np.eye(D_NEW)[0]
SCALE = np.linspace(1.5, 0.05, D_NEW)


@cache
def noisy(ids: tuple[int, ...]) -> np.ndarray:
    """A new model that sees more than the old one: a map cannot know it all. All share a direction."""
    own = np.stack([np.random.default_rng(7_000_000 + one).standard_normal(D_NEW) for one in ids])
    made = COMMON + (old_vectors(ids) @ MAP + 1.3 * own) * SCALE
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


class NoisyEncoder(Encoder):
    @property
    def space(self) -> Space:
        return NEW

    def encode(self, items: Sequence[Any]) -> np.ndarray:
        return noisy(tuple(int(str(item).split()[1]) for item in items))


@cache
def lifting() -> Adapter:
    ids = tuple(range(100_000, 101_200))
    return make_adapter("ridge").fit(old_vectors(ids), noisy(ids), source=OLD, target=NEW)


def held_out(count: int = 1000, old: Space = OLD) -> Sample:
    ids = tuple(range(200_000, 200_000 + count))
    return Sample(Vectors(ids, old_vectors(ids), old), Vectors(ids, noisy(ids), NEW))


def planned(uri: str, **options: Any) -> Plan:
    given: dict[str, Any] = {"adapter": lifting(), "items": "text", "budget": 0.5, "held_out": held_out()}
    return plan(uri, strategy="partial", old=OLD, **{**given, **options})


def carried_out(made: Plan, store: Store | None = None) -> Upgrade:
    upgrade = Upgrade.create(made, store=store)
    upgrade.apply(encoder=NoisyEncoder())
    assert upgrade.verify(encoder=NoisyEncoder()).passed
    upgrade.cutover(encoder=NoisyEncoder())
    return upgrade


def found(hits: list[Any]) -> float:
    """Share of a full backfill's ten nearest among the first ten."""
    whole = noisy(tuple(QUERIES)) @ noisy(tuple(range(COUNT))).T
    wanted = np.argsort(-whole, axis=1)[:, :10].tolist()
    pairs = zip(wanted, hits, strict=True)
    return float(np.mean([len(set(ten) & set(one.ids.to_pylist()[:10])) / 10 for ten, one in pairs]))


@pytest.fixture
def uri(tmp_path: Path) -> str:
    lancedb.connect(tmp_path / "db").create_table("items", rows(range(COUNT), old_vectors(range(COUNT))))
    return f"lancedb://{tmp_path / 'db'}#items.vector"


def test_a_held_out_sample_levels_the_rows_and_searches_find_more(uri: str, tmp_path: Path) -> None:
    made = planned(uri)
    assert made.mix is not None
    assert made.mix.levelling
    assert made.mix.items == 500
    assert made.mix.figures["levelled"]["low"] > made.mix.figures["raw"]["high"]
    assert Plan.from_json(made.to_json()) == made
    said = dict(made.summary())["mixed scores"]
    assert said.startswith("levelled vectors; crossfade search: levelled")
    assert "on 500 held-out items" in said
    levelled = carried_out(made)
    queries = noisy(tuple(QUERIES))
    read_directly = found(levelled.store.search(queries, 10, NEW, exact=True))
    searched = found(Searcher(uri, exact=True).search(new=queries, k=10))
    levelled.rollback()
    levelled.retire(confirm=True)
    plain = carried_out(planned(uri, held_out=None))
    assert "not measured" in dict(plain.plan.summary())["mixed scores"]
    raw = found(plain.store.search(queries, 10, NEW, exact=True))
    assert read_directly > raw + 0.05
    assert searched > raw + 0.05
    assert raw < made.mix.figures["raw"]["high"] + 0.1  # the plan's figure is of another sample


def test_without_a_sample_the_encoder_makes_one_from_the_store(uri: str) -> None:
    made = planned(uri, held_out=None, encoder=NoisyEncoder())
    assert made.mix is not None
    assert made.mix.levelling
    assert made.mix.items == COUNT // 2
    few = replace(made, found=replace(made.found, rows=399))
    assert embedded_sample(open_store(uri), few, NoisyEncoder()) is None


def test_only_lifted_rows_are_moved(uri: str) -> None:
    made = planned(uri)
    upgrade = carried_out(made)
    assert made.mix is not None
    level = read_levelling(made.mix.levelling, made.mix.sha256, D_NEW)
    kit = Kit(Path(uri.removeprefix("lancedb://").partition("#")[0]))
    stored, lifted = kit.read(), lifting().transform(old_vectors(range(COUNT)))
    again = [one for one in range(COUNT) if np.allclose(stored[one], noisy((one,))[0], atol=1e-5)]
    assert len(again) == COUNT // 2
    for one in sorted(set(range(COUNT)) - set(again)):
        np.testing.assert_allclose(stored[one], level(lifted[one : one + 1])[0], atol=1e-5)
    upgrade.rollback()
    kit_old = kit.read()
    np.testing.assert_array_equal(np.stack([kit_old[one] for one in range(COUNT)]), old_vectors(range(COUNT)))


def test_the_same_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgvector_backend import Application, as_text, database

    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path))
    application = Application(database())
    application.run("CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector(16) NOT NULL)")
    vectors = old_vectors(range(COUNT))
    given = [(one, f"item {one}", as_text(vectors[one])) for one in range(COUNT)]
    application.run_many("INSERT INTO items (id, text, vector) VALUES (%s, %s, %s)", given)
    address = f"{application.address}#items.vector"
    made = planned(address)
    upgrade = carried_out(made, open_store(address))
    queries = noisy(tuple(QUERIES))
    hits = Searcher(open_store(address), exact=True).search(new=queries, k=10, columns=["text"])
    assert all(len(one) == 10 for one in hits)
    assert hits[0].columns["text"][0].as_py() == f"item {hits[0].ids[0].as_py()}"
    assert all((np.diff(one.scores) <= 0).all() for one in hits)
    assert made.mix is not None
    assert found(hits) > made.mix.figures["raw"]["value"]
    upgrade.rollback()
    first = Searcher(open_store(address), exact=True).search(old=vectors[7:8], k=1)[0]
    assert first.ids[0].as_py() == 7


def test_another_levelling_than_the_plans_is_refused(uri: str) -> None:
    made = planned(uri)
    assert made.mix is not None
    path = Path(made.mix.levelling)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreChanged, match=r"levelling.safetensors: the plan was made with SHA-256"):
        Upgrade.create(made).apply(encoder=NoisyEncoder())


# --- a target quality -------------------------------------------------------------------------


def with_curves() -> dict[str, Any]:
    """An evaluation whose curve was measured as it would be searched, with raw scores beside it."""

    def order(name: str, *values: float) -> dict[str, Any]:
        points = [{"value": value, "low": value - 0.01, "high": value + 0.01} for value in values]
        against = [
            {"value": value - 0.5, "low": value - 0.6, "high": value - 0.4, "p": 0.01} for value in values
        ]
        found = {"name": name, "values": {"nDCG@10": points}, "against_old": {"nDCG@10": against}}
        return found | {"area": {"nDCG@10": points[0]}, "against_random": {}}

    gain = {"nDCG@10": {"value": 0.06, "low": 0.05, "high": 0.07, "p": 0.001}}
    curve = {"task": "judged text", "method": "ridge", "metrics": ["nDCG@10"], "primary": "nDCG@10"}
    curve |= {"shares": [0.0, 0.5, 1.0], "n_gallery": COUNT, "old": {"nDCG@10": 0.5}, "skipped": {}}
    curve |= {"orders": [order("uncertainty", 0.6, 0.75, 0.8)], "ways": ["raw", "levelled, quantile", "raw"]}
    curve |= {"raw": order("uncertainty, raw scores", 0.6, 0.62, 0.8), "over_raw": gain, "held_out": "items"}
    return {**measured((0.01, 0.05, 0.09)), "curves": [curve]}


def test_a_target_quality_is_read_off_the_curve_of_the_way_that_is_served(uri: str) -> None:
    options = {"budget": None, "target_quality": 0.9375, "evaluation": with_curves()}  # 0.75 of 0.8
    merged = planned(uri, **options)
    assert merged.budget == pytest.approx(0.5)
    (quality,) = merged.quality
    assert (quality.value, quality.task) == (0.75, "judged text, levelled, quantile scores")
    raw = planned(uri, held_out=None, **options)
    assert raw.mix is None
    assert raw.budget == pytest.approx(0.5 + 0.5 * 0.13 / 0.18)
    (quality,) = raw.quality
    assert (quality.value, quality.task) == (0.62, "judged text, raw scores")
    assert "judged text, raw scores" in dict(raw.summary())["quality"]


def test_a_budget_shows_the_quality_of_the_way_that_is_served(uri: str) -> None:
    assert planned(uri, evaluation=with_curves()).quality[0].value == 0.75
    assert planned(uri, evaluation=with_curves(), held_out=None).quality[0].value == 0.62


def test_a_target_that_only_a_merge_reaches_is_refused_where_none_can_be_chosen(tmp_path: Path) -> None:
    few = range(100)
    lancedb.connect(tmp_path / "few").create_table("items", rows(few, old_vectors(few)))
    uri = f"lancedb://{tmp_path / 'few'}#items.vector"
    with pytest.raises(UsageError, match=r"too few items to choose a merge on .*; give --budget"):
        planned(
            uri,
            held_out=None,
            encoder=NoisyEncoder(),
            budget=None,
            target_quality=0.9375,
            evaluation=with_curves(),
        )


def test_a_merge_that_no_search_could_use_is_no_plan(uri: str) -> None:
    text = planned(uri).to_json()
    method = planned(uri).mix.merge["method"]  # type: ignore[union-attr]
    with pytest.raises(UnreadableFile, match="not a plan that can be read"):
        Plan.from_json(text.replace(f'"method": "{method}"', '"method": "magic"'))


def test_what_does_not_fit_is_refused(uri: str) -> None:
    with pytest.raises(DataError, match="399 held-out items are too few"):
        planned(uri, held_out=held_out(399))
    with pytest.raises(SpaceMismatch, match=r"held-out items, old model.*other"):
        planned(uri, held_out=held_out(400, replace(OLD, model="other")))
    with pytest.raises(UsageError, match="held-out items are for a partial backfill, not for gallery"):
        plan(uri, strategy="gallery", adapter=lifting(), old=OLD, held_out=held_out(400))
