"""Intervals of means over queries by the bootstrap (Efron and Tibshirani, 1993, chapter 13)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.estimates import Estimate

LEVEL = 0.95
CHUNK_NUMBERS = 8 << 20


class Groups:
    """Queries that are resampled together; every query alone if no `numbers` are given.

    Args:
        n_queries: number of queries (Q).
        numbers: (Q,) equal numbers mark one group.
    """

    def __init__(self, n_queries: int, numbers: NDArray[np.integer] | None = None) -> None:
        self._of = None if numbers is None else np.unique(numbers, return_inverse=True)[1]
        self.sizes = np.ones(n_queries) if self._of is None else np.bincount(self._of).astype(np.float64)

    def __len__(self) -> int:
        return len(self.sizes)

    def totals(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """(R, G) sums per group of per-query values (R, Q)."""
        if self._of is None:
            return values.astype(np.float64, copy=False)
        return np.stack([np.bincount(self._of, weights=row, minlength=len(self)) for row in values])


def bootstrap_means(
    values: NDArray[np.floating], *, samples: int = 1000, seed: int = 0, groups: Groups | None = None
) -> NDArray[np.float64]:
    """Means of R rows over resampled queries, the same resamples for every row.

    Args:
        values: (R, Q) one value per row and query.
        samples: number of resamples (S).
        seed: of the resampling.
        groups: queries that are resampled together.

    Returns:
        (S, R); the difference of two columns is the bootstrap of their paired difference.
    """
    groups = groups or Groups(values.shape[1])
    totals, rng = groups.totals(values), np.random.default_rng(seed)
    means = np.empty((samples, len(values)))
    chunk = max(1, CHUNK_NUMBERS // len(groups))
    for start in range(0, samples, chunk):
        counts = _draw(min(chunk, samples - start), len(groups), rng)
        means[start : start + chunk] = (counts @ totals.T) / (counts @ groups.sizes)[:, None]
    return means


def _draw(samples: int, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = rng.integers(n, size=(samples, n)) + n * np.arange(samples)[:, None]
    return np.bincount(drawn.ravel(), minlength=samples * n).reshape(samples, n).astype(np.float64)


def interval(resampled: NDArray[np.floating], level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of resampled means (S,)."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    values: NDArray[np.floating], *, samples: int = 1000, seed: int = 0, groups: Groups | None = None
) -> Estimate:
    """Mean of per-query values (Q,) and its 95 % percentile interval."""
    means = bootstrap_means(values[None, :], samples=samples, seed=seed, groups=groups)
    return Estimate(float(np.mean(values)), *interval(means[:, 0]))
