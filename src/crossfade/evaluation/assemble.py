"""From per-query values to means, intervals, paired tests and flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.bootstrap import Groups, bootstrap_means, interval
from crossfade.evaluation.estimates import Difference, Estimate
from crossfade.evaluation.flips import flips
from crossfade.evaluation.matrix import CHANCE, RowPlan, TaskMatrix
from crossfade.evaluation.result import NEW_NEW, OLD_OLD, Pairwise, RowResult, TaskResult
from crossfade.evaluation.significance import Contrasts, sign_flip_p, signed_totals, step_down

Values = NDArray[np.float64]


class PairedRows:
    """Rows over the same queries: their means, intervals and paired differences.

    Args:
        values: (Q,) per row, by key.
        groups: queries that are resampled together.
        samples: bootstrap resamples.
        seed: of the resamples and the signs.
    """

    def __init__(self, values: Mapping[str, Values], groups: Groups, *, samples: int, seed: int) -> None:
        self.keys = tuple(values)
        table = np.stack(list(values.values()))
        totals = groups.totals(table)
        self._value = dict(zip(self.keys, table.mean(axis=1), strict=True))
        self._total = dict(zip(self.keys, totals.sum(axis=1), strict=True))
        means = bootstrap_means(table, samples=samples, seed=seed, groups=groups)
        self._resampled = dict(zip(self.keys, means.T, strict=True))
        self._flipped = dict(zip(self.keys, signed_totals(totals, seed=seed).T, strict=True))

    def estimate(self, key: str) -> Estimate:
        """Mean and 95 % interval of a row."""
        return Estimate(float(self._value[key]), *interval(self._resampled[key]))

    def difference(self, key: str, other: str) -> Difference:
        """Row `key` minus row `other`."""
        low, high = interval(self._resampled[key] - self._resampled[other])
        p = sign_flip_p(self._total[key] - self._total[other], self._flipped[key] - self._flipped[other])
        return Difference(float(self._value[key] - self._value[other]), low, high, p)

    def pairwise(self) -> Pairwise:
        """All paired differences."""
        table = {(a, b): self.difference(a, b) for i, a in enumerate(self.keys) for b in self.keys[:i]}
        every = [[_entry(table, a, b) for b in self.keys] for a in self.keys]

        def column(name: str) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(getattr(entry, name) for entry in row) for row in every)

        return Pairwise(self.keys, *(column(name) for name in ("value", "low", "high", "p")))


def _entry(table: Mapping[tuple[str, str], Difference], a: str, b: str) -> Difference:
    if a == b:
        return Difference(0.0, 0.0, 0.0, 1.0)
    if (a, b) in table:
        return table[a, b]
    other = table[b, a]
    return Difference(-other.value, -other.high, -other.low, other.p)


def assemble(matrix: TaskMatrix, *, samples: int, seed: int) -> TaskResult:
    """The result of one task from its measured rows."""
    task, truth = matrix.task, matrix.task.ground_truth
    groups = Groups(task.n_queries, task.query_groups)
    keys = [plan.key for plan in matrix.plans if plan.key in matrix.measured]
    names = [metric.name for metric in truth.metrics]
    paired = {
        name: PairedRows(
            {key: matrix.measured[key].values[name] for key in keys}, groups, samples=samples, seed=seed
        )
        for name in names
    }
    agreement = PairedRows({key: matrix.agreement[key] for key in keys}, groups, samples=samples, seed=seed)
    chance = matrix.measured[CHANCE].values
    return TaskResult(
        name=task.name,
        kind=truth.kind,
        ground_truth=truth.description,
        n_queries=task.n_queries,
        n_gallery=task.n_gallery,
        left_out=matrix.left_out,
        metrics=tuple(names),
        primary=truth.primary,
        rows=tuple(_row(plan, matrix, paired) for plan in matrix.plans),
        pairwise=paired[truth.primary].pairwise(),
        agreement={key: agreement.estimate(key) for key in keys},
        chance={name: float(chance[name].mean()) for name in names},
        distance=(task.gallery_old.space.metric, task.gallery_new.space.metric),
    )


def _row(plan: RowPlan, matrix: TaskMatrix, paired: Mapping[str, PairedRows]) -> RowResult:
    known = asdict(plan)
    if plan.key not in matrix.measured:
        return RowResult(**known)
    right, right_before = matrix.measured[plan.key].right, matrix.measured[OLD_OLD].right
    return RowResult(
        **known,
        metrics={name: rows.estimate(plan.key) for name, rows in paired.items()},
        against_old={name: rows.difference(plan.key, OLD_OLD) for name, rows in paired.items()},
        gap_closed={name: gap_closed(rows, plan.key) for name, rows in paired.items()},
        flips=flips(right_before, right),
        embedded=matrix.embedded.get(plan.key),
    )


def gap_closed(rows: PairedRows, key: str) -> float | None:
    """(M - M_old/old) / (M_new/new - M_old/old); None if there is no significant gap to close."""
    gap = rows.difference(NEW_NEW, OLD_OLD)
    return rows.difference(key, OLD_OLD).value / gap.value if gap.significantly_better else None


def candidates(matrix: TaskMatrix, index: int, *, seed: int) -> Contrasts:
    """The candidates of a task against old/old on the primary metric; names are (index, row key)."""
    keys = [plan.key for plan in matrix.plans if plan.candidate]
    groups = Groups(matrix.task.n_queries, matrix.task.query_groups)
    gains = [matrix.primary(key) - matrix.primary(OLD_OLD) for key in keys]
    totals = groups.totals(np.stack(gains)) if keys else np.empty((0, len(groups)))
    # tasks of equal size must not share their signs
    flipped = signed_totals(totals, seed=[seed, index])
    return Contrasts.of([(index, key) for key in keys], totals, flipped)


def correct_for_candidates(tasks: Sequence[TaskResult], family: Contrasts) -> tuple[TaskResult, ...]:
    """The tasks with the primary p values against old/old corrected for all candidates of all tasks."""
    p = step_down(family)
    return tuple(
        replace(task, rows=tuple(_with_p(row, task.primary, p.get((index, row.key))) for row in task.rows))
        for index, task in enumerate(tasks)
    )


def _with_p(row: RowResult, primary: str, p: float | None) -> RowResult:
    if p is None:
        return row
    return replace(row, against_old={**row.against_old, primary: row.against_old[primary].adjusted(p)})
