"""Orthogonal Procrustes: a rotation, and nothing that could overfit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from crossfade.adapters.linear import Affine, LinearAdapter, held_out_figures
from crossfade.adapters.statistics import Matrix, PairStatistics, SplitStatistics


class Procrustes(LinearAdapter):
    """The orthogonal matrix R that minimises ‖XR - Y‖² (Schönemann, Psychometrika 1966).

    With the thin singular value decomposition XᵀY = U S Vᵀ, R = U Vᵀ. Between unequal dimensions R is
    semi-orthogonal: its rows are orthonormal if it goes up, its columns if it goes down. Angles within the
    smaller space are kept, which is what makes it robust with few pairs and for queries that
    look unlike the pairs (Drift-Adapter, EMNLP 2025, section 3).

    Args:
        centred: rotate about the mean vectors of both sides instead of the origin.
        scaled: multiply by the least-squares scale tr(S) / ‖XR‖². Without a centre it changes no cosine.
        seed: chooses the held-out pairs that the reported error is measured on.
    """

    name: ClassVar[str] = "procrustes"
    complexity: ClassVar[int] = 1

    def __init__(self, *, centred: bool = True, scaled: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.centred, self.scaled, self.seed = centred, scaled, seed

    def required_pairs(self, d_source: int, d_target: int) -> int:
        """Enough to determine the rotation in every direction of the smaller space."""
        return min(d_source, d_target) + int(self.centred)

    def _learn_statistics(self, split: SplitStatistics) -> None:
        self.held_out = held_out_figures(self.solve(split.fitting), split)
        self._keep(self.solve(split.whole))

    def solve(self, statistics: PairStatistics) -> Affine:
        """The rotation for these pairs, without touching the adapter."""
        if not self.centred:
            return Affine(self._rotation(statistics, 0.0, 0.0), np.zeros(len(statistics.y_mean)))
        x_mean, y_mean = statistics.x_mean, statistics.y_mean
        weight = self._rotation(statistics, x_mean, y_mean)
        return Affine(weight, y_mean - x_mean @ weight)

    def _rotation(self, statistics: PairStatistics, x: Matrix | float, y: Matrix | float) -> Matrix:
        moments = statistics.about(x, y)
        left, singular, right = np.linalg.svd(moments.xy, full_matrices=False)
        rotation: Matrix = left @ right
        if self.scaled:
            rotation *= singular.sum() / float(np.vdot(rotation, moments.xx @ rotation))
        return rotation
