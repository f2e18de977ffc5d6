"""A measured value with its interval, and a paired difference with its p value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries and its 95 % interval (percentile bootstrap over queries)."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """The estimate as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Estimate:
        """Read what `to_dict` wrote."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between two rows over the same queries.

    Attributes:
        value: mean of the per-query differences.
        low, high: its 95 % interval (percentile bootstrap over queries, the same resamples for both rows).
        p: two-sided p value of a sign-flip permutation test.
        p_adjusted: `p` corrected for the number of candidates (step-down maxT); None where no family
            was tested.
    """

    value: float
    low: float
    high: float
    p: float
    p_adjusted: float | None = None

    @property
    def significantly_better(self) -> bool:
        """Above zero by the interval and by the test, corrected for the number of candidates if it was."""
        p = self.p if self.p_adjusted is None else self.p_adjusted
        return self.low > 0 and p < ALPHA

    @property
    def significantly_worse(self) -> bool:
        """Below zero by the interval or by the uncorrected test: the cautious reading of a loss."""
        return self.value < 0 and (self.high < 0 or self.p < ALPHA)

    def adjusted(self, p: float) -> Difference:
        """The same difference with its corrected p value."""
        return replace(self, p_adjusted=p)

    def to_dict(self) -> dict[str, float | None]:
        """The difference as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Difference:
        """Read what `to_dict` wrote."""
        return cls(**values)
