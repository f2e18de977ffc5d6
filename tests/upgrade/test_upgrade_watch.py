"""Watching an upgrade: what is kept, what is told from it, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upgrade_kit import MAP, NEW, OLD, Kit, NewEncoder, adapter

from crossfade.errors import (
    DataError,
    DimensionMismatch,
    InvalidVectors,
    SpaceMismatch,
    StoreChanged,
    UnreadableFile,
    UsageError,
)
from crossfade.evaluation.bridge import Sample
from crossfade.report.prometheus import watch_metrics, write_metrics
from crossfade.spaces import Space
from crossfade.upgrade import Upgrade, plan
from crossfade.upgrade.watching import Watched, keep_sample, summary, watch
from crossfade.vectors import Vectors


def sample(count: int, seed: int, noise: float = 0.3, *, old: bool = True) -> Sample:
    """Queries under both models; `noise` is what the map cannot know."""
    rng = np.random.default_rng(seed)
    before = rng.standard_normal((count, OLD.dimension))
    after = before @ MAP + noise * rng.standard_normal((count, NEW.dimension))
    ids = np.arange(count)
    return Sample(Vectors(ids, before, OLD) if old else None, Vectors(ids, after, NEW))


@pytest.fixture
def upgrade(kit: Kit) -> Upgrade:
    made = kit.upgrade("query")
    keep_sample(made.plan, made.store, sample(300, 1), sample(200, 2))
    return made


def look(upgrade: Upgrade, queries: Sample, **options: Any) -> Watched:
    return watch(upgrade.plan, upgrade.store, queries, **options)


def test_unchanged_queries_raise_no_alarm_and_changed_ones_do(upgrade: Upgrade) -> None:
    quiet = look(upgrade, sample(200, 3))
    assert not quiet.drift
    assert [one.name for one in quiet.changes] == ["agreement", "nearness", "fidelity"]
    assert (quiet.kept, quiet.recent) == (200, 200)
    changed = look(upgrade, sample(200, 3, noise=1.5))
    assert changed.drift
    assert {one.name for one in changed.changes if one.alarm} >= {"agreement", "fidelity"}
    facts = dict(summary(changed))
    assert facts["fidelity"].endswith("DECAY")
    assert "fit the map on recent pairs" in facts["next"]


def test_new_queries_alone_are_enough(upgrade: Upgrade) -> None:
    quiet = look(upgrade, sample(200, 4, old=False))
    assert not quiet.drift
    assert "needs the queries under the old model" in dict(summary(quiet))["not measured"]
    assert look(upgrade, sample(200, 3, noise=1.5, old=False)).drift


def test_another_new_model_behind_the_same_name_is_noticed(upgrade: Upgrade) -> None:
    """An endpoint that changes its model: same dimension, rotated vectors."""
    queries = sample(200, 5)
    assert queries.new is not None
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((NEW.dimension, NEW.dimension)))[0]
    turned = Vectors(queries.new.ids, queries.new.matrix @ rotation, NEW)
    found = look(upgrade, Sample(new=turned))
    assert {one.name for one in found.changes if one.alarm} >= {"nearness"}


def test_false_alarms_are_as_rare_as_stated(upgrade: Upgrade) -> None:
    """Kept and recent queries are drawn anew each time, so that looks are independent."""
    alarms = 0
    for seed in range(40):
        keep_sample(upgrade.plan, upgrade.store, sample(100, 10), sample(60, 1000 + seed))
        alarms += look(upgrade, sample(60, 5000 + seed), alpha=0.1).drift
    assert alarms <= 10  # 4 on the mean; 11 or more come once in 600 times


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("gallery", {}),
        ("lifted-cascade", {"depth": 5, "items": "text"}),
        ("interpolate", {"weight": 0.5}),
        ("cascade", {"depth": 5, "items": "text"}),
        ("cascade", {"depth": 5, "items": "text", "first_stage": "interpolate", "weight": 0.5}),
        ("partial", {"items": "text", "budget": 0.1}),
    ],
)
def test_every_bridge_can_be_watched(kit: Kit, strategy: str, options: dict[str, Any]) -> None:
    if strategy in ("partial", "lifted-cascade"):
        options = {**options, "adapter": adapter("forward")}
    made = kit.upgrade(strategy, **options)
    assert keep_sample(made.plan, made.store, sample(400, 1)) == (200, 200)
    assert not look(made, sample(200, 3)).drift
    assert look(made, sample(200, 3, noise=1.5)).drift


@pytest.mark.parametrize("strategy", ["native", "query"])
def test_a_compatible_model_is_watched_without_a_map(kit: Kit, strategy: str) -> None:
    from test_upgrade_compatible import XbtEncoder

    made = Upgrade.create(plan(kit.uri, strategy=strategy, encoder=XbtEncoder(), old=OLD))
    assert made.plan.compatible

    def under_both(count: int, seed: int, noise: float) -> Sample:
        given = sample(count, seed)
        assert given.old is not None
        apart = noise * np.random.default_rng(seed + 1).standard_normal(given.old.matrix.shape)
        return Sample(given.old, Vectors(given.old.ids, given.old.matrix + apart, OLD))

    keep_sample(made.plan, made.store, under_both(300, 1, 0.2), under_both(200, 2, 0.2))
    assert not look(made, under_both(200, 3, 0.2)).drift
    assert look(made, under_both(200, 3, 1.0)).drift


@pytest.mark.parametrize("strategy", ["keep", "backfill"])
def test_without_a_bridge_there_is_nothing_to_watch(kit: Kit, strategy: str) -> None:
    options = {"items": "text", "encoder": NewEncoder()} if strategy == "backfill" else {}
    made = kit.upgrade(strategy, **options)
    with pytest.raises(UsageError, match=f"strategy {strategy} has no bridge"):
        keep_sample(made.plan, made.store, sample(300, 1))


def test_bad_input_is_refused(upgrade: Upgrade, kit: Kit) -> None:
    with pytest.raises(
        DataError, match="49 recent queries are too few to tell drift from chance; at least 50"
    ):
        look(upgrade, sample(49, 3))
    with pytest.raises(DataError, match="99 items are too few"):
        keep_sample(upgrade.plan, upgrade.store, sample(99, 3), sample(60, 2))
    queries = sample(60, 3)
    assert queries.new is not None
    assert queries.old is not None
    impostor = Vectors(queries.new.ids, queries.new.matrix, Space("impostor", NEW.dimension))
    with pytest.raises(SpaceMismatch, match=r"recent queries, new model: same dimension.*impostor"):
        look(upgrade, Sample(new=impostor))
    with pytest.raises(DimensionMismatch, match=r"recent queries, new model: expected 24 .* got 16"):
        look(upgrade, Sample(new=Vectors(queries.old.ids, queries.old.matrix, OLD)))
    with pytest.raises(UsageError, match="recent queries are needed under the new model"):
        look(upgrade, Sample(queries.old))
    with pytest.raises(UsageError, match="items to keep are needed under the old model"):
        keep_sample(upgrade.plan, upgrade.store, Sample(new=sample(120, 3).new), sample(60, 3))
    broken = queries.new.matrix.copy()
    broken[7] = np.nan
    with pytest.raises(InvalidVectors, match="recent queries, new model: 60 vectors, of these 1 with NaN"):
        look(upgrade, Sample(new=Vectors(queries.new.ids, broken, NEW)))
    for options in ({"alpha": 0.0}, {"alpha": 0.7}, {"tolerance": -1.0}, {"tolerance": float("nan")}):
        with pytest.raises(UsageError, match="a false alarm rate goes from"):
            look(upgrade, queries, **options)
    interpolating = kit.upgrade("interpolate", weight=0.5)
    keep_sample(interpolating.plan, interpolating.store, sample(300, 1))
    with pytest.raises(UsageError, match="queries are needed under the old model"):
        look(interpolating, Sample(new=queries.new))


def test_without_a_kept_sample_it_says_how_to_keep_one(kit: Kit) -> None:
    made = kit.upgrade("query")
    with pytest.raises(UsageError, match=r"has no sample to compare with.*crossfade watch PLAN --keep"):
        look(made, sample(60, 3))


def test_a_refused_sample_leaves_the_one_before(upgrade: Upgrade) -> None:
    with pytest.raises(DataError):
        keep_sample(upgrade.plan, upgrade.store, sample(20, 3), sample(60, 2))
    assert look(upgrade, sample(60, 3)).kept == 200
    folder = upgrade.store.neighbourhood / upgrade.plan.id
    assert sorted(path.name for path in (folder / "watch").iterdir()) == [
        "items_new.parquet",
        "items_old.parquet",
        "queries_new.parquet",
        "queries_old.parquet",
    ]
    assert not [path for path in folder.iterdir() if path.name.startswith(".watch")]


def test_a_damaged_sample_and_a_changed_adapter_are_refused(upgrade: Upgrade) -> None:
    kept = upgrade.store.neighbourhood / upgrade.plan.id / "watch" / "items_old.parquet"
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(UnreadableFile, match="the kept sample cannot be read"):
        look(upgrade, sample(60, 3))
    assert upgrade.plan.adapter is not None
    model = Path(upgrade.plan.adapter.path) / "model.safetensors"
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(StoreChanged, match="the plan was made with SHA-256"):
        look(upgrade, sample(60, 3))


def test_metrics_are_in_the_text_format(upgrade: Upgrade, tmp_path: Path) -> None:
    found = look(upgrade, sample(60, 3))
    text = watch_metrics(found)
    lines = text.splitlines()
    labels = f'upgrade="{upgrade.plan.id}",strategy="query"'
    assert f"crossfade_watch_drift{{{labels}}} 0.0" in lines
    assert f'crossfade_watch_mean{{{labels},measure="agreement"}} {found.changes[0].recent!r}' in lines
    names = {line.split("{")[0] for line in lines if not line.startswith("#")}
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == names
    assert text.endswith("\n")
    write_metrics("old\n", tmp_path / "crossfade.prom")
    write_metrics(text, tmp_path / "crossfade.prom")
    assert (tmp_path / "crossfade.prom").read_text() == text
    assert list(tmp_path.glob(".*prom*")) == []
