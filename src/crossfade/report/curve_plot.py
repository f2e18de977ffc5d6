"""The backfill curve as a plot: quality against the share of items that were embedded again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossfade.report.cascade_plot import marker, spread
from crossfade.report.curve_view import shown_orders
from crossfade.report.layout import LAYOUTS, Layout
from crossfade.report.svg import Drawing, Scale
from crossfade.report.view import interval, number

if TYPE_CHECKING:
    from crossfade.evaluation.curves import BackfillCurve, BackfillOrder


def curve_plot(curve: BackfillCurve) -> list[str]:
    """The primary metric in every order, in both forms of the page."""
    return [str(_CurvePlot(curve, layout).draw()) for layout in LAYOUTS]


class _CurvePlot:
    def __init__(self, curve: BackfillCurve, layout: Layout) -> None:
        self.curve, self.layout = curve, layout
        narrow = layout.stacked
        height = 350.0 if narrow else 380.0
        label = f"{curve.primary} of {curve.task} against the share of items embedded again"
        self.drawing = Drawing(layout.width, height, label, f"plot {layout.style}")
        self.left, self.right = 40.0, layout.width - (14 if narrow else 210)
        self.orders = shown_orders(curve)
        self.top, self.bottom = 24.0 + (18 * len(self.orders) if narrow else 0), height - 50
        values = [one.value for order in self.orders for one in order.values[curve.primary]]
        old = curve.old[curve.primary]
        self.y = Scale(min(*values, old), max(*values, old), self.bottom, self.top)
        self.x = Scale(0, 1, self.left, self.right)

    def draw(self) -> Drawing:
        self._axes()
        old = self.y(self.curve.old[self.curve.primary])
        self.drawing.line(self.left, old, self.right, old, "reference keep")
        self.drawing.text(self.left + 6, old - 6, "old/old", "reference-name keep")
        middles = [self.y(self._middle(order)) for order in self.orders]
        heights = spread(middles, 17)
        for index, order in enumerate(self.orders):
            self._order(index, order, heights[index])
        return self.drawing

    def _middle(self, order: BackfillOrder) -> float:
        """Where the curves lie furthest apart, their names tell them apart best."""
        values = order.values[self.curve.primary]
        return values[len(values) // 2].value

    def _axes(self) -> None:
        for tick in self.y.ticks:
            self.drawing.line(self.left, self.y(tick), self.right, self.y(tick), "grid")
            self.drawing.text(self.left - 8, self.y(tick) + 4, f"{tick:.3g}", "tick", "end")
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            self.drawing.text(self.x(share), self.bottom + 18, f"{100 * share:.0f} %", "tick", "middle")
        caption = f"share of {self.curve.n_gallery:,} items embedded again"
        self.drawing.text((self.left + self.right) / 2, self.bottom + 40, caption, "axis", "middle")
        self.drawing.text(0, 12, self.curve.primary, "axis")

    def _order(self, place: int, order: BackfillOrder, height: float) -> None:
        index = place
        raw = order is self.curve.raw
        if raw:  # in the colour of the order that it stands beside
            index = next(row for row, one in enumerate(self.orders) if order.name.startswith(one.name))
        metric, style = self.curve.primary, f"series-{index % 4}"
        estimates = order.values[metric]
        points = [
            (self.x(share), self.y(one.value))
            for share, one in zip(self.curve.shares, estimates, strict=True)
        ]
        self.drawing.polyline(points, f"series {style} beside" if raw else f"series {style}")
        for (x, y), share, one in zip(points, self.curve.shares, estimates, strict=True):
            tip = f"{order.name}, {100 * share:.0f} %: {number(one.value)} ({interval(one)})"
            marker(self.drawing, index, x, y, 4, f"dot {style}", tip)
        if self.layout.stacked:
            y = 32.0 + 18 * place
            marker(self.drawing, index, 8, y - 4, 5, f"dot {style}", "")
            self.drawing.text(20, y, order.name, f"series-name {style}")
        else:
            marker(self.drawing, index, self.right + 14, height, 5, f"dot {style}", "")
            self.drawing.text(self.right + 26, height + 4, order.name, f"series-name {style}")
