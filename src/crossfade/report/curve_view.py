"""Backfill curves as text cells: one table for HTML, Markdown and terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossfade.report.view import Cell, interval, mark_of, number

if TYPE_CHECKING:
    from crossfade.evaluation.curves import BackfillCurve, BackfillOrder

SHOWN = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
LEGEND = (
    "Every curve begins with the lifted gallery and ends with the new model's own; the area is the mean over "
    "all shares. Oracle: by the true error, which only someone who has embedded everything can know."
)


@dataclass(frozen=True, slots=True)
class CurveTable:
    """The curves of one task on its primary metric.

    Attributes:
        title: what it shows.
        header: order, shares, area, difference of the area to random order.
        rows: name of the order, its values at the shares, area and difference.
        notes: orders that could not be had.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], Cell, Cell], ...]
    notes: tuple[str, ...]


def curve_view(curve: BackfillCurve) -> CurveTable:
    """A curve as a table of some of its shares."""
    places = [place for place, share in enumerate(curve.shares) if share in SHOWN]
    shares = tuple(f"{100 * curve.shares[place]:.0f} %" for place in places)
    return CurveTable(
        title=f"{curve.primary} against the share of {curve.n_gallery:,} items embedded again "
        f"({curve.task}; the rest lifted by {curve.method})",
        header=("Order", *shares, "Area", "Area − random"),
        rows=tuple(_row(order, curve.primary, places) for order in curve.orders),
        notes=tuple(f"By {name}: {reason}." for name, reason in curve.skipped.items()),
    )


def _row(order: BackfillOrder, metric: str, places: list[int]) -> tuple[str, tuple[str, ...], Cell, Cell]:
    values = tuple(number(order.values[metric][place].value) for place in places)
    area, against = order.area[metric], order.against_random.get(metric)
    difference = Cell("–")
    if against is not None:
        difference = Cell(number(against.value, sign=True), interval(against, sign=True), mark_of(against))
    return order.name, values, Cell(number(area.value), interval(area)), difference
