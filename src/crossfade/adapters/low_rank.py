"""Low-rank affine: the affine map through a bottleneck."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from crossfade.adapters.linear import Affine, LinearAdapter, as_float32, held_out_figures
from crossfade.adapters.ridge import Spectrum, choose_strength
from crossfade.adapters.statistics import Matrix, SplitStatistics
from crossfade.errors import UsageError
from crossfade.vectors import FloatMatrix


class LowRank(LinearAdapter):
    """x ↦ (x @ down) @ up + bias with a bottleneck of `rank` components.

    Drift-Adapter's second method (EMNLP 2025, section 3), solved in closed form as reduced-rank regression
    (Izenman, Journal of Multivariate Analysis 1975) with a ridge penalty: the ridge map, projected onto the
    leading right singular vectors of its fitted values. The strength of the penalty is chosen on held-out
    pairs, as `Ridge` does.

    Args:
        rank: components of the bottleneck; 64 as in the paper, at most the smaller dimension is used.
        strength: λ of the ridge penalty; None to choose it.
        seed: chooses the held-out pairs.
    """

    name: ClassVar[str] = "low-rank"
    complexity: ClassVar[int] = 2

    def __init__(self, *, rank: int = 64, strength: float | None = None, seed: int = 0) -> None:
        super().__init__()
        if rank < 1:
            raise UsageError(f"rank must be at least 1, got {rank}")
        if strength is not None and not strength >= 0:
            raise UsageError(f"strength must be 0 or more, got {strength}")
        self.rank, self.strength, self.seed = rank, strength, seed

    def required_pairs(self, d_source: int, d_target: int) -> int:
        """As many as the bottleneck has components, and what `Ridge` asks for."""
        return max(20, d_source // 4, self._rank(d_source, d_target))

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        rank = self._rank(d_source, d_target)
        return {"down": (d_source, rank), "up": (rank, d_target), "bias": (d_target,)}

    @property
    def weight(self) -> FloatMatrix:
        """The product of both factors, (d_source, d_target) float32."""
        product: FloatMatrix = self.arrays["down"] @ self.arrays["up"]
        return product

    def _rank(self, d_source: int, d_target: int) -> int:
        return min(self.rank, d_source, d_target)

    def _learn_statistics(self, split: SplitStatistics) -> None:
        fitting = Spectrum.of(split.fitting)
        strength = choose_strength(fitting, split.held_out) if self.strength is None else self.strength
        down, up, bias = self._factors(fitting, strength)
        self.held_out = held_out_figures(Affine(down @ up, bias), split)
        down, up, bias = self._factors(Spectrum.of(split.whole), strength)
        self.arrays = {"down": as_float32(down), "up": as_float32(up), "bias": as_float32(bias)}
        self.chosen = {"strength": strength, "rank": up.shape[0]}

    def _factors(self, spectrum: Spectrum, strength: float) -> tuple[Matrix, Matrix, Matrix]:
        weight, _ = spectrum.solution(strength)
        # Wᵀ(XᵀX + λnvI)W: what the penalised fit explains of the target's variance.
        whitened = spectrum.rotated_xy / np.sqrt(spectrum.shrunk(strength))[:, None]
        _, directions = np.linalg.eigh(whitened.T @ whitened)
        leading = directions[:, ::-1][:, : self._rank(*weight.shape)]
        down, up = weight @ leading, leading.T
        return down, up, spectrum.y_mean - (spectrum.x_mean @ down) @ up

    def _map(self, X: FloatMatrix) -> FloatMatrix:
        mapped: FloatMatrix = np.matmul(X @ self.arrays["down"], self.arrays["up"])
        mapped += self.bias
        return mapped
