"""Sufficient statistics of pairs: all that the linear maps need to know, whatever the number of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.prepared import PreparedPairs
from crossfade.vectors import FloatMatrix

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments of n pairs about two points.

    Attributes:
        n: number of pairs.
        xx: sum of (x - a)(x - a)ᵀ, (d_source, d_source).
        xy: sum of (x - a)(y - b)ᵀ, (d_source, d_target).
        yy: sum of ‖y - b‖².
    """

    n: float
    xx: Matrix
    xy: Matrix
    yy: float

    def squared_error(self, weight: Matrix) -> float:
        """Sum of ‖(y - b) - Wᵀ(x - a)‖² = tr(YᵀY) - 2 tr(WᵀXᵀY) + tr(WᵀXᵀXW), without any row."""
        return self.yy - 2 * float(np.vdot(weight, self.xy)) + float(np.vdot(weight, self.xx @ weight))


class PairStatistics:
    """n, Σx, Σy, XᵀX, XᵀY and Σ‖y‖², accumulated in float64 from one float32 product per block.

    Everything is kept about an origin near the means, so that vectors with a large common offset (features
    after a ReLU) lose no precision when the means are taken out.

    Args:
        x_origin: (d_source,) float32.
        y_origin: (d_target,) float32.
    """

    def __init__(self, x_origin: FloatMatrix, y_origin: FloatMatrix) -> None:
        self.x_origin, self.y_origin = x_origin, y_origin
        d_source, d_target = len(x_origin), len(y_origin)
        self.n: float = 0
        self._x = np.zeros(d_source)
        self._y = np.zeros(d_target)
        self._xx = np.zeros((d_source, d_source))
        self._xy = np.zeros((d_source, d_target))
        self._yy = 0.0

    def update(self, X: FloatMatrix, Y: FloatMatrix) -> None:
        """Take in X (b, d_source) and Y (b, d_target)."""
        self.update_shifted(X - self.x_origin, Y - self.y_origin)

    def update_shifted(self, x: FloatMatrix, y: FloatMatrix) -> None:
        """Take in rows that the origins have been subtracted from already."""
        self.n += len(x)
        self._x += x.sum(axis=0, dtype=np.float64)
        self._y += y.sum(axis=0, dtype=np.float64)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._yy += float(np.einsum("ij,ij->i", y, y).sum(dtype=np.float64))

    def __add__(self, other: PairStatistics) -> PairStatistics:
        total = PairStatistics(self.x_origin, self.y_origin)
        total.n = self.n + other.n
        total._x, total._y = self._x + other._x, self._y + other._y
        total._xx, total._xy = self._xx + other._xx, self._xy + other._xy
        total._yy = self._yy + other._yy
        return total

    def weighted(self, weight: float) -> PairStatistics:
        """The same pairs, each counted `weight` times."""
        result = PairStatistics(self.x_origin, self.y_origin)
        result.n = self.n * weight
        result._x, result._y = self._x * weight, self._y * weight
        result._xx, result._xy = self._xx * weight, self._xy * weight
        result._yy = self._yy * weight
        return result

    @property
    def x_mean(self) -> Matrix:
        """Mean source vector, (d_source,)."""
        return self.x_origin + self._x / self.n

    @property
    def y_mean(self) -> Matrix:
        """Mean target vector, (d_target,)."""
        return self.y_origin + self._y / self.n

    def about(self, x: Matrix | float, y: Matrix | float) -> Moments:
        """Second moments about the points `x` and `y`; 0 for uncentred ones."""
        dx, dy = x - self.x_origin.astype(np.float64), y - self.y_origin.astype(np.float64)
        cross = np.outer(self._x, dx)
        xx = self._xx - cross - cross.T + self.n * np.outer(dx, dx)
        xy = self._xy - np.outer(self._x, dy) - np.outer(dx, self._y) + self.n * np.outer(dx, dy)
        yy = self._yy - 2 * float(self._y @ dy) + self.n * float(dy @ dy)
        return Moments(self.n, xx, xy, yy)


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """Statistics of the pairs to fit on and of the held-out ones."""

    fitting: PairStatistics
    held_out: PairStatistics

    @property
    def whole(self) -> PairStatistics:
        """Both together: what the final map is fitted on."""
        return self.fitting + self.held_out


def gather(pairs: PreparedPairs, seed: int) -> SplitStatistics:
    """One pass over `pairs`; its result serves every linear method, and is kept with the pairs."""
    if seed not in pairs.gathered:
        pairs.gathered[seed] = _gather(pairs, seed)
    split: SplitStatistics = pairs.gathered[seed]
    return split


def _gather(pairs: PreparedPairs, seed: int) -> SplitStatistics:
    held_out = pairs.held_out(seed)
    split: SplitStatistics | None = None
    for x, y, mask in pairs.split_blocks(held_out):
        if split is None:
            origin = x.mean(axis=0), y.mean(axis=0)
            split = SplitStatistics(PairStatistics(*origin), PairStatistics(*origin))
        x, y = x - split.fitting.x_origin, y - split.fitting.y_origin
        split.fitting.update_shifted(x[~mask], y[~mask])
        split.held_out.update_shifted(x[mask], y[mask])
    assert split is not None, "required_pairs asks for at least one pair"
    return split
