"""Thresholds carried over: a planted relation is recovered, ties and the sample's ends are respected."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.adapters import make_adapter
from crossfade.errors import DataError, DimensionMismatch, SpaceMismatch, UsageError, WrongDirection
from crossfade.evaluation.bridge import Bridge, Sample
from crossfade.evaluation.recalibration import (
    Recalibrated,
    quantile_map,
    recalibrate,
    recalibrate_bridge,
    scores_through,
)
from crossfade.spaces import Space
from crossfade.vectors import Vectors

OLD, NEW = Space("old-model", 8), Space("new-model", 12)


def scores(seed: int = 0, shape: tuple[int, int] = (200, 300)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def one(old: np.ndarray, new: np.ndarray, threshold: float, method: str = "quantile") -> Recalibrated:
    return recalibrate(old, new, [threshold], methods=[method], samples=200).thresholds[0]


# --- the relation -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["quantile", "isotonic"])
def test_a_planted_monotone_relation_is_recovered(method: str) -> None:
    old = scores()
    new = np.tanh(2 * old) * 0.4 + 0.3
    for threshold in (-0.7, 0.0, 0.45, 0.9):
        found = one(old, new, threshold, method)
        assert found.new == pytest.approx(np.tanh(2 * threshold) * 0.4 + 0.3, abs=1e-3)
        assert found.error is not None
        assert found.agreement is not None
        assert abs(found.error.value) < 0.002
        assert found.agreement.value > 0.998
        assert found.above_old == int((old >= threshold).sum())


def test_the_quantile_keeps_the_number_of_pairs_where_the_relation_is_noisy() -> None:
    rng = np.random.default_rng(3)
    old = scores()
    new = (old + rng.normal(0, 0.5, old.shape)).astype(np.float32)
    found, expected = one(old, new, 0.8), one(old, new, 0.8, "isotonic")
    assert found.new is not None
    count = int((old >= 0.8).sum())
    assert int((new >= found.new).sum()) == count
    assert found.error is not None
    assert found.error.low < 0 < found.error.high
    # pairs with an old score of 0.8 have one of 0.8 on the mean, and many that had less have it by chance
    assert expected.new == pytest.approx(0.8, abs=0.05)
    assert expected.error is not None
    assert expected.error.low > 0.2


def test_the_error_is_measured_on_queries_that_were_not_fitted_on() -> None:
    """Queries whose scores are shifted one by one: what fits one half misses the other by chance."""
    rng = np.random.default_rng(5)
    old = scores(shape=(20, 400))
    new = (old + rng.normal(0, 0.4, (20, 1))).astype(np.float32)
    found = one(old, new, 0.5)
    assert found.error is not None
    in_sample = (new >= found.new).sum() / (old >= 0.5).sum() - 1
    assert abs(in_sample) < 1e-3
    assert found.above_new != found.above_old
    assert found.error.high - found.error.low > 0.2


def test_the_same_seed_gives_the_same_figures() -> None:
    old, new = scores(1), scores(2)
    assert recalibrate(old, new, [0.3], seed=4) == recalibrate(old, new, [0.3], seed=4)


# --- ties and ends ----------------------------------------------------------------------------


def test_a_score_that_is_exactly_the_threshold_is_above() -> None:
    old = np.tile(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32), (10, 1))
    new = 10 * old
    assert quantile_map(old, new)(0.3) == pytest.approx(2.5)
    assert quantile_map(old, new)(0.31) == pytest.approx(3.5)


def test_ties_that_cannot_be_parted_stay_together() -> None:
    old = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]], dtype=np.float32)
    new = np.array([[0.0, 7.0, 7.0, 7.0, 9.0]], dtype=np.float32)
    mapped = quantile_map(old, new)
    assert mapped(0.4) == 8.0  # two are wanted; one is nearer than four
    assert mapped(0.3) == 3.5  # three are wanted; four are nearer than one
    assert mapped(0.2) == 3.5
    assert quantile_map(old, np.full_like(new, 7))(0.4) == 7.0  # no threshold parts them: all are above
    rounded = np.round(scores(), 1)
    found = one(rounded, rounded * 2 + 1, 0.5)
    assert found.error is not None
    assert found.error.value == 0
    assert found.new == pytest.approx(1.9, abs=0.01)


def test_neighbouring_floats_are_still_parted() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    new = np.array([[low, low, high]], dtype=np.float32)
    mapped = quantile_map(np.array([[0, 0, 1]], dtype=np.float32), new)(1.0)
    assert (new >= np.float32(mapped)).sum() == 1


@pytest.mark.parametrize("method", ["quantile", "isotonic"])
@pytest.mark.parametrize("threshold", [1.5, -1.5])
def test_a_threshold_outside_of_the_sample_is_not_extrapolated(method: str, threshold: float) -> None:
    found = one(scores(), scores(), threshold, method)
    assert (found.new, found.error, found.agreement) == (None, None, None)
    assert "outside of the sample, whose old scores go from -1 to 1" in found.note


def test_too_few_pairs_give_no_error() -> None:
    old = scores()
    threshold = float(np.sort(old, axis=None)[-4])
    found = one(old, old, threshold)
    assert found.new is not None
    assert found.error is None
    assert "pairs of the sample above it: 4, too few" in found.note


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"thresholds": []}, UsageError, "at least one"),
        ({"thresholds": [float("nan")]}, UsageError, "must be numbers"),
        ({"methods": ["spline"]}, UsageError, "'spline' is not one of quantile, isotonic"),
        ({"new": scores(shape=(200, 299))}, DataError, r"old scores are \(200, 300\)"),
        ({"old": scores()[:9], "new": scores()[:9]}, DataError, "9 queries and 300 items are too few"),
        ({"new": np.full((200, 300), np.nan, np.float32)}, DataError, "NaN or infinite"),
    ],
)
def test_bad_input(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"old": scores(), "new": scores(), "thresholds": [0.5], **arguments}
    with pytest.raises(error, match=message):
        recalibrate(**given)  # type: ignore[arg-type]


# --- through a bridge -------------------------------------------------------------------------


def items(count: int, seed: int = 0) -> Sample:
    """New vectors, of which the old ones are a part."""
    new = np.random.default_rng(seed).standard_normal((count, NEW.dimension)).astype(np.float32)
    ids = np.arange(count)
    return Sample(Vectors(ids, new[:, : OLD.dimension], OLD), Vectors(ids, new, NEW))


def fitted(direction: str) -> Bridge:
    old, new = items(2000, 9).old, items(2000, 9).new
    assert old is not None
    assert new is not None
    source, target = (old, new) if direction == "forward" else (new, old)
    adapter = make_adapter("ridge").fit(
        source.matrix, target.matrix, source=source.space, target=target.space
    )
    return Bridge.by(adapter, OLD)


def test_a_map_that_loses_nothing_leaves_every_threshold_where_it_is() -> None:
    """The old vector is a part of the new one: mapped back, a query is the old query."""
    found = recalibrate_bridge(fitted("backward"), items(40, 1), items(300), [0.6], samples=100)
    assert found.thresholds[0].new == pytest.approx(0.6, abs=0.01)
    assert found.thresholds[0].agreement is not None
    assert found.thresholds[0].agreement.value > 0.97
    assert (found.queries, found.items) == (40, 300)


def test_each_way_scores_what_it_would_search() -> None:
    queries, gallery = items(30, 1), items(50)
    assert queries.new is not None
    assert gallery.new is not None
    assert gallery.old is not None
    forward = fitted("forward")
    assert forward.kind == "gallery"
    assert forward.adapter is not None
    unit = queries.new.matrix / np.linalg.norm(queries.new.matrix, axis=1, keepdims=True)
    lifted = forward.adapter.transform(gallery.old.matrix)
    np.testing.assert_allclose(scores_through(forward, queries, gallery)[1], unit @ lifted.T, atol=1e-5)
    whole = gallery.new.matrix / np.linalg.norm(gallery.new.matrix, axis=1, keepdims=True)
    np.testing.assert_allclose(
        scores_through(Bridge("backfill"), queries, gallery)[1], unit @ whole.T, atol=1e-5
    )
    native = Sample(queries.old, queries.old)
    before, after = scores_through(Bridge("native"), native, Sample(gallery.old))
    np.testing.assert_array_equal(before, after)
    both = scores_through(Bridge.by(fitted("backward").adapter, OLD, weight=0.0), queries, gallery)  # type: ignore[arg-type]
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)


def test_without_queries_some_of_the_items_ask_for_the_others() -> None:
    found = recalibrate_bridge(Bridge("backfill"), None, items(101), [0.3], samples=50)
    assert (found.queries, found.items) == (50, 51)


def test_distances_are_smaller_where_scores_are_larger() -> None:
    queries, gallery = items(40, 1), items(300)
    by_score = recalibrate_bridge(Bridge("backfill"), queries, gallery, [0.6], samples=50).thresholds[0]
    by_distance = recalibrate_bridge(
        Bridge("backfill"), queries, gallery, [0.4], distances=True, samples=50
    ).thresholds[0]
    assert by_distance.old == 0.4
    assert by_score.new is not None
    assert by_distance.new == pytest.approx(1 - by_score.new)
    assert by_distance.error == by_score.error
    l2 = Sample(
        *(Vectors(one.ids, one.matrix, one.space.with_metric("l2")) for one in (gallery.old, gallery.new))
    )  # type: ignore[union-attr]
    asked = Sample(
        *(Vectors(one.ids, one.matrix, one.space.with_metric("l2")) for one in (queries.old, queries.new))
    )  # type: ignore[union-attr]
    found = recalibrate_bridge(Bridge("backfill"), asked, l2, [3.0, 99.0], distances=True, samples=50)
    near, far = found.thresholds
    assert near.old == 3.0
    new = np.linalg.norm(asked.new.matrix[:, None] - l2.new.matrix[None], axis=2)  # type: ignore[union-attr]
    old = np.linalg.norm(asked.old.matrix[:, None] - l2.old.matrix[None], axis=2)  # type: ignore[union-attr]
    assert int((new <= near.new).sum()) == int((old <= 3.0).sum())
    assert far.new is None
    assert "old distances go from" in far.note
    with pytest.raises(UsageError, match="Euclidean distance is not below 0"):
        recalibrate_bridge(Bridge("backfill"), asked, l2, [-1.0], distances=True)


def test_what_does_not_fit_is_refused() -> None:
    queries, gallery = items(30, 1), items(50)
    forward = fitted("forward").adapter
    assert forward is not None
    with pytest.raises(UsageError, match="a weight is for queries that are mapped back"):
        Bridge.by(forward, OLD, weight=0.5)
    with pytest.raises(WrongDirection, match="gallery is in other"):
        Bridge.by(forward, Space("other", 8))
    with pytest.raises(DimensionMismatch, match="as they are, but have 12 dimensions, not 8"):
        recalibrate_bridge(Bridge("native"), queries, gallery, [0.5])
    with pytest.raises(UsageError, match="gallery items are needed under the new model"):
        recalibrate_bridge(Bridge("backfill"), queries, Sample(gallery.old), [0.5])
    with pytest.raises(UsageError, match="queries are needed under the old model"):
        recalibrate_bridge(fitted("backward"), Sample(None, queries.new), gallery, [0.5])
    assert queries.new is not None
    foreign = Vectors(queries.new.ids, queries.new.matrix, Space("impostor", NEW.dimension))
    with pytest.raises(SpaceMismatch, match=r"queries of the new model.*impostor"):
        recalibrate_bridge(fitted("backward"), Sample(queries.old, foreign), gallery, [0.5])
    with pytest.raises(SpaceMismatch, match=r"queries of the new model.*impostor"):
        recalibrate_bridge(Bridge("backfill"), Sample(queries.old, foreign), gallery, [0.5])
