"""Score thresholds of an application, carried over from old scores to new ones on a sample.

A threshold on similarity ("show nothing below 0.8", "above 0.95 is a duplicate") means nothing once the
vectors behind the scores have changed. Two ways to carry it over:

* ``quantile``: the new threshold has as many pairs of query and item above it as the old one had.
* ``isotonic``: the new score to expect of a pair whose old score is the threshold (isotonic regression).
  Where the two scores of a pair differ by much, pairs regress to the mean, and another number is above it.

Both are scored on queries that they were not fitted on: one half of the queries is scored with what the
other half says, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DataError, UsageError
from crossfade.evaluation.bootstrap import Groups, bootstrap_means, interval
from crossfade.evaluation.bridge import Bridge, Sample, require_alike
from crossfade.evaluation.crossfit import assign_folds
from crossfade.evaluation.estimates import Estimate
from crossfade.evaluation.scoring import Scorer
from crossfade.extras import load
from crossfade.spaces import Metric
from crossfade.vectors import FloatMatrix

QUANTILE, ISOTONIC = "quantile", "isotonic"
METHODS = (QUANTILE, ISOTONIC)
LEAST_PAIRS = 10
"""Pairs above a threshold that an error needs to be said at all."""
LEAST_QUERIES = 10
MOST_QUERIES, MOST_ITEMS = 1000, 10_000
"""A sample of ten million pairs; more change the last digits and cost memory."""
ThresholdMap = Callable[[float], float | None]


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """One threshold, carried over in one way.

    Attributes:
        method: quantile or isotonic.
        old, new: the threshold on old and on new scores; `new` is None where the sample does not reach.
        above_old, above_new: held-out pairs whose score is at least the threshold.
        error: how many more pairs are above the new threshold than above the old one, as a share of those
            above the old one, on held-out queries; None if too few are.
        agreement: of the pairs above either threshold, how far they are the same ones (Dice coefficient), on
            held-out queries.
        note: what keeps a figure from being given.
    """

    method: str
    old: float
    new: float | None
    above_old: int = 0
    above_new: int = 0
    error: Estimate | None = None
    agreement: Estimate | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Recalibration:
    """All thresholds, and the sample they were carried over on.

    Attributes:
        queries, items: of the sample; every query with every item is a pair.
        old_range, new_range: lowest and highest score of the pairs.
    """

    thresholds: tuple[Recalibrated, ...]
    queries: int
    items: int
    old_range: tuple[float, float]
    new_range: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "thresholds": [one.to_dict() for one in self.thresholds]}


def recalibrate(
    old: FloatMatrix,
    new: FloatMatrix,
    thresholds: Sequence[float],
    *,
    methods: Sequence[str] = (QUANTILE,),
    samples: int = 1000,
    seed: int = 0,
    groups: NDArray[np.integer] | None = None,
) -> Recalibration:
    """Carry thresholds over from old to new scores of the same pairs.

    Args:
        old, new: (Q, N) scores of Q queries and N items, higher is better.
        thresholds: on the old scores; a pair with exactly this score is above.
        methods: quantile, isotonic or both.
        samples: bootstrap resamples of queries.
        seed: of the halves and the resamples.
        groups: (Q,) queries that belong together.

    Raises:
        UsageError: no threshold, one that is no number, or a method that is not known.
        DataError: the scores are not of the same pairs, not finite, or of fewer than ten queries.
        MissingExtra: isotonic without scikit-learn.
    """
    _require(old, new, thresholds, methods)
    fold = assign_folds(len(old), seed, groups)
    halves = [np.flatnonzero(fold != one) for one in (0, 1)]
    made = []
    for method in methods:
        fit = _METHODS[method]
        final, held_out = fit(old, new), [fit(old[rows], new[rows]) for rows in halves]
        for threshold in thresholds:
            by_fold = [one(threshold) for one in held_out]
            tally = _tally(old, new, threshold, by_fold, fold)
            found = Recalibrated(method, threshold, final(threshold))
            made.append(_scored(found, tally, old, samples, seed, Groups(len(old), groups)))
    return Recalibration(tuple(made), len(old), old.shape[1], _range(old), _range(new))


def recalibrate_bridge(
    bridge: Bridge,
    queries: Sample | None,
    gallery: Sample,
    thresholds: Sequence[float],
    *,
    methods: Sequence[str] = (QUANTILE,),
    distances: bool = False,
    samples: int = 1000,
    seed: int = 0,
) -> Recalibration:
    """Carry thresholds over to what answers through a bridge.

    Args:
        bridge: how new queries meet the gallery.
        queries: under both models; None to let some of the gallery's items ask for the others. At most
            1,000 queries and 10,000 items are taken, at random.
        gallery: items under the old model, and under the new one where the bridge asks for it.
        thresholds: see `recalibrate`.
        distances: thresholds are distances, smaller is nearer: 1 - cosine, the Euclidean distance, or the
            negative inner product; so are the new ones, and "above" then means nearer.

    Raises:
        UsageError: vectors are missing, or see `recalibrate`.
        SpaceError: vectors of another space.
    """
    rng = np.random.default_rng(seed)
    if queries is None:
        order = rng.permutation(len(gallery))
        asking = min(MOST_QUERIES, len(gallery) // 2)
        queries, gallery = gallery.take(order[:asking]), gallery.take(order[asking:])
    queries, gallery = queries.some(MOST_QUERIES, rng), gallery.some(MOST_ITEMS, rng)
    old, new = scores_through(bridge, queries, gallery)
    metrics = _metrics(bridge, queries, gallery)
    wanted = [_score(one, metrics[0]) for one in thresholds] if distances else thresholds
    found = recalibrate(old, new, wanted, methods=methods, samples=samples, seed=seed)
    return _in_distances(found, *metrics) if distances else found


def scores_through(bridge: Bridge, queries: Sample, gallery: Sample) -> tuple[FloatMatrix, FloatMatrix]:
    """(Q, N) scores of the old model on its gallery, and through the bridge."""
    old_queries, old_items = queries.under_old("queries"), gallery.under_old("gallery items")
    bridge.require_searchable(old_items.space, queries.under_new("queries").space)
    require_alike(old_queries.space, old_items.space, "queries of the old model")
    if bridge.kind == "backfill":
        new = queries.under_new("queries").space, gallery.under_new("gallery items").space
        require_alike(*new, "queries of the new model")
    metrics = _metrics(bridge, queries, gallery)
    old = Scorer(old_items.matrix, metrics[0]).scores(old_queries.matrix)
    return old, Scorer(bridge.searched(gallery), metrics[1]).scores(bridge.asking(queries))


def _metrics(bridge: Bridge, queries: Sample, gallery: Sample) -> tuple[Metric, Metric]:
    old, new = gallery.under_old("gallery items").space, queries.under_new("queries").space
    return old.metric, bridge.metric(old, new)


# --- fitting ----------------------------------------------------------------------------------


def quantile_map(old: FloatMatrix, new: FloatMatrix) -> ThresholdMap:
    """Thresholds with equally many pairs above; None where no pair, or every pair, is above the old one."""
    before, after = np.sort(old, axis=None), np.sort(new, axis=None)
    total = len(after)

    def mapped(threshold: float) -> float | None:
        count = total - int(np.searchsorted(before, np.float32(threshold), side="left"))
        return None if count in (0, total) else _threshold_above(after, count)

    return mapped


def _threshold_above(ascending: FloatMatrix, count: int) -> float:
    """A threshold with `count` scores above it, or as nearly as ties allow, midway between two scores."""
    total = len(ascending)
    at = ascending[total - count]
    more = total - int(np.searchsorted(ascending, at, side="left"))
    fewer = total - int(np.searchsorted(ascending, at, side="right"))
    count = fewer if fewer > 0 and count - fewer < more - count else more
    lowest = ascending[total - count]
    below = ascending[total - count - 1] if count < total else lowest
    middle = np.float32((float(lowest) + float(below)) / 2)
    return float(middle if middle > below else lowest)


def isotonic_map(old: FloatMatrix, new: FloatMatrix) -> ThresholdMap:
    """The new score to expect of an old one; None outside of the old scores."""
    regression = load("sklearn.isotonic", "recalibrate").IsotonicRegression(out_of_bounds="nan")
    regression.fit(old.ravel(), new.ravel())

    def mapped(threshold: float) -> float | None:
        expected = float(regression.predict(np.array([threshold], dtype=np.float32))[0])
        return expected if np.isfinite(expected) else None

    return mapped


_METHODS: dict[str, Callable[[FloatMatrix, FloatMatrix], ThresholdMap]] = {
    QUANTILE: quantile_map,
    ISOTONIC: isotonic_map,
}


# --- scoring on held-out queries --------------------------------------------------------------


def _tally(
    old: FloatMatrix,
    new: FloatMatrix,
    threshold: float,
    by_fold: Sequence[float | None],
    fold: NDArray[np.intp],
) -> NDArray[np.float64] | None:
    """(3, Q) pairs per query above the old threshold, the new one, both; None if a half has no threshold."""
    limits = [one for one in by_fold if one is not None]
    if len(limits) < len(by_fold):
        return None
    limit = np.asarray(limits, dtype=np.float32)[fold]
    above_old, above_new = old >= np.float32(threshold), new >= limit[:, None]
    both = above_old & above_new
    return np.stack([one.sum(axis=1) for one in (above_old, above_new, both)]).astype(np.float64)


def _scored(
    found: Recalibrated,
    tally: NDArray[np.float64] | None,
    old: FloatMatrix,
    samples: int,
    seed: int,
    groups: Groups,
) -> Recalibrated:
    if found.new is None:
        low, high = _range(old)
        return _noted(found, f"outside of the sample, whose old scores go from {low:.4g} to {high:.4g}")
    if tally is None or tally[0].sum() < LEAST_PAIRS:
        count = int((old >= np.float32(found.old)).sum())
        return _noted(found, f"pairs of the sample above it: {count}, too few to state an error")
    drawn = bootstrap_means(tally, samples=samples, seed=seed, groups=groups)
    above_old, above_new, both = tally.sum(axis=1)
    usable = drawn[drawn[:, 0] > 0]
    error = usable[:, 1] / usable[:, 0] - 1
    agreement = 2 * usable[:, 2] / (usable[:, 0] + usable[:, 1])
    return Recalibrated(
        found.method,
        found.old,
        found.new,
        int(above_old),
        int(above_new),
        Estimate(float(above_new / above_old - 1), *interval(error)),
        Estimate(float(2 * both / (above_old + above_new)), *interval(agreement)),
    )


def _noted(found: Recalibrated, note: str) -> Recalibrated:
    return Recalibrated(found.method, found.old, found.new, note=note)


def _range(scores: FloatMatrix) -> tuple[float, float]:
    return float(scores.min()), float(scores.max())


def _require(old: FloatMatrix, new: FloatMatrix, thresholds: Sequence[float], methods: Sequence[str]) -> None:
    if not thresholds or not np.isfinite(thresholds).all():
        raise UsageError(f"thresholds must be numbers, at least one, got {list(thresholds)}")
    for method in methods:
        if method not in METHODS:
            raise UsageError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if old.shape != new.shape or old.ndim != 2:
        raise DataError(f"old scores are {old.shape}, new scores {new.shape}; pass those of the same pairs")
    if len(old) < LEAST_QUERIES or not old.shape[1]:
        raise DataError(
            f"{len(old)} queries and {old.shape[1]} items are too few to carry a threshold over; at least "
            f"{LEAST_QUERIES} queries and one item are needed, and hundreds give narrower intervals"
        )
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        raise DataError("some scores are NaN or infinite; look at the vectors with crossfade inspect")


# --- distances --------------------------------------------------------------------------------


def _score(distance: float, metric: Metric) -> float:
    if metric == "l2":
        if distance < 0:
            raise UsageError(f"a Euclidean distance is not below 0, got {distance:g}")
        return -distance * distance
    return 1 - distance if metric == "cosine" else -distance


def _distance(score: float, metric: Metric) -> float:
    if metric == "l2":
        return float(np.sqrt(max(0.0, -score)))
    return 1 - score if metric == "cosine" else -score


def _in_distances(found: Recalibration, old: Metric, new: Metric) -> Recalibration:
    low, high = found.old_range
    reach = f"{_distance(high, old):.4g} to {_distance(low, old):.4g}"
    thresholds = tuple(
        Recalibrated(
            one.method,
            round(_distance(one.old, old), 12),
            None if one.new is None else _distance(one.new, new),
            one.above_old,
            one.above_new,
            one.error,
            one.agreement,
            f"outside of the sample, whose old distances go from {reach}" if one.new is None else one.note,
        )
        for one in found.thresholds
    )
    return Recalibration(
        thresholds,
        found.queries,
        found.items,
        (_distance(high, old), _distance(low, old)),
        (_distance(found.new_range[1], new), _distance(found.new_range[0], new)),
    )
