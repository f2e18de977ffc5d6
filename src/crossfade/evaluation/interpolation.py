"""Old query and mapped new query together, by spherical interpolation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DimensionMismatch, UsageError
from crossfade.evaluation.scoring import inverse_norms, squared_norms
from crossfade.vectors import FloatMatrix

PARALLEL = 1e-4


def slerp(old: FloatMatrix, mapped: FloatMatrix, weight: float | NDArray[np.floating]) -> FloatMatrix:
    """Points between two queries on the sphere, row for row (Shoemake, 1985; Ricci et al., 2026).

    Directions are interpolated along the great circle, lengths linearly, so that unit vectors stay
    unit vectors. Where the two are parallel or opposite, the straight line takes the circle's place.

    Args:
        old: (Q, d) queries of the old model.
        mapped: (Q, d) new queries mapped into the old space.
        weight: share of the mapped query, 0 (old query alone) to 1; one number or (Q,).

    Raises:
        DimensionMismatch: the two are not of the same shape.
        UsageError: a weight outside of 0 to 1.
    """
    if old.shape != mapped.shape:
        raise DimensionMismatch(
            f"old queries are {old.shape}, mapped queries {mapped.shape}; "
            "map the same queries into the old space"
        )
    share = np.broadcast_to(np.asarray(weight, dtype=np.float64), len(old))[:, None]
    if not ((share >= 0) & (share <= 1)).all():
        raise UsageError(f"an interpolation weight must be from 0 to 1, got {weight}")
    length_old, length_mapped = np.sqrt(squared_norms(old)), np.sqrt(squared_norms(mapped))
    unit_old = old * inverse_norms(length_old**2)[:, None]
    unit_mapped = mapped * inverse_norms(length_mapped**2)[:, None]
    left, right = _arc_shares(np.einsum("ij,ij->i", unit_old, unit_mapped)[:, None], share)
    length = (1 - share) * length_old[:, None] + share * length_mapped[:, None]
    return ((left * unit_old + right * unit_mapped) * length).astype(np.float32)


def _arc_shares(
    cosine: NDArray[np.floating], share: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    angle = np.arccos(np.clip(cosine.astype(np.float64), -1, 1))
    sine = np.sin(angle)
    straight = sine < PARALLEL
    safe = np.where(straight, 1.0, sine)
    left = np.where(straight, 1 - share, np.sin((1 - share) * angle) / safe)
    right = np.where(straight, share, np.sin(share * angle) / safe)
    return left, right
