"""Rows over the same queries: means, intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.bootstrap import Groups, bootstrap_means, interval
from crossfade.evaluation.estimates import Difference, Estimate
from crossfade.evaluation.result import Pairwise
from crossfade.evaluation.significance import sign_flip_p, signed_totals

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairedRows:
    """Some rows (R) on one metric.

    Attributes:
        keys: of the rows.
        means: (R,) over queries.
        totals: (R,) sums over queries.
        resampled: (S, R) means over resampled queries, the same resamples for every row.
        flipped: (P, R) sums under random signs, the same signs for every row.
    """

    keys: tuple[str, ...]
    means: Values
    totals: Values
    resampled: Values
    flipped: Values

    def estimate(self, key: str) -> Estimate:
        """Mean and 95 % interval of a row."""
        row = self.keys.index(key)
        return Estimate(float(self.means[row]), *interval(self.resampled[:, row]))

    def difference(self, key: str, other: str) -> Difference:
        """Row `key` minus row `other`."""
        a, b = self.keys.index(key), self.keys.index(other)
        low, high = interval(self.resampled[:, a] - self.resampled[:, b])
        p = sign_flip_p(self.totals[a] - self.totals[b], self.flipped[:, a] - self.flipped[:, b])
        return Difference(float(self.means[a] - self.means[b]), low, high, p)

    def pairwise(self) -> Pairwise:
        """All paired differences."""
        below = {(a, b): self.difference(a, b) for i, a in enumerate(self.keys) for b in self.keys[:i]}
        every = [[_entry(below, a, b) for b in self.keys] for a in self.keys]

        def table(name: str) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(getattr(entry, name) for entry in row) for row in every)

        return Pairwise(self.keys, *(table(name) for name in ("value", "low", "high", "p")))


def _entry(below: Mapping[tuple[str, str], Difference], a: str, b: str) -> Difference:
    if a == b:
        return Difference(0.0, 0.0, 0.0, 1.0)
    if (a, b) in below:
        return below[a, b]
    other = below[b, a]
    return Difference(-other.value, -other.high, -other.low, other.p)


def paired_rows(
    values: Mapping[str, Mapping[str, Values]], groups: Groups, *, samples: int, seed: int
) -> dict[str, PairedRows]:
    """Rows by metric; resamples and signs are drawn once for all of them.

    Args:
        values: (Q,) by metric and row key, the same keys for every metric.
        groups: queries that are resampled together.
        samples: bootstrap resamples.
        seed: of the resamples and the signs.
    """
    keys = tuple(next(iter(values.values())))
    table = np.stack([rows[key] for rows in values.values() for key in keys])
    totals = groups.totals(table)
    resampled = bootstrap_means(table, samples=samples, seed=seed, groups=groups)
    flipped = signed_totals(totals, seed=seed)
    parts = [slice(start, start + len(keys)) for start in range(0, len(table), len(keys))]
    return {
        metric: PairedRows(
            keys, table[part].mean(axis=1), totals[part].sum(axis=1), resampled[:, part], flipped[:, part]
        )
        for metric, part in zip(values, parts, strict=True)
    }
