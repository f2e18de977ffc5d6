"""What a report says about an evaluation, as plain text cells: one view for HTML, Markdown and terminal.

Measures are shown with three decimals; ``report.json`` has them in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from crossfade.evaluation.estimates import Difference, Estimate
    from crossfade.evaluation.result import RowResult, TaskResult

Mark = Literal["better", "worse", "same", ""]

SYMBOLS: Mapping[Mark, str] = {"better": "▲", "worse": "▼", "same": "≈", "": ""}
LEGEND = (
    "▲ better, ▼ worse than old/old over the same queries: by the 95 % bootstrap interval of the paired "
    "difference and a sign-flip permutation test, corrected (step-down maxT) for the number of candidates; "
    "≈ not distinguishable from old/old."
)
FLIPS_LEGEND = (
    "Flips: share of queries whose first result is right here and wrong under old/old (gained), "
    "and the reverse (lost)."
)
GAP_LEGEND = (
    "Gap closed = (M − old/old) / (new/new − old/old); – where new/new is not significantly better than "
    "old/old, so that there is no gap to close."
)
AGREEMENT = (
    "Label-free: the share of the new model's own ten nearest neighbours that a row finds among its first "
    "ten. It says how closely a row imitates the new model, not whether its answers are right."
)

GROUPS = {
    "keep": "Status quo",
    "naive": "Naive swap",
    "native": "Compatible models: their queries search the old gallery, nothing is mapped",
    "query": "Query maps: new queries mapped back, gallery untouched",
    "gallery": "Gallery maps: stored vectors lifted forward",
    "interpolate": "Interpolation: old and mapped new query together",
    "cascade": "Cascade: the new model re-ranks the k candidates of a mapped or interpolated query",
    "lifted-cascade": "Lifted cascade: the new model re-ranks k candidates from the gallery lifted forward",
    "backfill": "Full backfill",
}

SINGLE = {"keep": "status quo", "naive": "naive swap", "backfill": "full backfill"}
"""Strategies of one row, and what the row is called."""

KINDS = {
    "native": "compatible model",
    "query": "query map",
    "gallery": "gallery map",
    "interpolate": "interpolation",
    "cascade": "cascade",
    "lifted-cascade": "cascade",
}

FIRST_STAGES = {"query": "mapped", "interpolate": "interpolated", "gallery": "lifted"}

HEADLINES = {
    "keep": "Keep the old model",
    "naive": "Swap the query model directly",
    "native": "Search the old gallery with the compatible model",
    "query": "Map new queries back",
    "gallery": "Lift the gallery forward",
    "interpolate": "Search with old and new query together",
    "cascade": "Search in two stages",
    "lifted-cascade": "Lift the gallery forward and search it in two stages",
    "backfill": "Do the full backfill",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A measured value, its interval, and how it compares with old/old."""

    value: str
    interval: str = ""
    mark: Mark = ""

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.mark]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the query/gallery matrix.

    Attributes:
        label: names the row within its group.
        name: names the row by itself.
        title: the row in words, as the evaluation put it.
    """

    key: str
    notation: str
    label: str
    name: str
    title: str
    strategy: str
    cells: tuple[Cell, ...]
    difference: Cell
    gap: str
    gap_share: float | None
    flips: str
    embedded: str
    needs: str
    note: str
    measured: bool
    recommended: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one strategy."""

    strategy: str
    title: str
    lines: tuple[Line, ...]

    @property
    def titled(self) -> bool:
        """Whether a heading says more than the group's one row does."""
        return self.strategy not in SINGLE or len(self.lines) > 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the measured rows, each remark once."""
        return tuple(dict.fromkeys(line.note for line in self.lines if line.note and line.measured))


@dataclass(frozen=True, slots=True)
class Matrix:
    """The query/gallery matrix of one task."""

    name: str
    setting: str
    metrics: tuple[str, ...]
    primary: str
    groups: tuple[Group, ...]
    agreement: tuple[tuple[str, str, Cell], ...]
    chance: str

    @property
    def lines(self) -> tuple[Line, ...]:
        """All rows in the order of their groups."""
        return tuple(line for group in self.groups for line in group.lines)

    @property
    def has_embedded(self) -> bool:
        """Whether any row says how many items had to be embedded."""
        return any(line.embedded for line in self.lines)

    @property
    def has_flips(self) -> bool:
        """Whether any row counts flips."""
        return any(line.flips for line in self.lines)


def number(value: float, *, sign: bool = False) -> str:
    """0.3217 -> ``0.322``; with `sign`, ``+0.322`` or ``−0.322`` (a real minus, as wide as the plus)."""
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("-", "−")


def interval(estimate: Estimate | Difference, *, sign: bool = False) -> str:
    """``0.309–0.334``, or ``+0.012 to +0.034`` for differences."""
    low, high = number(estimate.low, sign=sign), number(estimate.high, sign=sign)
    return f"{low} to {high}" if sign else f"{low}–{high}"


def share(value: float) -> str:
    """0.851 -> ``85 %``."""
    return f"{100 * value:.0f} %".replace("-", "−")


def mark_of(difference: Difference | None) -> Mark:
    """How a paired difference to old/old reads."""
    if difference is None:
        return ""
    if difference.significantly_better:
        return "better"
    return "worse" if difference.significantly_worse else "same"


def matrix(task: TaskResult, recommended: str | None = None) -> Matrix:
    """The task's rows as text, grouped by strategy; `recommended` is the key of the row to mark."""
    return Matrix(
        name=task.name,
        setting=_setting(task),
        metrics=tuple(task.metrics),
        primary=task.primary,
        groups=_groups([_line(row, task, recommended) for row in task.rows]),
        agreement=tuple(
            (row.notation, _name(row), Cell(number(found.value), interval(found)))
            for row in in_groups(task.rows)
            if (found := task.agreement.get(row.key)) is not None
        ),
        chance=", ".join(f"{name} {number(value)}" for name, value in task.chance.items()),
    )


def _setting(task: TaskResult) -> str:
    old, new = task.distance
    compared = old if old == new else f"{old} (old), {new} (new)"
    left_out = f"; {task.left_out:,} more have nothing relevant in the gallery" if task.left_out else ""
    return (
        f"{task.n_queries:,} queries{left_out}; {task.n_gallery:,} gallery items; "
        f"vectors compared by {compared}. Ground truth: {task.ground_truth}."
    )


def label_of(row: RowResult) -> str:
    """What tells a row from the others of its strategy."""
    if row.strategy in SINGLE:
        return SINGLE[row.strategy]
    if row.depth is not None:
        return ", ".join(filter(None, (f"k={row.depth}", FIRST_STAGES.get(row.first_stage, row.first_stage))))
    if row.strategy == "native" and not row.candidate:
        return row.title
    weight = f"weight {row.weight:g}" if row.weight is not None else ""
    return ", ".join(filter(None, (row.method, weight))) or row.title or row.notation


def in_groups(rows: Sequence[RowResult]) -> list[RowResult]:
    """The rows in the order that tables and plots share: by strategy, else as they were measured."""
    return [row for name in _strategies(rows) for row in rows if row.strategy == name]


def _strategies(rows: Sequence[RowResult] | Sequence[Line]) -> list[str]:
    """Known strategies in the design's order, then others; the upper bound closes the list."""
    found = dict.fromkeys(row.strategy for row in rows)
    order = [*(name for name in GROUPS if name in found), *(name for name in found if name not in GROUPS)]
    return sorted(order, key=lambda name: name == "backfill")


def _groups(lines: Sequence[Line]) -> tuple[Group, ...]:
    return tuple(
        Group(
            name, GROUPS.get(name, name.capitalize()), tuple(line for line in lines if line.strategy == name)
        )
        for name in _strategies(lines)
    )


def _line(row: RowResult, task: TaskResult, recommended: str | None) -> Line:
    gap = row.gap_closed.get(task.primary)
    return Line(
        key=row.key,
        notation=row.notation,
        label=label_of(row),
        name=_name(row),
        title=row.title,
        strategy=row.strategy,
        cells=tuple(_cell(row, name) for name in task.metrics),
        difference=_difference(row, task.primary),
        gap=_gap(row, gap),
        gap_share=None if row.strategy == "keep" else gap,
        flips=_flips(row),
        embedded="" if row.embedded is None else f"{row.embedded:,}",
        needs=" and ".join(row.needs),
        note=row.note,
        measured=bool(row.metrics),
        recommended=row.key == recommended,
    )


def _name(row: RowResult) -> str:
    return ": ".join(filter(None, (KINDS.get(row.strategy, ""), label_of(row))))


def _cell(row: RowResult, metric: str) -> Cell:
    estimate = row.metrics.get(metric)
    if estimate is None:
        return Cell("–")
    mark = "" if row.strategy == "keep" else mark_of(row.against_old.get(metric))
    return Cell(number(estimate.value), interval(estimate), "" if mark == "same" else mark)


def _difference(row: RowResult, primary: str) -> Cell:
    difference = row.against_old.get(primary)
    if difference is None or row.strategy == "keep":
        return Cell("")
    return Cell(number(difference.value, sign=True), interval(difference, sign=True), mark_of(difference))


def _gap(row: RowResult, gap: float | None) -> str:
    if row.strategy == "keep" or not row.metrics:
        return ""
    return "–" if gap is None else share(gap)


def _flips(row: RowResult) -> str:
    if row.flips is None or row.strategy == "keep":
        return ""
    return f"{100 * row.flips.positive:.1f} / {100 * row.flips.negative:.1f} %"
