"""Rows of different origin in one ranking: old, lifted and re-embedded ones, whose scores do not compare.

A lifted vector is the mean of what the item's new vector may be: its scores vary less, and the same score
says another thing than that of a re-embedded row. An old row that a mapped query searches is scored in
another space altogether. Ways to bring them into one ranking:

* ``raw``: scores are compared as they are.
* ``z``: brought to the mean and the spread of re-embedded scores.
* ``quantile``: brought to the re-embedded score that is as rare.
* ``expected``: brought to the re-embedded score to expect of such a row (monotone regression on bins).
* ``ranks``: rows are ranked apart, by origin, and merged by reciprocal rank (Cormack et al., SIGIR 2009).

Which is best is measured: scales are fitted on one half of the queries and scored on the other, against the
ten items that the new model puts first where everything is re-embedded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UsageError
from crossfade.evaluation.bootstrap import Groups
from crossfade.evaluation.crossfit import assign_folds
from crossfade.evaluation.estimates import Difference, Estimate
from crossfade.evaluation.ground_truth import Neighbours
from crossfade.evaluation.measure import NEIGHBOURS, Measurer
from crossfade.evaluation.paired import paired_rows
from crossfade.evaluation.rows import Scores, best_first, take_out
from crossfade.vectors import FloatMatrix

RAW, Z, QUANTILE, EXPECTED, RANKS = "raw", "z", "quantile", "expected", "ranks"
METHODS = (RAW, Z, QUANTILE, EXPECTED, RANKS)
"""In order of preference: the first of equally good ones is taken."""
RE_EMBEDDED, LIFTED, OLD = 0, 1, 2
ORIGINS = ("re-embedded", "lifted", "old")
Origins = NDArray[np.integer]
AGREEMENT = f"agreement@{NEIGHBOURS}"
RANK_OFFSET = 60
KNOTS = 41
RAREST = 20
"""Pairs above the last knot of a scale, and below the first: beyond them it goes on in a straight line."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Scores of one origin on the scale of re-embedded rows: a rising line through knots, straight beyond.

    Attributes:
        x, y: rising scores of the origin, and what they become.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, scores: Scores) -> NDArray[np.float64]:
        """The scores, brought to the other scale; their order stays."""
        x, y = np.asarray(self.x), np.asarray(self.y)
        with np.errstate(invalid="ignore"):  # a query's own item scores minus infinity
            inside = np.interp(scores, x, y)
            slope_below, slope_above = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])
            below = y[0] + (scores - x[0]) * slope_below
            above = y[-1] + (scores - x[-1]) * slope_above
        made: NDArray[np.float64] = np.where(scores < x[0], below, np.where(scores > x[-1], above, inside))
        return made


def fit_scale(method: str, own: FloatMatrix, new: FloatMatrix) -> Scale:
    """The scale of an origin, from scores of the same pairs (P,) as they are there and re-embedded.

    Raises:
        UsageError: the scores of the origin do not vary.
    """
    if method == Z:
        spread = float(own.std()) or 0.0
        x = (float(own.mean()) - spread, float(own.mean()) + spread)
        return _rising(x, (float(new.mean()) - float(new.std()), float(new.mean()) + float(new.std())))
    shares = _shares(own.size)
    if method == QUANTILE:
        return _rising(np.quantile(own, shares), np.quantile(new, shares))
    order = np.argsort(own, kind="stable")
    bins = np.array_split(order, np.unique(np.round(shares * own.size).astype(np.int64)))
    means = [(own[rows].mean(), new[rows].mean()) for rows in bins if len(rows)]
    before, after = np.array(means).T
    return _rising(before, np.maximum.accumulate(after))


def _shares(pairs: int) -> NDArray[np.float64]:
    """Shares of pairs at the knots, close together where scores are high, which is what a search shows."""
    rarest = min(0.1, RAREST / pairs)
    upper = 1 - np.geomspace(0.5, rarest, KNOTS)
    return np.concatenate([[rarest, 0.1, 0.25], upper])


def _rising(x: Any, y: Any) -> Scale:
    """A scale through the points; where they do not rise it still does, a little, to keep the order."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.concatenate([[True], np.diff(x) > 0])
    x, y = x[kept], np.maximum.accumulate(y[kept])
    if len(x) < 2:
        raise UsageError("the scores of the sample do not vary; take more items and queries")
    least = 1e-6 * max(float(y[-1] - y[0]), 1e-6) / (x[-1] - x[0])
    y = y + least * (x - x[0])
    return Scale(tuple(x.tolist()), tuple(y.tolist()))


@dataclass(frozen=True)
class Merge:
    """One way to bring rows of several origins into one ranking.

    Attributes:
        method: raw, z, quantile, expected or ranks.
        scales: of the origins that need one, by name.
    """

    method: str = RAW
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def __call__(self, scores: Scores, origins: Origins) -> Scores:
        """(b, N) scores of rows, comparable across their `origins` (N,), of which each is one of `ORIGINS`.

        Minus infinity, a query's own item, stays.
        """
        if self.method == RAW:
            return scores
        made = np.array(scores, dtype=np.float64)
        for origin in np.unique(origins):
            chosen = origins == origin
            if self.method == RANKS:
                made[:, chosen] = _reciprocal_ranks(scores[:, chosen])
            elif (scale := self.scales.get(ORIGINS[origin])) is not None:
                made[:, chosen] = scale(scores[:, chosen])
        return np.where(np.isneginf(scores), -np.inf, made)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        scales = {name: {"x": list(scale.x), "y": list(scale.y)} for name, scale in self.scales.items()}
        return {"method": self.method, "scales": scales}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Merge:
        """Read what `to_dict` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is nothing of the kind.
        """
        scales = {
            name: Scale(tuple(map(float, scale["x"])), tuple(map(float, scale["y"])))
            for name, scale in values["scales"].items()
        }
        if values["method"] not in METHODS or not set(scales) <= set(ORIGINS):
            raise ValueError(f"merge {values['method']!r} is not known")
        if any(len(one.x) != len(one.y) or len(one.x) < 2 for one in scales.values()):
            raise ValueError("a scale needs as many values as scores, at least two")
        if not all(np.isfinite(one.y).all() and (np.diff(one.x) > 0).all() for one in scales.values()):
            raise ValueError("the scores of a scale do not rise, or are no numbers")
        return cls(values["method"], scales)


def _reciprocal_ranks(scores: Scores) -> NDArray[np.float64]:
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, scores.shape[1] + 1)[None, :], axis=1)
    reciprocal: NDArray[np.float64] = 1 / (RANK_OFFSET + ranks)
    return reciprocal


def fit_merge(
    method: str, scores: Mapping[int, FloatMatrix], own: NDArray[np.integer] | None = None
) -> Merge:
    """A merge whose scales are fitted on the scores (Q, N) of the same pairs, by origin.

    Args:
        own: (Q,) the query's own place in the gallery, -1 for none: that pair is left out.
    """
    if method in (RAW, RANKS):
        return Merge(method)
    pairs = np.ones(scores[RE_EMBEDDED].shape, dtype=np.bool_)
    take_out(pairs, own, slice(0, len(pairs)), False)
    new = scores[RE_EMBEDDED][pairs]
    scales = {
        ORIGINS[one]: fit_scale(method, given[pairs], new)
        for one, given in scores.items()
        if one != RE_EMBEDDED
    }
    return Merge(method, scales)


# --- choosing ---------------------------------------------------------------------------------


class MixedRows:
    """Every merge on a mixed gallery, each query scored with scales that the other half of the queries gave.

    Args:
        scores: (Q, N) of every row as each origin would score it.
        origins: (N,) origin of every row.
        own: (Q,) the query's own place in the gallery, -1 for none; None if no query is in it.
        seed: of the halves.
        prefix: of the keys; the rest is the method.
        methods: the merges.
    """

    def __init__(
        self,
        scores: Mapping[int, FloatMatrix],
        origins: Origins,
        own: NDArray[np.integer] | None = None,
        seed: int = 0,
        prefix: str = "",
        methods: Sequence[str] = METHODS,
    ) -> None:
        self._scores, self._origins, self._own, self._prefix = scores, origins, own, prefix
        self.folds = assign_folds(len(scores[RE_EMBEDDED]), seed)
        self._merges = {method: [self._without(method, fold) for fold in (0, 1)] for method in methods}

    def _without(self, method: str, fold: int) -> Merge:
        rows = np.flatnonzero(self.folds != fold)
        own = None if self._own is None else self._own[rows]
        return fit_merge(method, {one: scores[rows] for one, scores in self._scores.items()}, own)

    def blocks(self, rows: slice) -> Iterator[tuple[str, Scores]]:
        """(prefix + method, scores (b, N)) for the queries in `rows`."""
        mixed, folds = self._mixed(rows), self.folds[rows]
        for method, merges in self._merges.items():
            made = np.empty(mixed.shape, dtype=np.float64)
            for fold, merge in enumerate(merges):
                made[folds == fold] = merge(mixed[folds == fold], self._origins)
            yield self._prefix + method, made

    def _mixed(self, rows: slice) -> FloatMatrix:
        """(b, N) scores as they are, each row's of its own origin."""
        block = np.empty((len(self.folds[rows]), len(self._origins)), dtype=np.float32)
        for origin in np.unique(self._origins):
            chosen = self._origins == origin
            block[:, chosen] = self._scores[int(origin)][rows][:, chosen]
        take_out(block, self._own, rows, -np.inf)
        return block


@dataclass(frozen=True)
class MergeChoice:
    """The best merge, and how good each is.

    Attributes:
        merge: fitted on all queries.
        quality: share of the new model's own ten nearest that each finds, by method, on held-out queries.
        against_raw: the same as a paired difference to raw scores.
        queries, items: of the sample.
        share: of the items that counted as re-embedded.
    """

    merge: Merge
    quality: Mapping[str, Estimate]
    against_raw: Mapping[str, Difference]
    queries: int
    items: int
    share: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "merge": self.merge.to_dict(),
            "quality": {name: one.to_dict() for name, one in self.quality.items()},
            "against raw": {name: one.to_dict() for name, one in self.against_raw.items()},
            "queries": self.queries,
            "items": self.items,
            "share": self.share,
        }


def merge_values(
    scores: Mapping[int, FloatMatrix],
    origins: Origins,
    *,
    own: NDArray[np.integer] | None = None,
    seed: int = 0,
    methods: Sequence[str] = METHODS,
) -> dict[str, NDArray[np.float64]]:
    """(Q,) share of the new model's own ten nearest that each merge finds, by method, on held-out queries.

    Takes what `choose_merge` takes.
    """
    rows = MixedRows(scores, origins, own, seed, methods=methods)
    measured = Measurer(_nearest(scores[RE_EMBEDDED], own), own)(rows)
    return {method: measured[method].values[AGREEMENT] for method in methods}


def best_method(values: Mapping[str, NDArray[np.float64]]) -> str:
    """The merge of the highest mean over queries (Q,); the first of equally good ones."""
    return max(values, key=lambda method: float(values[method].mean()))


def choose_merge(
    scores: Mapping[int, FloatMatrix],
    origins: Origins,
    *,
    own: NDArray[np.integer] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> MergeChoice:
    """The merge that imitates a full backfill best, without labels.

    Args:
        scores: (Q, N) of every row as each origin would score it, re-embedded among them.
        origins: (N,) origin of every row.
        own: (Q,) the query's own place in the gallery, -1 for none; None if no query is in it.
        samples: bootstrap resamples.
        seed: of halves and resamples.
    """
    queries, items = scores[RE_EMBEDDED].shape
    values = merge_values(scores, origins, own=own, seed=seed)
    paired = paired_rows({AGREEMENT: values}, Groups(queries), samples=samples, seed=seed)[AGREEMENT]
    return MergeChoice(
        fit_merge(best_method(values), scores, own),
        {method: paired.estimate(method) for method in METHODS},
        {method: paired.difference(method, RAW) for method in METHODS if method != RAW},
        queries,
        items,
        float((origins == RE_EMBEDDED).mean()),
    )


def _nearest(scores: FloatMatrix, own: NDArray[np.integer] | None) -> Neighbours:
    block = scores.copy()
    take_out(block, own, slice(0, len(block)), -np.inf)
    items = best_first(block, NEIGHBOURS)
    queries = np.repeat(np.arange(len(block)), items.shape[1])
    return Neighbours(len(block), block.shape[1], queries, items.ravel())
