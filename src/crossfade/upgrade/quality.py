"""What an evaluation says about a plan, and when that is reason to refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossfade.errors import PlanRefused, SpaceMismatch, UsageError
from crossfade.evaluation.curves import RAW_UNCERTAINTY, UNCERTAINTY
from crossfade.evaluation.result import NATIVE, OLD_OLD, Evaluation, RowResult
from crossfade.spaces import Space
from crossfade.upgrade.plans import Quality


@dataclass(frozen=True, slots=True)
class Choice:
    """How a strategy is to be carried out, as far as an evaluation or the caller says."""

    strategy: str
    method: str = ""
    weight: float | None = None
    depth: int | None = None
    first_stage: str = ""
    row: str = ""


def as_evaluation(given: Evaluation | Mapping[str, Any] | None) -> Evaluation | None:
    """An evaluation from the object or from what `to_dict` wrote."""
    if given is None or isinstance(given, Evaluation):
        return given
    try:
        return Evaluation.from_dict(given)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"this is not an evaluation that can be read ({error}); run crossfade evaluate"
        ) from None


def require_spaces(evaluation: Evaluation, old: Space, new: Space | None) -> None:
    """Refuse an evaluation of other models; None for a new one that the evaluation itself names."""
    for role, planned, measured in (("old", old, evaluation.old), ("new", new, evaluation.new)):
        if measured is not None and planned is not None and measured != planned:
            raise SpaceMismatch(
                f"the evaluation measured {measured} as the {role} model, the plan is for {planned}; "
                "evaluate these two models (crossfade evaluate)"
            )


def recommended(evaluation: Evaluation) -> Choice:
    """What the verdict says to do."""
    verdict = evaluation.verdict
    return Choice(
        verdict.strategy, verdict.method, verdict.weight, verdict.depth, verdict.first_stage, verdict.row
    )


def find_row(evaluation: Evaluation, wanted: Choice, *, mapped: bool = False) -> str:
    """Key of the measured row that is nearest to what is wanted; empty if none was measured.

    Args:
        mapped: an adapter was given, so that rows of compatible models are not meant.
    """
    if wanted.row:
        return evaluation.tasks[0].row(wanted.row).key
    if wanted.strategy == "keep":
        return OLD_OLD
    measured = [row for row in evaluation.tasks[0].rows if row.metrics]
    rows = [row for row in measured if row.method not in evaluation.compatible and _fits(row, wanted)]
    if not mapped:
        rows += [row for row in measured if row.method in evaluation.compatible and _fits(row, wanted)]
    if not rows:
        return ""
    verdict = evaluation.verdict.row
    return next((row.key for row in rows if row.key == verdict), rows[0].key)


def _fits(row: RowResult, wanted: Choice) -> bool:
    carries_out = {row.strategy, "query"} if row.strategy == NATIVE and row.candidate else {row.strategy}
    if row.strategy == NATIVE and not row.candidate:
        carries_out = set()
    same = wanted.strategy in carries_out and (not wanted.method or row.method in ("", wanted.method))
    if wanted.depth is not None and row.depth is not None:
        same = same and row.depth == wanted.depth
    if wanted.first_stage and row.strategy == "cascade":
        same = same and row.first_stage == wanted.first_stage
    return same


def completed(wanted: Choice, row: RowResult | None) -> Choice:
    """What is wanted, with what it leaves open taken from the measured row."""
    if row is None:
        return wanted
    return Choice(
        wanted.strategy,
        wanted.method or row.method,
        row.weight if wanted.weight is None else wanted.weight,
        row.depth if wanted.depth is None else wanted.depth,
        wanted.first_stage or row.first_stage,
        row.key,
    )


def measured(evaluation: Evaluation, key: str) -> tuple[Quality, ...]:
    """The row's figures on the primary metric of every task that was judged by labels or people."""
    found = []
    for task in evaluation.tasks:
        row = next((one for one in task.rows if one.key == key), None)
        if row is None or task.primary not in row.metrics:
            continue
        value, metric = row.metrics[task.primary], task.primary
        old = task.row(OLD_OLD).metrics[metric].value
        against = row.against_old.get(metric)
        difference = (
            (against.value, against.low, against.high, against.p) if against else (0.0, 0.0, 0.0, 1.0)
        )
        found.append(
            Quality(
                task.name, task.ground_truth, metric, key, value.value, value.low, value.high, old, difference
            )
        )
    return tuple(found)


def searched_order(merged: bool) -> str:
    """The curve of a partial backfill: with the scores of both origins brought together, or as they are."""
    return UNCERTAINTY if merged else RAW_UNCERTAINTY


def on_curve(evaluation: Evaluation, method: str, budget: float, *, merged: bool) -> tuple[Quality, ...]:
    """What the backfill curves of this method show at the measured share nearest below `budget`.

    Args:
        merged: whether lifted and re-embedded rows will be brought into one ranking.
    """
    found, order = [], searched_order(merged)
    for curve in evaluation.curves:
        if curve.method != method or not any(order.name == UNCERTAINTY for order in curve.orders):
            continue
        task, metric = evaluation.task(curve.task), curve.primary
        value, against = curve.at(budget, order=order)
        difference = (against.value, against.low, against.high, against.p)
        way = curve.way_at(budget, order=order)
        found.append(
            Quality(
                f"{task.name}, {way} scores",
                task.ground_truth,
                metric,
                f"partial:{method}@{budget:g}",
                value.value,
                value.low,
                value.high,
                curve.old[metric],
                difference,
            )
        )
    return tuple(found)


def refuse_worse(quality: tuple[Quality, ...], strategy: str, force: str) -> None:
    """Refuse a plan that makes search significantly worse in any task, unless `force` says why.

    Raises:
        PlanRefused: with the figures.
    """
    worse = [one for one in quality if one.is_worse]
    if worse and not force:
        raise PlanRefused(
            f"strategy {strategy} makes search worse: {worse[0]}; "
            "choose what the evaluation recommends, or plan with --force REASON"
        )
