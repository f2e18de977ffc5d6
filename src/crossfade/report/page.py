"""What stands around the matrices: verdict, figures, how it was measured, what to do next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from crossfade.report.view import HEADLINES, interval, number, share

if TYPE_CHECKING:
    from crossfade.evaluation.result import Alternative, Evaluation, Fit, RowResult, TaskResult
    from crossfade.spaces import Space

Facts = Sequence[tuple[str, str]]
"""Label and value pairs, shown in order."""

EMBEDDING = ("cascade", "lifted-cascade", "backfill")
"""Strategies that embed raw items."""
_STRATEGY_OF = {"backward": "query", "forward": "gallery"}
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Figure:
    """The primary measure of one task: status quo, recommended row, full backfill."""

    task: str
    metric: str
    old: str
    chosen: str
    new: str
    gap: str
    gap_share: float


@dataclass(frozen=True, slots=True)
class Fits:
    """The adapters that were fitted: a table of method, direction, primary measures and time."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a report beside its matrices and sample searches."""

    old: str
    new: str
    headline: str
    judged: bool
    sentence: str
    needs: str
    cost: str
    reasons: tuple[str, ...]
    alternatives: Facts
    figures: tuple[Figure, ...]
    measured: Facts
    fits: Fits
    skipped: Facts
    plan: Facts
    history: Facts
    commands: Facts


def page(
    evaluation: Evaluation,
    *,
    plan: Facts = (),
    history: Facts = (),
    commands: Facts | None = None,
    folder: str = "FOLDER",
) -> Page:
    """The report's words; `commands` are (command, what it does) pairs, by default of the verdict."""
    verdict = evaluation.verdict
    return Page(
        old=_space(evaluation.old, "old model"),
        new=_space(evaluation.new, "new model"),
        headline=HEADLINES.get(verdict.strategy, verdict.strategy.capitalize()),
        judged=verdict.judged,
        sentence=verdict.sentence,
        needs=_needs(evaluation),
        cost=_cost(evaluation),
        reasons=tuple(verdict.reasons),
        alternatives=tuple(_alternative(one) for one in verdict.alternatives),
        figures=tuple(
            figure for task in evaluation.tasks if (figure := _figure(task, verdict.row)) is not None
        ),
        measured=_measured(evaluation),
        fits=_fits(evaluation),
        skipped=tuple((_directed(one.method, one.direction), one.reason) for one in evaluation.skipped),
        plan=redacted(plan),
        history=redacted(history),
        commands=next_commands(verdict.strategy, folder) if commands is None else tuple(commands),
    )


def find(task: TaskResult, key: str | None) -> RowResult | None:
    """The row with this key, if the task has it."""
    return next((row for row in task.rows if row.key == key), None)


def redacted(facts: Facts) -> Facts:
    """The facts without the user names and passwords that store addresses may carry."""
    return tuple((name, _CREDENTIALS.sub("…@", value)) for name, value in facts)


def next_commands(strategy: str, folder: str) -> Facts:
    """The commands that carry out the verdict, from the evaluation in `folder`."""
    if strategy == "keep":
        return (
            ("crossfade evaluate --help", "Measure again with more queries, more pairs or other models."),
        )
    needed = " --items COLUMN --encoder SPEC" if strategy in EMBEDDING else ""
    return (
        (
            f"crossfade plan lancedb://DIR#table.column --evaluation {quote(folder)}{needed}",
            "Write the plan and read it: rows, time, disk, measured quality.",
        ),
        (
            "crossfade apply plan.json",
            "Carry it out. It can be interrupted and resumed, and old vectors are never touched.",
        ),
        (
            "crossfade verify plan.json && crossfade cutover plan.json",
            "Check what was written, then switch over. crossfade rollback plan.json goes back.",
        ),
    )


def _figure(task: TaskResult, key: str) -> Figure | None:
    chosen = find(task, key)
    bounds = {row.strategy: row for row in task.rows if row.strategy in ("keep", "backfill")}
    if (
        chosen is None
        or len(bounds) < 2
        or any(task.primary not in row.metrics for row in (chosen, *bounds.values()))
    ):
        return None
    gap = chosen.gap_closed.get(task.primary)
    show = chosen.strategy not in ("keep", "backfill") and gap is not None
    return Figure(
        task=task.name,
        metric=task.primary,
        old=number(bounds["keep"].metrics[task.primary].value),
        chosen=number(chosen.metrics[task.primary].value),
        new=number(bounds["backfill"].metrics[task.primary].value),
        gap=share(gap) if show and gap is not None else "",
        gap_share=gap or 0.0,
    )


def _alternative(one: Alternative) -> tuple[str, str]:
    name = f"Without {one.without}"
    text = one.sentence.removeprefix(name).lstrip(": ")
    return name, text[:1].upper() + text[1:]


def _needs(evaluation: Evaluation) -> str:
    rows = [row for task in evaluation.tasks if (row := find(task, evaluation.verdict.row)) is not None]
    needs = list(dict.fromkeys(need for row in rows for need in row.needs))
    if evaluation.verdict.strategy != "keep":
        needs.insert(0, "new encoder")
    first, last = needs[:-1], needs[-1:]
    return " and ".join(
        filter(None, (", ".join(f"the {need}" for need in first), *(f"the {need}" for need in last)))
    )


def _cost(evaluation: Evaluation) -> str:
    """How much of the gallery a cascade had to embed: nearly all of it makes a backfill in disguise."""
    parts = [
        f"{task.name}: {row.embedded:,} of {task.n_gallery:,} items ({share(row.embedded / task.n_gallery)}) "
        f"for {task.n_queries:,} queries"
        for task in evaluation.tasks
        if (row := find(task, evaluation.verdict.row)) is not None and row.embedded is not None
    ]
    return "; ".join(parts)


def _measured(evaluation: Evaluation) -> Facts:
    return (
        ("Old model", _space(evaluation.old, "not recorded in the pairs")),
        ("New model", _space(evaluation.new, "not recorded in the pairs")),
        *((f"Compatible {name}", str(space)) for name, space in evaluation.compatible.items()),
        ("Pairs", f"{evaluation.pairs:,} items embedded by both models, to fit the adapters on"),
        *(
            (f"Task {task.name}", f"{task.n_queries:,} queries, {task.n_gallery:,} items")
            for task in evaluation.tasks
        ),
        ("Intervals", f"95 %, {evaluation.samples:,} bootstrap samples over the queries"),
        ("Seed", f"{evaluation.seed}"),
        ("Time", f"{evaluation.seconds:,.1f} s in all"),
    )


def _fits(evaluation: Evaluation) -> Fits:
    columns = (
        "Method",
        "Direction",
        *(f"{task.name}: {task.primary}" for task in evaluation.tasks),
        "Fitted in",
    )
    return Fits(columns, tuple(_fit(one, evaluation) for one in evaluation.fits))


def _fit(one: Fit, evaluation: Evaluation) -> tuple[str, ...]:
    key = f"{_STRATEGY_OF.get(one.direction, one.direction)}:{one.method}"
    return (
        one.method,
        one.direction,
        *(_primary(task, key) for task in evaluation.tasks),
        f"{one.seconds:.2f} s",
    )


def _primary(task: TaskResult, key: str) -> str:
    row = find(task, key)
    estimate = None if row is None else row.metrics.get(task.primary)
    return "–" if estimate is None else f"{number(estimate.value)} ({interval(estimate)})"


def _directed(method: str, direction: str) -> str:
    return f"{method}, {direction}" if direction else method


def _space(space: Space | None, absent: str) -> str:
    return absent if space is None else str(space)
