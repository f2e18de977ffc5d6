"""What the linear maps share: fitted from sufficient statistics, applied as one matrix product."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import numpy as np

from crossfade.adapters.base import Adapter
from crossfade.adapters.prepared import PreparedPairs
from crossfade.adapters.statistics import Matrix, SplitStatistics, gather
from crossfade.vectors import FloatMatrix

TINY = float(np.finfo(np.float64).tiny)


class Affine(NamedTuple):
    """y = x @ weight + bias: weight (d_source, d_target), bias (d_target,)."""

    weight: Matrix
    bias: Matrix


class LinearAdapter(Adapter):
    """A map x @ weight + bias.

    Args:
        seed: chooses the held-out pairs.
    """

    seed: int

    @property
    def weight(self) -> FloatMatrix:
        """(d_source, d_target) float32."""
        return self.arrays["weight"]

    @property
    def bias(self) -> FloatMatrix:
        """(d_target,) float32."""
        return self.arrays["bias"]

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        return {"weight": (d_source, d_target), "bias": (d_target,)}

    def _learn(self, pairs: PreparedPairs) -> None:
        self._learn_statistics(gather(pairs, self.seed))

    @abstractmethod
    def _learn_statistics(self, split: SplitStatistics) -> None:
        """Set `arrays`, `chosen` and `held_out`."""

    def _keep(self, solution: Affine) -> None:
        self.arrays = {"weight": as_float32(solution.weight), "bias": as_float32(solution.bias)}

    def _map(self, X: FloatMatrix) -> FloatMatrix:
        mapped = X @ self.weight
        mapped += self.bias
        return mapped


def held_out_figures(solution: Affine, split: SplitStatistics) -> dict[str, float]:
    """Errors on the held-out pairs of a map that was fitted on the others.

    Squared error per pair, and the same relative to answering with the mean target vector; both of the map
    itself, before mapped vectors are scaled to unit length.
    """
    error = split.held_out.about(0.0, solution.bias).squared_error(solution.weight)
    variance = split.held_out.about(0.0, split.fitting.y_mean).yy
    n = split.held_out.n
    return {"pairs": n, "squared error": error / n, "relative squared error": error / max(variance, TINY)}


def as_float32(matrix: Matrix) -> FloatMatrix:
    """A contiguous float32 copy."""
    return np.ascontiguousarray(matrix, dtype=np.float32)
