"""Lifted vectors moved so that they score like re-embedded ones, for readers that know of no origins.

A lifted vector h is the mean of what the new vector may be, and the mean lies nearer to everything: lifted
rows score higher than re-embedded ones would, and crowd these out of every result. A merge of scores cannot
help where an application reads the column itself, or where the index returns nothing but lifted rows. So the
vectors are moved:

    h' = unit(a·h + t·m + s·r)

m is the mean direction of new vectors, with which all queries have nearly the same cosine; r is a direction
in which the new model's vectors hardly vary, so that no query scores on it. Cosines of lifted rows become
a·cosine plus a constant, and their order among themselves stays very nearly as it was. Scale and constant
bring them to the mean and the spread of re-embedded scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.prepared import scale_to_unit
from crossfade.errors import DataError
from crossfade.vectors import FloatMatrix

LEAST_VECTORS = 100
FLAT_SHARE = 8
"""The quietest direction is sought among one in so many of the principal directions."""


@dataclass(frozen=True)
class Levelling:
    """How lifted vectors are moved.

    Attributes:
        scale: a, from 0 to 1.
        move: (d,) t·m + s·r.
    """

    scale: float
    move: NDArray[np.float32]

    def __call__(self, lifted: FloatMatrix) -> FloatMatrix:
        """(n, d) unit vectors from lifted ones (n, d)."""
        return scale_to_unit(self.scale * scale_to_unit(lifted) + self.move, in_place=True)


def fit_levelling(lifted: FloatMatrix, new: FloatMatrix, queries: FloatMatrix) -> Levelling:
    """Fit on the same items lifted and re-embedded, and on queries of the new model.

    Args:
        lifted, new: (n, d) the items, row for row; not those that the map was fitted on.
        queries: (q, d) that ask for them; rows equal to an item's new vector are that item itself.

    Raises:
        DataError: fewer than a hundred items, or vectors that do not vary.
    """
    if len(lifted) < LEAST_VECTORS:
        raise DataError(f"{len(lifted)} items are too few to level; at least {LEAST_VECTORS} are needed")
    lifted, new, queries = (scale_to_unit(one) for one in (lifted, new, queries))
    whole, own = queries @ new.T, queries @ lifted.T
    others = whole < 1 - 1e-6
    if not others.any():
        raise DataError("the vectors of the sample do not vary; take other items")
    spread, target = float(own[others].std()), float(whole[others].std())
    scale = min(1.0, target / max(spread, 1e-9))
    constant = float(whole[others].mean()) - scale * float(own[others].mean())
    mean = _unit(new.mean(axis=0, dtype=np.float64))
    along = constant / float((queries @ mean).mean())
    beside = float((lifted @ mean).mean())
    rest = 1 - scale**2 - along**2 - 2 * scale * along * beside
    move = along * mean + np.sqrt(max(rest, 0.0)) * quiet_direction(new, mean)
    return Levelling(scale, move.astype(np.float32))


def quiet_direction(vectors: FloatMatrix, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d,) a unit direction in which `vectors` (n, d) hardly vary, at right angles to their `mean`."""
    covariance = np.cov(vectors, rowvar=False, dtype=np.float64)
    _, directions = np.linalg.eigh(covariance)
    flat = directions[:, : max(2, len(directions) // FLAT_SHARE)]
    apart = flat - np.outer(mean, mean @ flat)
    basis, _ = np.linalg.qr(apart)
    _, within = np.linalg.eigh(basis.T @ covariance @ basis)
    return _unit(basis @ within[:, 0])


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)
