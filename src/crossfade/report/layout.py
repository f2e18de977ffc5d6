"""What the plots share: their two forms, and how rows are chosen and named."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossfade.evaluation.result import RowResult


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of one form of a plot, in user units (pixels at full width)."""

    style: str
    width: float
    label_width: float
    value_width: float
    row_height: float
    label_characters: int
    ticks: int

    @property
    def stacked(self) -> bool:
        """Whether labels stand above their row instead of beside it."""
        return self.label_width == 0


WIDE = Layout("wide", 1000, 330, 150, 25, 44, 9)
NARROW = Layout("narrow", 356, 0, 0, 41, 44, 6)
LAYOUTS = (WIDE, NARROW)


def drawable(row: RowResult, metric: str) -> bool:
    """Whether the row has a finite estimate of this metric."""
    estimate = row.metrics.get(metric)
    return estimate is not None and all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))


def clip(text: str, length: int) -> str:
    """At most `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
