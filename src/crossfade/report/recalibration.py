"""Thresholds carried over, as a table on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from crossfade.evaluation.estimates import Estimate
    from crossfade.evaluation.recalibration import Recalibrated, Recalibration

HEADER = ("old", "new", "method", "above old", "above new", "error", "agreement")
LEGEND = (
    "above: held-out pairs from the threshold on; error: more or fewer of them than before; agreement: how "
    "far they are the same (Dice); with 95 % intervals"
)


def recalibration_view(found: Recalibration) -> RenderableType:
    """Old and new threshold, pairs above each, error and agreement on held-out queries."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in HEADER:
        table.add_column(name, justify="left" if name == "method" else "right")
    for one in found.thresholds:
        table.add_row(*_cells(one))
    notes = [f"{one.old:.4g}, {one.method}: {one.note}" for one in found.thresholds if one.note]
    low, high = found.old_range
    new_low, new_high = found.new_range
    sample = (
        f"{found.queries:,} queries, {found.items:,} items; old scores {low:.3f} to {high:.3f}, "
        f"new scores {new_low:.3f} to {new_high:.3f}"
    )
    return Group(Text(sample), Text(), table, Text(), *map(Text, notes), Text(LEGEND, style="dim"))


def _cells(one: Recalibrated) -> tuple[str, ...]:
    new = "none" if one.new is None else f"{one.new:.4f}"
    if one.error is None or one.agreement is None:
        return (f"{one.old:.4f}", new, one.method, "", "", "", "")
    return (
        f"{one.old:.4f}",
        new,
        one.method,
        f"{one.above_old:,}",
        f"{one.above_new:,}",
        _estimate(one.error, "+.1%"),
        _estimate(one.agreement, ".2f"),
    )


def _estimate(one: Estimate, form: str) -> str:
    return f"{one.value:{form}} [{one.low:{form}}, {one.high:{form}}]"
