"""From per-query values to means, intervals, paired tests and flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from crossfade.evaluation.flips import flips
from crossfade.evaluation.matrix import CHANCE, RowPlan, TaskMatrix
from crossfade.evaluation.paired import PairedRows, paired_rows
from crossfade.evaluation.result import NEW_NEW, OLD_OLD, RowResult, TaskResult
from crossfade.evaluation.significance import Contrasts, signed_totals, step_down

AGREEMENT = "agreement@10"


def assemble(matrix: TaskMatrix, *, samples: int, seed: int) -> TaskResult:
    """The result of one task from its measured rows."""
    task, truth = matrix.task, matrix.task.ground_truth
    keys = [plan.key for plan in matrix.plans if plan.key in matrix.measured]
    names = [metric.name for metric in truth.metrics]
    values = {name: {key: matrix.measured[key].values[name] for key in keys} for name in names}
    values[AGREEMENT] = {key: matrix.agreement[key] for key in keys}
    paired = paired_rows(values, matrix.groups, samples=samples, seed=seed)
    agreement = paired[AGREEMENT]
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
        rows=tuple(_row(plan, matrix, {name: paired[name] for name in names}) for plan in matrix.plans),
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
    gains = [matrix.primary(key) - matrix.primary(OLD_OLD) for key in keys]
    totals = matrix.groups.totals(np.stack(gains)) if keys else np.empty((0, len(matrix.groups)))
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
