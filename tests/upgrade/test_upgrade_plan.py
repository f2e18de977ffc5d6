"""What a plan says, and what is refused before anything is written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from upgrade_kit import D_OLD, NEW, OLD, Kit, NewEncoder, adapter, measured, old_vectors, rows

from crossfade.errors import (
    CrossfadeError,
    DimensionMismatch,
    DuplicateIds,
    InvalidVectors,
    OutOfSpace,
    PlanRefused,
    SpaceMismatch,
    StoreChanged,
    StoreError,
    UnknownSpace,
    UnreadableFile,
    UsageError,
    WrongDirection,
)
from crossfade.spaces import Space
from crossfade.stores import open_store
from crossfade.upgrade import Plan, State, Upgrade, inspect_store, plan

BETTER, SAME, WORSE = (0.02, 0.05, 0.08), (-0.03, 0.01, 0.04), (-0.09, -0.05, -0.02)


def test_a_plan_is_a_file_that_a_person_can_read(kit: Kit, tmp_path: Path) -> None:
    made = kit.plan(evaluation=measured(BETTER))
    made.save(tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    assert len(text.splitlines()) > 60
    assert json.loads(text)["strategy"] == "gallery"
    assert Plan.load(tmp_path / "plan.json") == made
    facts = dict(made.summary())
    assert facts["quality"].startswith(
        "nDCG@10 0.550 [0.400, 0.700] against 0.500 today (+0.050 [+0.020, +0.080]"
    )
    assert facts["writes"] == "240 vectors of 24 dimensions"
    assert "rows/s" in facts["time"]
    assert "free" in facts["disk"]
    assert "crossfade rollback" in facts["way back"]
    assert made.estimates.bytes_needed >= 240 * 24 * 4


def test_planning_changes_nothing_that_readers_see(kit: Kit) -> None:
    before = kit.dataset.version, open_store(kit.uri).describe()
    kit.plan()
    assert (kit.dataset.version, open_store(kit.uri).describe()) == before
    assert not list(kit.folder.rglob("crossfade-probe-*"))


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"format": "crossfade-plan", "version": 99}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(
        UnreadableFile, match=r"plan\.json: not a plan that can be read.*run crossfade plan again"
    ):
        Plan.load(path)


def test_a_plan_cut_short_anywhere_is_refused(kit: Kit, tmp_path: Path) -> None:
    text, path = kit.plan().to_json(), tmp_path / "plan.json"
    for length in range(0, len(text) - 2, 97):
        path.write_text(text[:length])
        with pytest.raises(UnreadableFile):
            Plan.load(path)


def test_a_plan_that_makes_search_worse_is_refused_unless_forced(kit: Kit) -> None:
    with pytest.raises(
        PlanRefused, match=r"strategy gallery makes search worse: nDCG@10 0\.450.*--force REASON"
    ):
        kit.plan(evaluation=measured(WORSE))
    assert kit.plan(evaluation=measured(SAME)).forced == ""
    forced = kit.plan(evaluation=measured(WORSE), force="the old model is switched off on Friday")
    assert dict(forced.summary())["forced"] == "the old model is switched off on Friday"


def test_worse_in_one_of_several_tasks_is_worse(kit: Kit) -> None:
    evaluation = measured(BETTER)
    evaluation["tasks"] += measured(WORSE)["tasks"]
    evaluation["tasks"][1]["name"] = "image→text"
    with pytest.raises(PlanRefused, match="image→text"):
        kit.plan(evaluation=evaluation)


def test_the_strategy_is_the_recommended_one_unless_given(kit: Kit) -> None:
    row = {"weight": 0.75, "depth": 100, "first_stage": "interpolate"}
    evaluation = measured(BETTER, "cascade:interpolate@100", **row)
    made = plan(kit.uri, evaluation=evaluation, adapter=adapter("backward"), old=OLD, items="text")
    assert (made.strategy, made.depth, made.first_stage, made.weight) == ("cascade", 100, "interpolate", 0.75)
    assert made.quality[0].row == "cascade:interpolate@100"
    shallow = plan(
        kit.uri, strategy="cascade", depth=20, first_stage="query", evaluation=evaluation,
        adapter=adapter("backward"), old=OLD, items="text",
    )  # fmt: skip
    assert (shallow.depth, shallow.quality) == (20, ())


def test_an_evaluation_of_other_models_is_refused(kit: Kit) -> None:
    evaluation = measured(BETTER)
    evaluation["new"]["revision"] = "2"
    with pytest.raises(
        SpaceMismatch, match=r"measured new-model@2.*as the new model, the plan is for new-model"
    ):
        kit.plan(evaluation=evaluation)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"strategy": "gallery", "adapter": adapter("backward")},
            WrongDirection,
            r"needs a map from old-model .*--direction forward",
        ),
        (
            {"strategy": "query", "adapter": adapter("forward")},
            WrongDirection,
            r"needs a map into old-model .*--direction backward",
        ),
        (
            {"strategy": "gallery", "adapter": None},
            UsageError,
            r"gallery needs an adapter; .*--direction forward.*--adapter DIR",
        ),
        ({"strategy": "gallery", "old": Space("impostor", D_OLD)}, SpaceMismatch, "impostor"),
        ({"strategy": "gallery", "old": Space("old-model", 99)}, DimensionMismatch, "16 dimensions.*99"),
        ({"strategy": "gallery", "old": None}, UnknownSpace, "--space"),
        ({"strategy": "gallery", "new": Space("other", 24)}, SpaceMismatch, "other"),
        ({"strategy": "interpolate"}, UsageError, "needs the weight.*got None"),
        ({"strategy": "interpolate", "weight": 1.5}, UsageError, "from 0 to 1, got 1.5"),
        ({"strategy": "cascade", "items": "text"}, UsageError, "got None; give --depth"),
        ({"strategy": "cascade", "depth": 20}, UsageError, "--items COLUMN.*the store has text"),
        ({"strategy": "cascade", "depth": 20, "items": "txt"}, UsageError, "no column 'txt'.*it has text"),
        ({"strategy": "backfill", "items": "text"}, UnknownSpace, "--new-space"),
        ({"strategy": "backfill", "items": "text", "new": OLD}, UsageError, "the same, old-model"),
        ({"strategy": "sideways"}, UsageError, "'sideways' is not one of keep, query"),
        ({"strategy": "gallery", "on_invalid": "ignore"}, UsageError, "'ignore' is not one of refuse, skip"),
        ({"strategy": "gallery", "changed_rows": 2.0}, UsageError, "from 0 to 1, got 2.0"),
    ],
)
def test_what_does_not_fit_is_refused(
    kit: Kit, options: dict[str, object], error: type[CrossfadeError], message: str
) -> None:
    before = sorted(kit.folder.rglob("*"))
    with pytest.raises(error, match=message):
        kit.plan(**options)  # type: ignore[arg-type]
    assert sorted(kit.folder.rglob("*")) == before


def test_a_plan_needs_a_strategy_or_a_recommendation(kit: Kit) -> None:
    with pytest.raises(UsageError, match=r"needs a strategy, or an evaluation"):
        plan(kit.uri, old=OLD)


def _spoilt() -> np.ndarray:
    vectors = old_vectors(range(900, 904))
    vectors[0, 3], vectors[1, 5], vectors[2] = np.nan, np.inf, 0
    return vectors


def test_unusable_vectors_are_counted_and_refused(kit: Kit) -> None:
    kit.write(rows(range(900, 904), _spoilt()))
    kit.table.add(rows([950], None))
    with pytest.raises(
        InvalidVectors, match=r"4 of 245 vectors are unusable \(1 NaN, 1 infinite, 1 null, 1 zero\)"
    ):
        kit.plan()


def test_unusable_vectors_are_skipped_by_option_and_listed(kit: Kit) -> None:
    kit.write(rows(range(900, 904), _spoilt()))
    kit.table.add(rows([950], None))
    made = kit.plan(on_invalid="skip")
    assert made.invalid == {"NaN": 1, "infinite": 1, "null": 1, "zero": 1}
    upgrade = Upgrade.create(made)
    upgrade.apply()
    assert upgrade.verify().passed
    upgrade.cutover()
    assert [one for one, vector in kit.read().items() if vector is None] == [900, 901, 902, 950]
    assert upgrade.status().skipped == 4
    assert upgrade.skipped() == [("900", "NaN"), ("901", "infinite"), ("902", "zero"), ("950", "null")]


def test_unusable_vectors_that_appear_later_stop_apply_and_can_be_corrected(kit: Kit) -> None:
    upgrade = kit.upgrade(changed_rows=1.0)
    kit.write(rows(range(900, 904), _spoilt()))
    with pytest.raises(
        InvalidVectors, match=r"3 rows cannot be given a new vector .*first ids: 900, 901, 902"
    ):
        upgrade.apply()
    assert upgrade.status().state is State.TRANSFORMING
    kit.table.delete("id IN (900, 901, 902)")
    upgrade.apply()
    assert upgrade.verify().passed


def test_duplicate_ids_are_refused(kit: Kit) -> None:
    kit.table.add(kit.gallery([5, 6]))
    with pytest.raises(DuplicateIds, match=r"2 ids occur more than once, 4 rows in all; first ids: 5, 6"):
        kit.plan()


def test_an_empty_store_is_refused(kit: Kit) -> None:
    kit.table.delete("true")
    with pytest.raises(StoreError, match="no rows; write some first"):
        kit.plan()


def test_inspection_names_every_problem_and_its_remedy(kit: Kit) -> None:
    kit.write(rows(range(900, 904), _spoilt()))
    kit.table.add(kit.gallery([5]))
    found = inspect_store(kit.uri)
    assert [one.kind for one in found.problems] == ["space", "duplicates", "invalid"]
    assert not found.ready
    assert found.to_dict()["ready"] is False
    assert dict(found.summary())["ready"].startswith("no")
    assert inspect_store(kit.uri, space="impostor").space == Space("impostor", D_OLD)


def test_inspection_of_a_sound_store(kit: Kit) -> None:
    open_store(kit.uri).record_space(OLD)
    found = inspect_store(kit.uri)
    assert (found.ready, found.problems, found.space, found.upgrade) == (True, (), OLD, None)
    upgrade = kit.upgrade()
    assert inspect_store(kit.uri).upgrade == (upgrade.plan.id, "planned")
    assert [one.kind for one in inspect_store(kit.uri, space=NEW).problems] == ["space"]


def test_inspection_of_a_store_without_ids_or_rows(kit: Kit) -> None:
    kit.dataset.alter_columns({"path": "id", "name": "sku"})
    found = inspect_store(kit.uri, space=OLD)
    assert [one.kind for one in found.problems] == ["ids"]
    assert f"{kit.uri}?id=NAME" in found.problems[0].remedy
    assert inspect_store(f"{kit.uri}?id=sku", space=OLD).ready


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_account_is_found(kit: Kit) -> None:
    data = kit.folder / "items.lance"
    data.chmod(0o555)
    try:
        assert [one.kind for one in inspect_store(kit.uri, space=OLD).problems] == ["read-only"]
    finally:
        data.chmod(0o755)


def test_a_read_only_account_is_found_by_its_rights(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert [one.kind for one in inspect_store(kit.uri, space=OLD).problems] == ["read-only"]
    with pytest.raises(StoreError, match="may not write there"):
        kit.plan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kit: kit.table.add(kit.gallery([900])), "rows were 240, now there are 241"),
        (lambda kit: kit.table.delete("id = 7"), "rows were 240, now there are 239"),
        (
            lambda kit: kit.table.merge_insert("id").when_matched_update_all().execute(kit.gallery([7])),
            r"rows were rewritten: 240 rows of version 4, now 240 of version 5",
        ),
        (
            lambda kit: kit.dataset.create_index("vector", "IVF_FLAT", metric="l2", num_partitions=1),
            "metric of the index was none, now it is l2",
        ),
        (
            lambda kit: open_store(kit.uri).record_space(Space("impostor", D_OLD)),
            r"recorded space was old-model .*, now it is impostor",
        ),
    ],
    ids=["added", "removed", "rewritten", "index", "space"],
)
def test_a_store_that_changed_since_the_plan_is_refused(kit: Kit, change: object, message: str) -> None:
    upgrade = kit.upgrade()
    change(kit)  # type: ignore[operator]
    version = kit.dataset.version
    with pytest.raises(
        StoreChanged, match=rf"has changed since the plan: {message}.*run crossfade plan again"
    ):
        upgrade.apply()
    assert upgrade.status().state is State.PLANNED
    assert kit.dataset.version == version


def test_a_store_of_other_dimension_is_refused(kit: Kit, tmp_path: Path) -> None:
    made = kit.plan()
    other = Kit(tmp_path / "other").create()
    other.dataset.add_columns({"v2": "vector"})
    other.dataset.drop_columns(["vector"])
    import pyarrow as pa

    other.dataset.add_columns(pa.schema([pa.field("vector", pa.list_(pa.float32(), 8))]))
    with pytest.raises(
        StoreChanged, match=r"type of the vectors was fixed_size_list<item: float>\[16\], now it is"
    ):
        Upgrade.create(replace(made, store=other.uri)).apply()


def test_tolerated_changes_are_tolerated(kit: Kit) -> None:
    upgrade = kit.upgrade(changed_rows=0.01)
    kit.table.add(kit.gallery([900, 901]))
    upgrade.apply()
    other = Kit(kit.folder.parent / "other").create()
    late = other.upgrade(changed_rows=0.01)
    other.table.add(kit.gallery([900, 901, 902]))
    with pytest.raises(StoreChanged):
        late.apply()


def test_another_adapter_than_planned_is_refused(kit: Kit) -> None:
    upgrade = kit.upgrade()
    assert upgrade.plan.adapter is not None
    path = Path(upgrade.plan.adapter.path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreChanged, match=r"the plan was made with SHA-256 .*, now it is"):
        upgrade.apply()
    path.unlink()
    with pytest.raises(UnreadableFile, match="the plan needs this adapter"):
        upgrade.apply()
    assert upgrade.status().state is State.PLANNED


def test_not_enough_disk_is_said_by_the_plan_and_refused_by_apply(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 0, 1000))
    upgrade = kit.upgrade()
    assert "NOT ENOUGH" in dict(upgrade.plan.summary())["disk"]
    with pytest.raises(
        OutOfSpace, match=r"KB are needed for 240 rows, 1\.0 KB are free; nothing was written"
    ):
        upgrade.apply()
    assert upgrade.status().state is State.PLANNED


def test_a_backfill_needs_its_encoder(kit: Kit) -> None:
    upgrade = kit.upgrade("backfill", items="text", new=NEW)
    with pytest.raises(UsageError, match=r"needs the encoder of new-model"):
        upgrade.apply()
    assert upgrade.status().state is State.PLANNED
    measured_speed = kit.plan("backfill", items="text", encoder=NewEncoder()).estimates
    assert measured_speed.rows_per_second > 0


def test_an_item_that_is_missing_is_reported(kit: Kit) -> None:
    kit.table.update(where="id = 9", values={"text": None})
    upgrade = kit.upgrade("backfill", items="text", new=NEW)
    with pytest.raises(
        InvalidVectors, match=r"1 rows cannot be given a new vector \(1 no item\); first ids: 9"
    ):
        upgrade.apply(encoder=NewEncoder())
