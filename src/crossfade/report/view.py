"""What a report says about an evaluation, as plain text cells: one view for HTML, Markdown and terminal.

Measures are shown in per cent with one decimal, as papers print them; ``report.json`` has them in full.
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
    "difference and a sign-flip permutation test, corrected (Holm) for the number of candidates; "
    "≈ not distinguishable from old/old."
)
FLIPS_LEGEND = (
    "Flips: per cent of queries whose first result is right here and wrong under old/old (gained), "
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
    "query": "Query maps: new queries mapped back, gallery untouched",
    "gallery": "Gallery maps: stored vectors lifted forward",
    "interpolate": "Interpolation: old and mapped new query together",
    "cascade": "Cascade: the new model re-ranks the k best candidates",
    "backfill": "Full backfill",
}

HEADLINES = {
    "keep": "Keep the old model",
    "naive": "Swap the query model directly",
    "query": "Map new queries back",
    "gallery": "Lift the gallery forward",
    "interpolate": "Search with old and new query together",
    "cascade": "Search in two stages",
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
    """One row of the query/gallery matrix."""

    key: str
    notation: str
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
    recommended: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one strategy."""

    strategy: str
    title: str
    lines: tuple[Line, ...]


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


def percent(value: float, *, sign: bool = False) -> str:
    """0.3217 -> ``32.2``; with `sign`, ``+32.2`` or ``−32.2`` (a real minus, as wide as the plus)."""
    text = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return text.replace("-", "−")


def interval(estimate: Estimate | Difference, *, sign: bool = False) -> str:
    """``30.9–33.4``, or ``+1.2 to +3.4`` for differences."""
    low, high = percent(estimate.low, sign=sign), percent(estimate.high, sign=sign)
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
            (row.notation, row.title, Cell(percent(found.value), interval(found)))
            for row in in_groups(task.rows)
            if (found := task.agreement.get(row.key)) is not None
        ),
        chance=", ".join(f"{name} {percent(value)}" for name, value in task.chance.items()),
    )


def _setting(task: TaskResult) -> str:
    old, new = task.distance
    compared = old if old == new else f"{old} (old), {new} (new)"
    left_out = f"; {task.left_out:,} more have nothing relevant in the gallery" if task.left_out else ""
    return (
        f"{task.n_queries:,} queries{left_out}; {task.n_gallery:,} gallery items; "
        f"vectors compared by {compared}. Ground truth: {task.ground_truth}."
    )


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
        title=row.title or row.notation,
        strategy=row.strategy,
        cells=tuple(_cell(row, name) for name in task.metrics),
        difference=_difference(row, task.primary),
        gap=_gap(row, gap),
        gap_share=None if row.strategy == "keep" else gap,
        flips=_flips(row),
        embedded="" if row.embedded is None else f"{row.embedded:,}",
        needs=" and ".join(row.needs),
        note=row.note,
        recommended=row.key == recommended,
    )


def _cell(row: RowResult, metric: str) -> Cell:
    estimate = row.metrics.get(metric)
    if estimate is None:
        return Cell("–")
    mark = "" if row.strategy == "keep" else mark_of(row.against_old.get(metric))
    return Cell(percent(estimate.value), interval(estimate), "" if mark == "same" else mark)


def _difference(row: RowResult, primary: str) -> Cell:
    difference = row.against_old.get(primary)
    if difference is None or row.strategy == "keep":
        return Cell("")
    return Cell(percent(difference.value, sign=True), interval(difference, sign=True), mark_of(difference))


def _gap(row: RowResult, gap: float | None) -> str:
    if row.strategy == "keep" or not row.metrics:
        return ""
    return "–" if gap is None else share(gap)


def _flips(row: RowResult) -> str:
    if row.flips is None or row.strategy == "keep":
        return ""
    return f"{percent(row.flips.positive)} / {percent(row.flips.negative)}"
