"""How quality rises while a lifted gallery is embedded again, and in which order it should be.

The gallery is searched as a partial backfill would be: where held-out items say so, lifted vectors are
levelled and scores of both origins brought together, in the way that is best at that share. Scores as they
are stand beside it for the order that a partial backfill takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import Adapter
from crossfade.errors import UsageError
from crossfade.evaluation.bootstrap import Groups
from crossfade.evaluation.curves import (
    CLASS_MEAN,
    ORACLE,
    RANDOM,
    RAW_UNCERTAINTY,
    UNCERTAINTY,
    BackfillCurve,
    BackfillOrder,
)
from crossfade.evaluation.estimates import Difference
from crossfade.evaluation.ground_truth import Labels
from crossfade.evaluation.measure import Measurer
from crossfade.evaluation.merging import LIFTED, RANKS, RE_EMBEDDED, Merge
from crossfade.evaluation.mixture import AS_THEY_ARE, HeldOut, Way, Ways
from crossfade.evaluation.paired import PairedRows, paired_rows
from crossfade.evaluation.ranking import largest_first
from crossfade.evaluation.result import OLD_OLD
from crossfade.evaluation.rows import Scores, SingleStage, take_out
from crossfade.evaluation.scoring import Scorer
from crossfade.evaluation.task import RetrievalTask
from crossfade.vectors import FloatMatrix

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DRAWS = 3
"""Random orders that are averaged: one alone is as much chance as order."""
Order = NDArray[np.intp]
Values = NDArray[np.float64]


def backfill_curve(
    task: RetrievalTask,
    adapter: Adapter,
    *,
    held_out: HeldOut | None = None,
    reason: str = "",
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    samples: int = 1000,
    seed: int = 0,
) -> BackfillCurve:
    """Measure new queries on a gallery that is embedded again in several orders (FastFill, ICLR 2023).

    The gallery holds lifted vectors and, for the items whose turn has come, the new model's own. Orders:
    random; the adapter's predicted uncertainty, highest first; distance of the lifted vector to the mean of
    its class, largest first (λ-orthogonality, NeurIPS 2025), where items have classes; and the true error of
    the lifted vector, largest first, which only someone who has embedded everything already can know.

    Args:
        adapter: a forward map between the task's spaces.
        held_out: items that neither the map was fitted on nor the task has: they choose how lifted and
            re-embedded rows come into one ranking. Scores are compared as they are without.
        reason: why there are none, for the report.
        shares: of the gallery, from 0 to 1.
        draws: random orders to average.
        samples: bootstrap resamples.
        seed: of random orders and resamples.

    Raises:
        UsageError: shares do not rise from 0 to 1, or the task lacks the side-information.
    """
    shares = _checked(shares)
    answerable = Measurer(task.ground_truth, task.query_positions).answerable()
    task = task.take_queries(np.flatnonzero(answerable))
    lifted = task.lift_gallery(adapter)
    orders, skipped = _orders(task, adapter, lifted, draws, seed)
    ways = _ways(held_out, shares, seed)
    courses = _courses(orders, ways)
    truth = Measurer(task.ground_truth, task.query_positions)
    measured = truth(_Mixed(task, lifted, courses, shares, _levelled(lifted, ways)))
    old = Scorer(task.gallery_old.matrix, task.gallery_old.space.metric)
    measured |= truth(SingleStage(OLD_OLD, task.queries_old.matrix, old, task.query_positions))
    metrics = tuple(metric.name for metric in task.ground_truth.metrics)
    values = {key: measurement.values for key, measurement in measured.items()}
    draw_counts = {name: len(course.draws) for name, course in courses.items()}
    rows = _Curves(values, draw_counts, shares, metrics).rows()
    paired = paired_rows(rows, _groups(task), samples=samples, seed=seed)
    beside = RAW_UNCERTAINTY in courses
    return BackfillCurve(
        task=task.name,
        method=adapter.name,
        metrics=metrics,
        primary=task.ground_truth.primary,
        shares=shares,
        n_gallery=task.n_gallery,
        old={name: float(measured[OLD_OLD].values[name].mean()) for name in metrics},
        orders=tuple(_order(name, paired, shares) for name in orders),
        skipped=skipped,
        ways=tuple(way.name for way in ways) if beside else (),
        raw=_order(RAW_UNCERTAINTY, paired, shares) if beside else None,
        over_raw=_over_raw(paired) if beside else {},
        held_out=_said(held_out, reason, beside),
    )


def _said(held_out: HeldOut | None, reason: str, merged: bool) -> str:
    if held_out is None or merged:
        return reason if held_out is None else held_out.origin
    return f"{held_out.origin} favour no other way"


def _ways(held_out: HeldOut | None, shares: tuple[float, ...], seed: int) -> tuple[Way, ...]:
    """A gallery of one origin is searched as it is."""
    if held_out is None:
        return (AS_THEY_ARE,) * len(shares)
    found = Ways(held_out, seed=seed)
    return tuple(found.at(share) if 0 < share < 1 else AS_THEY_ARE for share in shares)


def _courses(orders: dict[str, list[Order]], ways: tuple[Way, ...]) -> dict[str, _Course]:
    courses = {name: _Course(draws, ways) for name, draws in orders.items()}
    if UNCERTAINTY in orders and any(way.name != AS_THEY_ARE.name for way in ways):
        courses[RAW_UNCERTAINTY] = _Course(orders[UNCERTAINTY], (AS_THEY_ARE,) * len(ways))
    return courses


def _levelled(lifted: FloatMatrix, ways: tuple[Way, ...]) -> FloatMatrix | None:
    """The levelling is one and the same at all shares that have it."""
    level = next((way.level for way in ways if way.level is not None), None)
    return None if level is None else level(lifted)


def _checked(shares: Sequence[float]) -> tuple[float, ...]:
    if shares[0] != 0 or shares[-1] != 1 or any(np.diff(shares) <= 0):
        raise UsageError(f"shares of the gallery rise from 0 to 1, got {tuple(shares)}")
    return tuple(map(float, shares))


def _groups(task: RetrievalTask) -> Groups:
    numbers = task.query_groups if task.query_groups is not None else task.ground_truth.query_groups()
    return Groups(task.n_queries, numbers)


# --- orders -----------------------------------------------------------------------------------


def _orders(
    task: RetrievalTask, adapter: Adapter, lifted: FloatMatrix, draws: int, seed: int
) -> tuple[dict[str, list[Order]], dict[str, str]]:
    rng = np.random.default_rng(seed)
    orders: dict[str, list[Order]] = {RANDOM: [rng.permutation(task.n_gallery) for _ in range(draws)]}
    skipped = {}
    if adapter.has_uncertainty:
        predicted = adapter.uncertainty(task.gallery_old.matrix, task.side_for(adapter))
        orders[UNCERTAINTY] = [largest_first(predicted)]
    else:
        skipped[UNCERTAINTY] = f"{adapter.name} predicts none; ridge, local-experts and fastfill do"
    if isinstance(task.ground_truth, Labels):
        orders[CLASS_MEAN] = [largest_first(_from_class_mean(lifted, task.ground_truth.gallery_classes))]
    else:
        skipped[CLASS_MEAN] = "the items have no classes"
    new = task.gallery_new.matrix
    if task.gallery_new.space.metric == "cosine":
        new = new / np.linalg.norm(new, axis=1, keepdims=True)
    orders[ORACLE] = [largest_first(np.square(lifted - new).sum(axis=1))]
    return orders, skipped


def _from_class_mean(lifted: FloatMatrix, classes: NDArray[np.integer]) -> FloatMatrix:
    sums = np.zeros((int(classes.max()) + 1, lifted.shape[1]))
    np.add.at(sums, classes, lifted)
    means = sums / np.maximum(np.bincount(classes), 1)[:, None]
    distance: FloatMatrix = np.square(lifted - means[classes]).sum(axis=1).astype(np.float32)
    return distance


# --- scores -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Course:
    """How a gallery is embedded again: in which order, drawn once or more, and how it is searched on the way.

    Attributes:
        draws: orders whose values are averaged.
        ways: one per share.
    """

    draws: list[Order]
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class _Mixed:
    """Scores of the partly re-embedded gallery: each way scores both galleries once for all its shares."""

    task: RetrievalTask
    lifted: FloatMatrix
    courses: dict[str, _Course]
    shares: tuple[float, ...]
    levelled: FloatMatrix | None = None

    def blocks(self, rows: slice) -> Iterator[tuple[str, Scores]]:
        before, after = self._scores(self.lifted, rows), self._scores(self.task.gallery_new.matrix, rows)
        yield _key("", 0, 0.0), before
        yield _key("", 0, 1.0), after
        for way in {way.name: way for course in self.courses.values() for way in course.ways}.values():
            own = before if way.level is None else self._scores(self._required(), rows)
            for name, course in self.courses.items():
                found = [
                    share for share, one in zip(self.shares, course.ways, strict=True) if one.name == way.name
                ]
                shares = [share for share in found if 0 < share < 1]
                for draw, order in enumerate(course.draws if shares else ()):
                    for share, scores in _along(way.merge, own, after, order, shares):
                        yield _key(name, draw, share), scores

    def _required(self) -> FloatMatrix:
        assert self.levelled is not None
        return self.levelled

    def _scores(self, gallery: FloatMatrix, rows: slice) -> FloatMatrix:
        metric = self.task.gallery_new.space.metric
        block = Scorer(gallery, metric).scores(self.task.queries_new.matrix[rows])
        take_out(block, self.task.query_positions, rows, -np.inf)
        return block


def _along(
    merge: Merge, lifted: FloatMatrix, again: FloatMatrix, order: Order, shares: Sequence[float]
) -> Iterator[tuple[float, Scores]]:
    """Scores (b, N) at rising shares of the gallery embedded again in this order."""
    origins, done = np.full(len(order), LIFTED), 0
    # ranks depend on who else is there; scales do not, and are applied once for all shares
    apart = merge.method == RANKS
    mixed = lifted.copy() if apart else np.array(merge(lifted, origins))
    for share in shares:
        count = round(share * len(order))
        turn = order[done:count]
        mixed[:, turn], origins[turn], done = again[:, turn], RE_EMBEDDED, count
        yield share, merge(mixed, origins) if apart else mixed


def _key(name: str, draw: int, share: float) -> str:
    """All orders begin and end alike."""
    return f"{name}/{draw}@{share}" if 0 < share < 1 else f"@{share}"


# --- figures ----------------------------------------------------------------------------------


class _Curves:
    """Per-query values by order and share, and the areas below them."""

    def __init__(
        self,
        measured: dict[str, dict[str, Values]],
        draws: dict[str, int],
        shares: tuple[float, ...],
        metrics: tuple[str, ...],
    ) -> None:
        self._measured, self._draws, self._shares, self._metrics = measured, draws, shares, metrics

    def rows(self) -> dict[str, dict[str, Values]]:
        """(Q,) values by metric and key: shares of every order, its area, and old/old."""
        return {metric: self._rows(metric) for metric in self._metrics}

    def _rows(self, metric: str) -> dict[str, Values]:
        rows = {OLD_OLD: self._measured[OLD_OLD][metric]}
        for name, draws in self._draws.items():
            curve = np.stack(
                [
                    np.mean(
                        [self._measured[_key(name, draw, share)][metric] for draw in range(draws)],
                        axis=0,
                    )
                    for share in self._shares
                ]
            )
            rows |= {_point(name, share): values for share, values in zip(self._shares, curve, strict=True)}
            widths = np.diff(self._shares)
            rows[_area(name)] = (widths[:, None] * (curve[1:] + curve[:-1]) / 2).sum(axis=0)
        return rows


def _point(name: str, share: float) -> str:
    return f"{name}@{share}"


def _area(name: str) -> str:
    return f"{name} area"


def _order(name: str, paired: dict[str, PairedRows], shares: tuple[float, ...]) -> BackfillOrder:
    keys = [_point(name, share) for share in shares]
    return BackfillOrder(
        name=name,
        values={metric: tuple(map(rows.estimate, keys)) for metric, rows in paired.items()},
        against_old={
            metric: tuple(rows.difference(key, OLD_OLD) for key in keys) for metric, rows in paired.items()
        },
        area={metric: rows.estimate(_area(name)) for metric, rows in paired.items()},
        against_random={}
        if name in (RANDOM, RAW_UNCERTAINTY)
        else {metric: rows.difference(_area(name), _area(RANDOM)) for metric, rows in paired.items()},
    )


def _over_raw(paired: dict[str, PairedRows]) -> dict[str, Difference]:
    return {
        metric: rows.difference(_area(UNCERTAINTY), _area(RAW_UNCERTAINTY)) for metric, rows in paired.items()
    }
