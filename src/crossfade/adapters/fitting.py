"""Fit by the name of a method."""

from __future__ import annotations

from crossfade.adapters.base import Adapter
from crossfade.vectors import Pairs


def fit(pairs: Pairs, method: str = "auto", *, direction: str = "forward", seed: int = 0) -> Adapter:
    """Fit a map from the pairs' source to their target.

    Args:
        pairs: the same items embedded by both models (`ArrayPairs`, or `crossfade.vectors.align`).
        method: ``auto`` or a name in `METHODS`.
        direction: ``forward`` if stored vectors will be mapped, ``backward`` if queries will be; only
            ``auto`` needs to know, because it judges the methods in the way they will be used.
        seed: makes the fit repeatable.

    Raises:
        UsageError: no method has this name.
        TooFewPairs, InvalidVectors, DimensionMismatch: see `Adapter.fit`.
    """
    from crossfade.adapters.auto import fit_auto
    from crossfade.adapters.registry import make_adapter

    if method == "auto":
        return fit_auto(pairs, direction=direction, seed=seed).adapter
    return make_adapter(method, seed=seed, direction=direction).fit_pairs(pairs)
