"""The backfill curve as a partial backfill is searched: levelled, merged, chosen on items nobody has seen."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from planted import NEW, OLD, unit, vectors

from crossfade.adapters import Adapter, make_adapter
from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.evaluation import BackfillCurve, RetrievalTask, backfill_curve, evaluate, self_search_task
from crossfade.evaluation.curves import RAW_UNCERTAINTY
from crossfade.evaluation.merging import LIFTED, RE_EMBEDDED
from crossfade.evaluation.mixture import HeldOut, Ways
from crossfade.evaluation.unseen import unseen_items
from crossfade.vectors import ArrayPairs

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@cache
def upgrade(
    n: int = 300, n_pairs: int = 1500, n_held_out: int = 800
) -> tuple[RetrievalTask, list[ArrayPairs]]:
    """A new model that sees more of a class than the old one, and all of whose vectors share a direction."""
    rng, count = np.random.default_rng(0), n + n_pairs + n_held_out
    labels = rng.integers(15, size=count)
    scale, common = np.linspace(1.5, 0.05, 32), 3 * np.eye(32)[0]
    known = 0.3 * rng.standard_normal((15, 24))[labels] + 0.6 * rng.standard_normal((count, 24))
    seen = known @ rng.standard_normal((24, 32)) / np.sqrt(24)
    more = 1.2 * rng.standard_normal((15, 32))[labels] + 1.0 * rng.standard_normal((count, 32))
    new = unit(common + (seen + more) * scale)
    old = unit(known)
    task = self_search_task(vectors(old[:n], OLD), vectors(new[:n], NEW), labels[:n])
    parts = slice(n, n + n_pairs), slice(n + n_pairs, count)
    return task, [ArrayPairs(old[part], new[part], source=OLD, target=NEW) for part in parts]


@cache
def ridge() -> Adapter:
    return make_adapter("ridge").fit_pairs(upgrade()[1][0])


@cache
def held_out() -> HeldOut:
    rest = upgrade()[1][1]
    return HeldOut.by(ridge(), rest.X, rest.Y, "cosine", "800 held-out items")


@cache
def served() -> BackfillCurve:
    return backfill_curve(upgrade()[0], ridge(), held_out=held_out(), shares=SHARES, samples=300)


def test_a_point_is_a_search_of_what_a_partial_backfill_writes() -> None:
    (task, _), curve, found = upgrade(), served(), Ways(held_out())
    classes = task.ground_truth.gallery_classes  # type: ignore[attr-defined]
    first = np.argsort(-ridge().uncertainty(task.gallery_old.matrix), kind="stable")
    assert curve.ways[0] == curve.ways[-1] == "raw"
    for place, share in list(enumerate(SHARES))[1:-1]:
        way, again = found.at(share), first[: round(share * len(first))]
        assert way.level is not None
        assert curve.ways[place] == way.name
        gallery, origins = way.level(ridge().transform(task.gallery_old.matrix)), np.full(len(first), LIFTED)
        gallery[again], origins[again] = task.gallery_new.matrix[again], RE_EMBEDDED
        scores = way.merge(task.queries_new.matrix @ gallery.T, origins)
        precisions = []
        for row in range(len(scores)):
            order = np.argsort(-scores[row], kind="stable")
            right = (classes[order] == classes[row])[order != row]
            precisions.append((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean())
        value = curve.order("uncertainty").values["mAP"][place].value
        assert value == pytest.approx(np.mean(precisions), abs=1e-5)


def test_raw_scores_stand_beside_it_with_their_interval() -> None:
    task, curve = upgrade()[0], served()
    plain = backfill_curve(task, ridge(), shares=SHARES, samples=300)
    assert plain.raw is None
    assert plain.ways == ()
    assert curve.raw is not None
    assert curve.raw.name == RAW_UNCERTAINTY
    assert [one.value for one in curve.raw.values["mAP"]] == pytest.approx(
        [one.value for one in plain.order("uncertainty").values["mAP"]]
    )
    assert all(one.low < one.value < one.high for one in curve.raw.values["mAP"])
    over = curve.over_raw["mAP"]
    assert over.significantly_better, "raw scores let lifted rows crowd out re-embedded ones"
    areas = curve.order("uncertainty").area["mAP"].value, curve.raw.area["mAP"].value
    assert over.value == pytest.approx(areas[0] - areas[1])
    middle = [one.values["mAP"][2].value for one in (curve.order("uncertainty"), curve.raw)]
    assert middle[0] > middle[1] + 0.01


def test_a_share_is_read_off_the_curve_that_is_asked_for() -> None:
    curve = served()
    merged, raw = curve.share_for(0.9), curve.share_for(0.9, order=RAW_UNCERTAINTY)
    assert merged < raw
    assert curve.at(0.5)[0] == curve.order("uncertainty").values["mAP"][2]
    assert curve.raw is not None
    assert curve.at(0.5, order=RAW_UNCERTAINTY)[0] == curve.raw.values["mAP"][2]
    assert curve.way_at(0.6) == curve.ways[2] != "raw"
    assert curve.way_at(0.6, order=RAW_UNCERTAINTY) == "raw"


def test_the_way_of_a_curve_is_the_way_of_a_plan() -> None:
    ways = Ways(held_out())
    for share in (0.1, 0.6):
        plain, levelled = ways.measured(share)
        chosen = levelled or plain
        assert ways.at(share).merge == chosen.merge
        assert (ways.at(share).level is None) == (levelled is None)


def test_curves_survive_json_and_those_written_before_are_read() -> None:
    curve = served()
    written = json.loads(json.dumps(curve.to_dict()))
    assert BackfillCurve.from_dict(written) == curve
    before = {
        name: one for name, one in written.items() if name not in ("ways", "raw", "over_raw", "held_out")
    }
    read = BackfillCurve.from_dict(before)
    assert (read.ways, read.raw) == ((), None)
    assert read.order(RAW_UNCERTAINTY) == read.order("uncertainty")


# --- items that nobody has seen ---------------------------------------------------------------


def test_a_stand_in_lifts_pairs_that_it_was_not_fitted_on() -> None:
    task, (pairs, _) = upgrade()
    found, reason = unseen_items(task, ridge(), pairs, seed=3)
    assert found is not None
    assert (len(found), reason) == (400, "")
    assert found.origin == "400 of the pairs, lifted by a ridge map that was fitted on the other 1,100"
    rows = {row.tobytes(): place for place, row in enumerate(pairs.Y)}
    chosen = np.array([rows[row.tobytes()] for row in found.new])
    assert len(set(chosen.tolist())) == 400
    rest = pairs.take(np.setdiff1d(np.arange(len(pairs)), chosen))
    expected = make_adapter("ridge", seed=3).fit_pairs(rest).transform(pairs.X[chosen])
    np.testing.assert_allclose(found.lifted, expected, atol=1e-5)
    assert not np.allclose(found.lifted, ridge().transform(pairs.X[chosen]), atol=1e-5)


def test_queries_and_gallery_are_not_chosen_on() -> None:
    task, (pairs, rest) = upgrade()
    whole = ArrayPairs(
        np.concatenate([task.gallery_old.matrix, rest.X]),
        np.concatenate([task.gallery_new.matrix, rest.Y]),
        source=OLD,
        target=NEW,
    )
    found, _ = unseen_items(task, ridge(), pairs, held_out=whole)
    assert found is not None
    assert len(found) == len(rest)
    gallery = {row.tobytes() for row in task.gallery_new.matrix}
    assert not any(row.tobytes() in gallery for row in found.new)
    own = ArrayPairs(task.gallery_old.matrix, task.gallery_new.matrix, source=OLD, target=NEW)
    nothing, reason = unseen_items(task, ridge(), own)
    assert nothing is None
    assert reason.startswith("0 items that are neither queries nor in the gallery are too few")


def test_a_map_from_elsewhere_is_taken_not_to_have_seen_the_pairs() -> None:
    task, (_, rest) = upgrade()
    found, _ = unseen_items(task, ridge(), rest, elsewhere=True)
    assert found is not None
    assert found.origin == "800 pairs, which a map fitted before is taken not to have seen"
    np.testing.assert_allclose(np.sort(found.uncertainty), np.sort(ridge().uncertainty(rest.X)), rtol=1e-5)


def test_where_nothing_can_be_chosen_the_curve_is_raw_and_says_why() -> None:
    task, (pairs, _) = upgrade()
    few = pairs.take(np.arange(700))
    for adapter, given, expected in (
        (ridge(), few, "700 pairs are too few to leave 400 out of the fit; at least 800 are needed"),
        (ridge(), None, "there are no items beside the queries and the gallery"),
        (make_adapter("procrustes").fit_pairs(pairs), pairs, "procrustes predicts none"),
    ):
        found, reason = unseen_items(task, adapter, given)
        assert found is None
        assert expected in reason
        curve = backfill_curve(task, adapter, reason=reason, shares=(0.0, 0.5, 1.0), samples=50, draws=1)
        assert (curve.ways, curve.raw, curve.held_out) == ((), None, reason)


def test_a_map_with_side_information_is_searched_raw() -> None:
    task, (pairs, _) = upgrade()
    rng = np.random.default_rng(0)
    side = rng.standard_normal((len(pairs), 4)).astype(np.float32)
    made = ForwardTransformation(inner=16, epochs=1, warm_up_epochs=0, batch_rows=256)
    adapter = made.fit(pairs.X, pairs.Y, source=OLD, target=NEW, side=side)
    assert unseen_items(task, adapter, pairs) == (
        None,
        "a plan brings no scores together for a map that takes side-information",
    )


def test_an_evaluation_measures_what_would_be_served() -> None:
    task, (pairs, rest) = upgrade()
    options = {"methods": ["ridge"], "depths": (5,), "samples": 100, "curves": True}
    (by_pairs,) = evaluate([task], pairs, **options).curves  # type: ignore[arg-type]
    assert by_pairs.raw is not None
    assert "fitted on the other 1,100" in by_pairs.held_out
    (by_held_out,) = evaluate([task], pairs, held_out=rest, **options).curves  # type: ignore[arg-type]
    assert by_held_out.held_out == "800 held-out items"
    assert by_held_out.over_raw["mAP"].value > 0
