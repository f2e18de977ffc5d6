"""Paired tests between two rows over the same queries, and their correction for many candidates."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 10_000
CHUNK_NUMBERS = 8 << 20
TOLERANCE = 1e-9


def signed_totals(
    totals: NDArray[np.floating], *, permutations: int = PERMUTATIONS, seed: int | Sequence[int] = 0
) -> NDArray[np.float64]:
    """Sums of R rows over queries (or groups of them) with random signs, the same signs for every row.

    Args:
        totals: (R, G) one value per row and group of queries.
        permutations: number of random sign patterns (P).
        seed: of the signs.

    Returns:
        (P, R); the difference of two columns is the sign-flip distribution of their paired difference.
    """
    rng = np.random.default_rng(seed)
    flipped = np.empty((permutations, len(totals)))
    chunk = max(1, CHUNK_NUMBERS // totals.shape[1])
    for start in range(0, permutations, chunk):
        rows = min(chunk, permutations - start)
        signs = rng.integers(2, size=(rows, totals.shape[1]), dtype=np.int8) * 2.0 - 1.0
        flipped[start : start + rows] = signs @ totals.T
    return flipped


def sign_flip_p(observed: float, flipped: NDArray[np.floating]) -> float:
    """Two-sided p value of a summed paired difference, given its sign-flip distribution (P,).

    Under the null hypothesis either row of a pair is as likely to be ahead (Fisher's randomisation
    test; Smucker et al., CIKM 2007, recommend it for retrieval). The observed pattern counts as one
    of the permutations, so that p is never 0.
    """
    slack = TOLERANCE * max(1.0, abs(observed))
    return float((1 + np.sum(np.abs(flipped) >= abs(observed) - slack)) / (1 + len(flipped)))


@dataclass(frozen=True)
class Contrasts:
    """Paired differences that are tested together.

    Attributes:
        names: of the C differences.
        observed: (C,) standardised sums of differences: under random signs of variance 1.
        flipped: (P, C) the same under random signs.
    """

    names: tuple[Hashable, ...]
    observed: NDArray[np.float64]
    flipped: NDArray[np.float64]

    @classmethod
    def of(
        cls, names: Sequence[Hashable], totals: NDArray[np.floating], flipped: NDArray[np.floating]
    ) -> Contrasts:
        """From differences per query or group (C, G) and their signed sums (P, C)."""
        spread = np.sqrt((totals**2).sum(axis=1))
        scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        return cls(tuple(names), totals.sum(axis=1) * scale, flipped * scale)

    @classmethod
    def joined(cls, families: Sequence[Contrasts]) -> Contrasts:
        """Several families as one; their signs must have been drawn independently."""
        return cls(
            tuple(name for family in families for name in family.names),
            np.concatenate([family.observed for family in families]),
            np.concatenate([family.flipped for family in families], axis=1),
        )


def step_down(family: Contrasts) -> dict[Hashable, float]:
    """p values corrected for the number of differences: step-down maxT (Westfall and Young, 1993).

    The chance that any of the candidates gets so large by luck, taken from the candidates' joint
    distribution. Bridges resemble each other, which Holm's correction would have to ignore.
    """
    size, null = np.abs(family.observed), np.abs(family.flipped)
    order = np.argsort(-size, kind="stable")
    largest = np.full(len(null), -np.inf)
    p = np.empty(len(order))
    for place in range(len(order) - 1, -1, -1):  # largest null value among this and all smaller ones
        largest = np.maximum(largest, null[:, order[place]])
        p[place] = (1 + np.sum(largest >= size[order[place]] - TOLERANCE)) / (1 + len(null))
    adjusted = np.maximum.accumulate(p)
    return {family.names[index]: float(value) for index, value in zip(order, adjusted, strict=True)}
