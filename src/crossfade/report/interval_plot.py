"""The interval plot: a dot and a whisker per row of the matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossfade.report.layout import LAYOUTS, Layout, clip, drawable
from crossfade.report.svg import Drawing, Scale
from crossfade.report.view import GROUPS, SINGLE, in_groups, interval, label_of, mark_of, number

if TYPE_CHECKING:
    from crossfade.evaluation.estimates import Estimate
    from crossfade.evaluation.result import RowResult, TaskResult

MAX_ROWS = 60


def interval_plot(task: TaskResult, recommended: str | None = None) -> list[str]:
    """A dot and a whisker per row, with old/old and new/new as reference lines; [] if nothing is measured."""
    rows = [row for row in in_groups(task.rows) if drawable(row, task.primary)]
    if not rows:
        return []
    return [
        str(_IntervalPlot(task, _most_important(rows, recommended), recommended, form).draw())
        for form in LAYOUTS
    ]


def rows_left_out(task: TaskResult) -> int:
    """How many rows the interval plot leaves to the table."""
    return max(0, sum(drawable(row, task.primary) for row in task.rows) - MAX_ROWS)


def _most_important(rows: Sequence[RowResult], recommended: str | None) -> list[RowResult]:
    def matters(row: RowResult) -> bool:
        return row.key == recommended or row.strategy in ("keep", "naive", "backfill")

    room = MAX_ROWS - sum(map(matters, rows))
    kept = []
    for row in rows:
        if matters(row):
            kept.append(row)
        elif room > 0:
            kept.append(row)
            room -= 1
    return kept


class _IntervalPlot:
    TOP = 42.0
    NAME = 58.0  # room that the name of a reference line takes
    BOTTOM = 40.0
    GROUP = 30.0
    GAP = 8.0

    def __init__(
        self, task: TaskResult, rows: Sequence[RowResult], recommended: str | None, layout: Layout
    ) -> None:
        self.task, self.rows, self.recommended, self.layout = task, rows, recommended, layout
        strategies = dict.fromkeys(row.strategy for row in rows)
        above = sum(self.GAP if name in SINGLE else self.GROUP for name in strategies)
        height = self.TOP + self.BOTTOM + len(rows) * layout.row_height + above
        what = f"{task.primary} of {len(rows)} rows on {task.name}"
        label = f"{what}, with 95 % intervals; the table has every value"
        self.drawing = Drawing(layout.width, height, label, f"plot {layout.style}")
        estimates = [row.metrics[task.primary] for row in rows]
        low, high = min(e.low for e in estimates), max(e.high for e in estimates)
        margin = 6 if layout.stacked else 18
        right = layout.width - layout.value_width - margin
        self.scale = Scale(low, high, layout.label_width + margin, right, layout.ticks)
        self.bottom = height - self.BOTTOM

    def draw(self) -> Drawing:
        placed, titles = self._placed()
        for row, top in placed:
            if row.key == self.recommended:
                self.drawing.rect(-6, top, self.layout.width + 12, self.layout.row_height, "chosen", 6)
        self._axis()
        self._references()
        for title, y in titles:
            self.drawing.text(0, y, title, "group")
        for row, top in placed:
            self._row(row, top)
        return self.drawing

    def _placed(self) -> tuple[list[tuple[RowResult, float]], list[tuple[str, float]]]:
        """The rows with their upper edges, and the group titles with their baselines."""
        placed, titles, y, group = [], [], self.TOP, None
        for row in self.rows:
            if row.strategy != group:
                group = row.strategy
                y += self.GAP if group in SINGLE else self.GROUP
                if group not in SINGLE:
                    titles.append((GROUPS.get(group, group.capitalize()).partition(":")[0], y - 9))
            placed.append((row, y))
            y += self.layout.row_height
        return placed, titles

    def _axis(self) -> None:
        for tick in self.scale.ticks:
            x = self.scale(tick)
            self.drawing.line(x, self.TOP, x, self.bottom, "grid")
            self.drawing.text(x, self.bottom + 16, f"{tick:.3g}", "tick", "middle")
        middle = (self.scale.start + self.scale.end) / 2
        self.drawing.text(middle, self.bottom + 34, self.task.primary, "axis", "middle")

    def _references(self) -> None:
        bounds = [row for row in self.rows if row.strategy in ("keep", "backfill")]
        bounds.sort(key=lambda row: row.metrics[self.task.primary].value)
        places = [self.scale(row.metrics[self.task.primary].value) for row in bounds]
        # The names part to either side of close lines; where an edge forbids that, one stands higher.
        anchors = [self._anchor(x, "end" if i == 0 else "start") for i, x in enumerate(places)]
        crowded = len(bounds) == 2 and anchors[0] == anchors[1] and places[1] - places[0] < self.NAME
        for row, anchor in zip(bounds, anchors, strict=True):
            self._reference(row, anchor, 15 if crowded and row is bounds[1] else 0)

    def _anchor(self, x: float, wanted: str) -> str:
        if x < self.NAME:
            return "start"
        return "end" if x > self.layout.width - self.NAME else wanted

    def _reference(self, row: RowResult, anchor: str, raised: float) -> None:
        estimate = row.metrics[self.task.primary]
        low, high, x = self.scale(estimate.low), self.scale(estimate.high), self.scale(estimate.value)
        self.drawing.rect(low, self.TOP, high - low, self.bottom - self.TOP, f"band {row.strategy}")
        self.drawing.line(x, self.TOP - 8 - raised, x, self.bottom, f"reference {row.strategy}")
        offset = 5 if anchor == "start" else -5
        style = f"reference-name {row.strategy}"
        self.drawing.text(x + offset, self.TOP - 12 - raised, clip(row.notation, 12), style, anchor)

    def _row(self, row: RowResult, top: float) -> None:
        estimate = row.metrics[self.task.primary]
        chosen = row.key == self.recommended
        label_y = top + (15 if self.layout.stacked else self.layout.row_height / 2 + 4)
        y = top + (28 if self.layout.stacked else self.layout.row_height / 2)
        style = "label chosen-label" if chosen else "label"
        self.drawing.text(0, label_y, clip(label_of(row), self.layout.label_characters), style)
        value = (
            number(estimate.value)
            if self.layout.stacked
            else f"{number(estimate.value)}  ({interval(estimate)})"
        )
        self.drawing.text(
            self.layout.width, label_y, value, "value" + (" chosen-label" if chosen else ""), "end"
        )
        self._dot(row, estimate, y, chosen)

    def _dot(self, row: RowResult, estimate: Estimate, y: float, chosen: bool) -> None:
        bound = row.strategy in ("keep", "backfill")
        mark = row.strategy if bound else mark_of(row.against_old.get(self.task.primary)) or "same"
        self.drawing.line(self.scale(estimate.low), y, self.scale(estimate.high), y, f"whisker {mark}")
        tip = f"{row.notation} {row.title}: {number(estimate.value)} ({interval(estimate)})"
        self.drawing.circle(self.scale(estimate.value), y, 6 if chosen else 4.5, f"dot {mark}", tip)
