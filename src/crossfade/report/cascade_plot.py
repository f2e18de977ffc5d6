"""The cascade plot: quality against k, and what share of the gallery each k had to embed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from crossfade.report.layout import LAYOUTS, Layout, clip, drawable
from crossfade.report.svg import Drawing, Scale
from crossfade.report.view import FIRST_STAGES, interval, number

if TYPE_CHECKING:
    from crossfade.evaluation.result import RowResult, TaskResult

MAX_SERIES = 4
CASCADES = ("cascade", "lifted-cascade")


@dataclass(frozen=True, slots=True)
class _Series:
    name: str
    points: tuple[RowResult, ...]


def cascade_plot(task: TaskResult, recommended: str | None = None) -> list[str]:
    """Quality against the number of candidates k, with the share of items embedded; [] without a cascade."""
    series = _cascades(task)
    if not series:
        return []
    return [str(_CascadePlot(task, series, recommended, layout).draw()) for layout in LAYOUTS]


def _cascades(task: TaskResult) -> list[_Series]:
    found: dict[str, list[RowResult]] = {}
    for row in task.rows:
        if row.strategy in CASCADES and row.embedded is not None and drawable(row, task.primary):
            found.setdefault(series_name(row), []).append(row)
    series = [
        _Series(name, tuple(sorted(rows, key=lambda row: (row.depth or 0, row.embedded or 0))))
        for name, rows in found.items()
    ]
    series.sort(key=lambda one: -one.points[-1].metrics[task.primary].value)
    return series[:MAX_SERIES]


def series_name(row: RowResult) -> str:
    """What the cascades of different depth over one first stage have in common."""
    stage = FIRST_STAGES.get(row.first_stage, row.first_stage)
    searched = "gallery" if row.strategy == "lifted-cascade" else "query"
    return ", ".join(filter(None, (f"{stage} {searched}" if stage else "", row.method))) or "cascade"


class _CascadePlot:
    def __init__(
        self, task: TaskResult, series: Sequence[_Series], recommended: str | None, layout: Layout
    ) -> None:
        self.task, self.series, self.recommended, self.layout = task, series, recommended, layout
        narrow = layout.stacked
        height = 350.0 if narrow else 380.0
        label = f"{task.primary} of cascades on {task.name} against k, the number of candidates"
        self.drawing = Drawing(layout.width, height, label, f"plot {layout.style}")
        self.left, self.right = 40.0, layout.width - (14 if narrow else 250)
        self.top, self.bottom = 24.0 + (18 * len(series) if narrow else 0), height - 70
        points = [row for one in series for row in one.points]
        rows = [*points, *self._references()]
        estimates = [row.metrics[task.primary] for row in rows]
        self.y = Scale(min(e.low for e in estimates), max(e.high for e in estimates), self.bottom, self.top)
        self.depths = sorted({row.depth or 0 for row in points})

    def x(self, row: RowResult, index: int) -> float:
        """Depths stand at equal distances, as they are mostly doubled; series step aside for each other."""
        step = (self.right - self.left) / len(self.depths)
        aside = (index - (len(self.series) - 1) / 2) * min(12, step / (len(self.series) + 1))
        return self.left + (self.depths.index(row.depth or 0) + 0.5) * step + aside

    def draw(self) -> Drawing:
        self._axes()
        references = self._references()
        for place, row in enumerate(references):
            self._reference(row, above=place == len(references) - 1)
        heights = spread([self.y(one.points[-1].metrics[self.task.primary].value) for one in self.series], 17)
        for index, one in enumerate(self.series):
            self._one_series(index, one, heights[index])
        return self.drawing

    def _references(self) -> list[RowResult]:
        bounds = [row for row in self.task.rows if row.strategy in ("keep", "backfill")]
        drawn = [row for row in bounds if drawable(row, self.task.primary)]
        return sorted(drawn, key=lambda row: row.metrics[self.task.primary].value)

    def _axes(self) -> None:
        for tick in self.y.ticks:
            self.drawing.line(self.left, self.y(tick), self.right, self.y(tick), "grid")
            self.drawing.text(self.left - 8, self.y(tick) + 4, f"{tick:.3g}", "tick", "end")
        step = (self.right - self.left) / len(self.depths)
        for place, depth in enumerate(self.depths):
            x = self.left + (place + 0.5) * step
            self.drawing.text(x, self.bottom + 19, f"k={depth}", "depth", "middle")
            self.drawing.text(x, self.bottom + 36, self._embedded(depth), "tick", "middle")
        caption = f"share of {self.task.n_gallery:,} items embedded for {self.task.n_queries:,} queries"
        self.drawing.text((self.left + self.right) / 2, self.bottom + 60, caption, "axis", "middle")
        self.drawing.text(0, 12, self.task.primary, "axis")

    def _embedded(self, depth: int) -> str:
        rows = [row for one in self.series for row in one.points if (row.depth or 0) == depth]
        shares = sorted(round(100 * (row.embedded or 0) / self.task.n_gallery) for row in rows)
        return f"{shares[0]} %" if shares[0] == shares[-1] else f"{shares[0]}–{shares[-1]} %"

    def _reference(self, row: RowResult, *, above: bool) -> None:
        y = self.y(row.metrics[self.task.primary].value)
        self.drawing.line(self.left, y, self.right, y, f"reference {row.strategy}")
        style = f"reference-name {row.strategy}"
        self.drawing.text(self.left + 6, y + (-6 if above else 15), clip(row.notation, 12), style)

    def _one_series(self, index: int, one: _Series, label_y: float) -> None:
        metric, style = self.task.primary, f"series-{index}"
        places = [(self.x(row, index), self.y(row.metrics[metric].value)) for row in one.points]
        self.drawing.polyline(places, f"series {style}")
        for row, (x, y) in zip(one.points, places, strict=True):
            estimate = row.metrics[metric]
            self.drawing.line(x, self.y(estimate.low), x, self.y(estimate.high), f"whisker {style}")
            measured = f"{number(estimate.value)} ({interval(estimate)})"
            tip = f"{row.title}: {measured}, {row.embedded:,} items embedded"
            marker(self.drawing, index, x, y, 7 if row.key == self.recommended else 5, f"dot {style}", tip)
        self._name(index, one, places[-1], label_y)

    def _name(self, index: int, one: _Series, end: tuple[float, float], label_y: float) -> None:
        if self.layout.stacked:
            y = 32.0 + 18 * index
            marker(self.drawing, index, 8, y - 4, 5, f"dot series-{index}", "")
            self.drawing.text(20, y, clip(one.name, 44), f"series-name series-{index}")
        else:
            self.drawing.line(end[0] + 8, end[1], self.right + 8, label_y, "leader")
            self.drawing.text(self.right + 12, label_y + 4, clip(one.name, 34), f"series-name series-{index}")


def marker(drawing: Drawing, index: int, x: float, y: float, r: float, style: str, tip: str) -> None:
    """Circle, square, diamond, triangle: series differ in shape as well as in colour."""
    shapes: tuple[list[tuple[float, float]], ...] = (
        [],
        [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)],
        [(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)],
        [(x, y - 1.2 * r), (x + 1.15 * r, y + 0.9 * r), (x - 1.15 * r, y + 0.9 * r)],
    )
    if shape := shapes[index % len(shapes)]:
        drawing.polygon(shape, style, tip)
    else:
        drawing.circle(x, y, r, style, tip)


def spread(heights: Sequence[float], distance: float) -> list[float]:
    """Move labels apart, downwards, so that none lies on another; the order by height is kept."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + distance)
    return placed
