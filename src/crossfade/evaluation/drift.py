"""Whether a bridge serves recent queries as well as those that it was measured on.

Three measures, a value per query, all of them larger where it is better:

* ``agreement``: share of the new model's own ten nearest items of a fixed, kept sample that the bridge finds
  among its first ten. It needs the queries under the new model alone.
* ``nearness``: similarity of the query to the nearest item of that sample under the new model. It falls
  where queries are unlike anything that was kept, and where the new model is not the same any more.
* ``fidelity``: similarity of the mapped vector to the one that it stands for. It needs the queries under
  both models.

Recent and kept queries are compared by a permutation test of the difference of means, one-sided: if both are
random samples of the same queries, the chance of an alarm is at most the stated rate, whatever the values'
distribution (Fisher, 1935; Phipson and Smyth, 2010, for the p value of a random subset of permutations).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.bootstrap import bootstrap_means, interval
from crossfade.evaluation.bridge import Bridge, Sample
from crossfade.evaluation.estimates import Difference
from crossfade.evaluation.scoring import Scorer, query_blocks
from crossfade.spaces import Metric
from crossfade.vectors import FloatMatrix, Vectors

AGREEMENT, NEARNESS, FIDELITY = "agreement", "nearness", "fidelity"
NEIGHBOURS = 10
PERMUTATIONS = 10_000
CHUNK_NUMBERS = 4 << 20
POWER = 0.8
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """One measure on recent queries against the kept ones.

    Attributes:
        name: agreement, nearness or fidelity.
        kept, recent: means.
        difference: recent minus kept, with its 95 % interval and the one-sided p value that it is a decay.
        noticed: the decay that samples of these sizes notice four times out of five.
        alarm: whether it is a decay, at this measure's share of the false alarm rate.
    """

    name: str
    kept: float
    recent: float
    difference: Difference
    noticed: float
    alarm: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def measure_bridge(bridge: Bridge, gallery: Sample, queries: Sample) -> dict[str, Values]:
    """(Q,) values of every measure that the queries' vectors allow.

    Args:
        gallery: kept items, under both models.
        queries: under the new model, and under the old one if fidelity is to be measured.
    """
    items, asked = gallery.under_new("kept items"), queries.under_new("queries")
    new = Scorer(items.matrix, items.space.metric)
    metric = bridge.metric(gallery.under_old("kept items").space, asked.space)
    searched, asking = Scorer(bridge.searched(gallery), metric), bridge.asking(queries)
    agreement, nearness = np.empty(len(queries)), np.empty(len(queries))
    for rows in query_blocks(len(queries), len(gallery)):
        wanted = new.scores(asked.matrix[rows])
        nearness[rows] = wanted.max(axis=1)
        agreement[rows] = _overlap(wanted, searched.scores(asking[rows]))
    found = {AGREEMENT: agreement, NEARNESS: nearness}
    return found if queries.old is None else {**found, FIDELITY: _fidelity(bridge, queries.old, asked)}


def _overlap(wanted: FloatMatrix, found: FloatMatrix) -> Values:
    """(b,) share of the best of one row of scores among the best of the other."""
    count = min(NEIGHBOURS, wanted.shape[1] - 1)
    best = [np.argpartition(-scores, count - 1, axis=1)[:, :count] for scores in (wanted, found)]
    shared: Values = (best[0][:, :, None] == best[1][:, None, :]).any(axis=2).mean(axis=1)
    return shared


def _fidelity(bridge: Bridge, old: Vectors, new: Vectors) -> Values:
    if bridge.kind == "gallery":
        assert bridge.adapter is not None
        return _row_scores(bridge.adapter.transform(old.matrix), new.matrix, new.space.metric)
    return _row_scores(bridge.mapped(new), old.matrix, old.space.metric)


def _row_scores(one: FloatMatrix, other: FloatMatrix, metric: Metric) -> Values:
    """(n,) cosines of matching rows; minus their squared distance where length means something."""
    if metric != "cosine":
        return np.asarray(-np.square(one - other, dtype=np.float64).sum(axis=1), dtype=np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(np.einsum("ij,ij->i", one, other) / lengths, dtype=np.float64)


def changes(
    kept: dict[str, Values],
    recent: dict[str, Values],
    *,
    alpha: float,
    tolerance: float = 0.0,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> tuple[Change, ...]:
    """Every measure that both have; the false alarm rate `alpha` is shared among them (Bonferroni).

    Args:
        tolerance: a decay of a mean by less than this is never an alarm.
        permutations: at least; more are drawn where `alpha` asks for them.
        seed: of permutations and resamples.
    """
    names = [name for name in kept if name in recent]
    share = alpha / len(names)
    count = max(permutations, math.ceil(20 / share))
    return tuple(_change(name, kept[name], recent[name], share, tolerance, count, seed) for name in names)


def _change(
    name: str, kept: Values, recent: Values, alpha: float, tolerance: float, permutations: int, seed: int
) -> Change:
    p = decay_p(kept, recent, permutations=permutations, seed=seed)
    drawn = [bootstrap_means(one[None], seed=seed + place)[:, 0] for place, one in enumerate((kept, recent))]
    value = float(recent.mean() - kept.mean())
    difference = Difference(value, *interval(drawn[1] - drawn[0]), p)
    alarm = p <= alpha and value < 0 and -value >= tolerance
    noticed = _noticed(kept, len(recent), alpha)
    return Change(name, float(kept.mean()), float(recent.mean()), difference, noticed, alarm)


def decay_p(kept: Values, recent: Values, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """p value of the one-sided permutation test that the mean of `recent` is below that of `kept`.

    The observed order counts as one of the permutations, so that the rate of false alarms is never above the
    stated one.
    """
    pooled = np.concatenate([kept, recent])
    small, sign = (len(recent), 1.0) if len(recent) <= len(kept) else (len(kept), -1.0)
    observed = float(recent.sum() if sign > 0 else kept.sum())
    rng, reached, done = np.random.default_rng(seed), 0, 0
    slack = 1e-9 * max(1.0, abs(observed))
    while done < permutations:
        rows = min(permutations - done, max(1, CHUNK_NUMBERS // len(pooled)))
        drawn = rng.random((rows, len(pooled)), dtype=np.float32).argpartition(small - 1, axis=1)[:, :small]
        sums = pooled[drawn].sum(axis=1)
        reached += int((sign * (sums - observed) <= slack).sum())
        done += rows
    return (1 + reached) / (1 + permutations)


def _noticed(kept: Values, recent: int, alpha: float) -> float:
    """By the normal approximation, with the spread of the kept queries."""
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(POWER)
    return z * float(kept.std(ddof=1)) * math.sqrt(1 / len(kept) + 1 / recent)
