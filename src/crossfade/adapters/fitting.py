"""Fit by the name of a method."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Adapter
from crossfade.errors import UsageError
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, Pairs, VectorSource

Side = NDArray[np.floating] | VectorSource


def fit(
    X: Side | Pairs,
    Y: Side | None = None,
    *,
    method: str = "auto",
    source: Space | None = None,
    target: Space | None = None,
    direction: Literal["forward", "backward"] = "forward",
    seed: int = 0,
) -> Adapter:
    """Fit a map from X to Y, the same items embedded by two models.

    Args:
        X, Y: arrays (n, d_source) and (n, d_target), row for row the same items; or two sources of vectors
            (`Vectors`, `open_vectors`), which are aligned by id and bring their spaces; or `Pairs` alone.
        method: ``auto`` or a name in `METHODS`.
        source, target: the spaces of plain arrays; without them the adapter cannot be saved.
        direction: ``forward`` if stored vectors will be mapped, ``backward`` if queries will be; only
            ``auto`` needs to know, because it judges the methods in the way they will be used.
        seed: makes the fit repeatable.

    Raises:
        UsageError: no method has this name, or X and Y are not of one kind.
        IdMismatch: items of Y are missing in X.
        TooFewPairs, InvalidVectors, DimensionMismatch: see `Adapter.fit`.
    """
    from crossfade.adapters.auto import fit_auto
    from crossfade.adapters.registry import make_adapter

    pairs = _pairs(X, Y, source, target)
    if method == "auto":
        return fit_auto(pairs, direction=direction, seed=seed).adapter
    return make_adapter(method, seed=seed, direction=direction).fit_pairs(pairs)


def _pairs(X: Side | Pairs, Y: Side | None, source: Space | None, target: Space | None) -> Pairs:
    from crossfade.vectors.align import align

    if isinstance(X, Pairs) and Y is None:
        return X
    if isinstance(X, VectorSource) and isinstance(Y, VectorSource):
        return align(X, Y)
    if X is None or Y is None or isinstance(X, (Pairs, VectorSource)) or isinstance(Y, VectorSource):
        raise UsageError(
            f"fit takes two arrays, two sources of vectors, or pairs alone; got {type(X).__name__} and "
            f"{type(Y).__name__}; bring both sides in the same form"
        )
    return ArrayPairs(X, Y, source=source, target=target)
