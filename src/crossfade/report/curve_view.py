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
RAW = "Scores of lifted and re-embedded rows are compared as they are"


@dataclass(frozen=True, slots=True)
class CurveTable:
    """The curves of one task on its primary metric.

    Attributes:
        title: what it shows.
        header: order, shares, area, difference of the area to random order.
        rows: name of the order, its values at the shares, area and difference; at last, where scores are
            brought together, the order by uncertainty with scores as they are.
        notes: how scores are brought together, and orders that could not be had.
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
        rows=tuple(_row(order, curve.primary, places) for order in shown_orders(curve)),
        notes=(scores_in_words(curve), *(f"By {name}: {reason}." for name, reason in curve.skipped.items())),
    )


def shown_orders(curve: BackfillCurve) -> tuple[BackfillOrder, ...]:
    """The orders as they would be searched, and beside them that by uncertainty with scores as they are."""
    return curve.orders if curve.raw is None else (*curve.orders, curve.raw)


def scores_in_words(curve: BackfillCurve) -> str:
    """How lifted and re-embedded rows come into one ranking, on what that was chosen, and what it gains."""
    if not curve.ways:
        return f"{RAW}{f': {curve.held_out}' if curve.held_out else ''}."
    ways = "; ".join(
        f"{name} ({', '.join(f'{100 * share:.0f} %' for share in shares)})"
        for name, shares in _shares_by_way(curve).items()
    )
    gained = curve.over_raw.get(curve.primary)
    more = (
        f" In the order by uncertainty the area is {number(gained.value, sign=True)} "
        f"({interval(gained, sign=True)}) against scores as they are."
        if gained
        else ""
    )
    return f"Searched as a partial backfill would be, chosen on {curve.held_out}: {ways}.{more}"


def _shares_by_way(curve: BackfillCurve) -> dict[str, list[float]]:
    """Shares by how rows are searched; where all are of one origin there is nothing to bring together."""
    found: dict[str, list[float]] = {}
    for share, way in zip(curve.shares, curve.ways, strict=True):
        if 0 < share < 1:
            found.setdefault(_way_in_words(way), []).append(share)
    return found


def _way_in_words(way: str) -> str:
    levelled, _, merge = way.rpartition(", ") if way != "levelled" else (way, "", "raw")
    scores = "scores as they are" if merge == "raw" else f"scores merged by {merge}"
    return f"lifted vectors levelled, {scores}" if levelled else scores


def _row(order: BackfillOrder, metric: str, places: list[int]) -> tuple[str, tuple[str, ...], Cell, Cell]:
    values = tuple(number(order.values[metric][place].value) for place in places)
    area, against = order.area[metric], order.against_random.get(metric)
    difference = Cell("–")
    if against is not None:
        difference = Cell(number(against.value, sign=True), interval(against, sign=True), mark_of(against))
    return order.name, values, Cell(number(area.value), interval(area)), difference
