"""Quality against the share of the gallery that was embedded again, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from crossfade.errors import UsageError
from crossfade.evaluation.estimates import Difference, Estimate

RANDOM, UNCERTAINTY, CLASS_MEAN, ORACLE = "random", "uncertainty", "distance to class mean", "oracle"
RAW_UNCERTAINTY = "uncertainty, raw scores"
"""The order of a partial backfill where nothing brings lifted and re-embedded scores together."""


@dataclass(frozen=True, slots=True)
class BackfillOrder:
    """One order in which items are embedded again.

    Attributes:
        name: random, uncertainty, distance to class mean or oracle; the first of these also with raw scores.
        values: mean and interval per metric and share.
        against_old: paired difference to old/old per metric and share.
        area: under the curve per metric, shares from 0 to 1: the mean quality over the whole backfill.
        against_random: paired difference of the area to that of random order, per metric; empty for it.
    """

    name: str
    values: dict[str, tuple[Estimate, ...]]
    against_old: dict[str, tuple[Difference, ...]]
    area: dict[str, Estimate]
    against_random: dict[str, Difference] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackfillOrder:
        """Read what `asdict` made of it."""
        return cls(
            values["name"],
            {name: tuple(map(Estimate.from_dict, row)) for name, row in values["values"].items()},
            {name: tuple(map(Difference.from_dict, row)) for name, row in values["against_old"].items()},
            {name: Estimate.from_dict(value) for name, value in values["area"].items()},
            {name: Difference.from_dict(value) for name, value in values["against_random"].items()},
        )


@dataclass(frozen=True, slots=True)
class BackfillCurve:
    """New queries on a gallery that is lifted at first and embedded again little by little.

    Attributes:
        task: its name.
        method: the forward map; its lifted gallery is where every curve begins.
        metrics, primary: of the task.
        shares: of the gallery that was embedded again, 0 to 1.
        n_gallery: items in it.
        old: old/old per metric.
        orders: the curves, as a partial backfill would be searched.
        skipped: orders that could not be had, and why.
        ways: per share, how lifted and re-embedded rows came into one ranking: ``raw``, ``levelled``, a merge
            of scores, or both; empty if scores were compared as they are throughout.
        raw: the order by uncertainty with scores as they are; None if `orders` has it so.
        over_raw: area of the order by uncertainty minus that of `raw`, paired, per metric.
        held_out: on which items the ways were chosen, or why on none.
    """

    task: str
    method: str
    metrics: tuple[str, ...]
    primary: str
    shares: tuple[float, ...]
    n_gallery: int
    old: dict[str, float]
    orders: tuple[BackfillOrder, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    ways: tuple[str, ...] = ()
    raw: BackfillOrder | None = None
    over_raw: dict[str, Difference] = field(default_factory=dict)
    held_out: str = ""

    def order(self, name: str) -> BackfillOrder:
        """The curve of this order.

        Raises:
            UsageError: it was not measured.
        """
        if name == RAW_UNCERTAINTY:
            return self.raw or self.order(UNCERTAINTY)
        for order in self.orders:
            if order.name == name:
                return order
        reason = self.skipped.get(name, f"there are {', '.join(order.name for order in self.orders)}")
        raise UsageError(f"no backfill curve in the order {name!r} was measured: {reason}")

    def share_for(self, retained: float, *, order: str = UNCERTAINTY, metric: str | None = None) -> float:
        """Smallest share at which a metric reaches `retained` of what the full backfill has.

        Between the measured shares the curve is taken to be straight.

        Args:
            retained: e.g. 0.98 for 98 % of new/new.
            metric: the primary one unless given.
        """
        if not 0 < retained <= 1:
            raise UsageError(
                f"the quality to keep is a share of the full backfill's, between 0 and 1, got {retained}"
            )
        values = [estimate.value for estimate in self.order(order).values[metric or self.primary]]
        wanted = retained * values[-1]
        if values[0] >= wanted:
            return 0.0
        points = zip(self.shares, values, strict=True)
        for (share, value), (following, higher) in pairwise(points):
            if value < wanted <= higher:
                return share + (following - share) * (wanted - value) / (higher - value)
        return 1.0

    def at(
        self, share: float, *, order: str = UNCERTAINTY, metric: str | None = None
    ) -> tuple[Estimate, Difference]:
        """Quality at a share, and its difference to old/old: of the nearest measured share not above it."""
        place = self._place(share)
        found, name = self.order(order), metric or self.primary
        return found.values[name][place], found.against_old[name][place]

    def way_at(self, share: float, *, order: str = UNCERTAINTY) -> str:
        """How scores were brought together where `at` looks."""
        return self.ways[self._place(share)] if self.ways and order != RAW_UNCERTAINTY else "raw"

    def _place(self, share: float) -> int:
        return max(row for row, measured in enumerate(self.shares) if measured <= share + 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """The curves as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackfillCurve:
        """Read what `to_dict` wrote."""
        orders = tuple(map(BackfillOrder.from_dict, values["orders"]))
        return cls(
            **{
                **values,
                "metrics": tuple(values["metrics"]),
                "shares": tuple(values["shares"]),
                "orders": orders,
                "ways": tuple(values.get("ways", ())),
                "raw": BackfillOrder.from_dict(values["raw"]) if values.get("raw") else None,
                "over_raw": {
                    name: Difference.from_dict(one) for name, one in values.get("over_raw", {}).items()
                },
            }
        )
