"""Ridge regression: the affine map, its strength chosen on held-out pairs."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from crossfade.adapters.linear import Affine, LinearAdapter, as_float32, held_out_figures
from crossfade.adapters.statistics import Matrix, PairStatistics, SplitStatistics
from crossfade.errors import UsageError
from crossfade.vectors import FloatMatrix

STRENGTHS = np.logspace(-6, 2, 33)


class Ridge(LinearAdapter):
    """The affine map that minimises ‖XW + b - Y‖² + λ n v ‖W‖², v the mean variance of a source component.

    λ is chosen among 33 values from 1e-6 to 100 by the squared error on held-out pairs. One
    eigendecomposition of XᵀX gives the map for every λ, and the statistics of the held-out pairs give its
    error, so that the choice costs no further pass. The final map is fitted on all pairs.

    Args:
        strength: λ; None to choose it.
        seed: chooses the held-out pairs.
    """

    name: ClassVar[str] = "ridge"
    complexity: ClassVar[int] = 3

    def __init__(self, *, strength: float | None = None, seed: int = 0) -> None:
        super().__init__()
        if strength is not None and not strength >= 0:
            raise UsageError(f"strength must be 0 or more, got {strength}")
        self.strength, self.seed = strength, seed

    def required_pairs(self, d_source: int, d_target: int) -> int:
        """A quarter of the source dimension: fewer leave most of the map to the regularisation."""
        return max(20, d_source // 4)

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        return {
            **super().shapes(d_source, d_target),
            "whitening": (d_source, d_source),
            "source_mean": (d_source,),
        }

    def _expected_error(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        """Predictive variance σ² (1 + leverage), (b,) float32, σ² the squared error on held-out pairs.

        The leverage (x - x̄)ᵀ (XᵀX + λnvI)⁻¹ (x - x̄) says how far x lies from what the pairs cover
        (Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, section 3.2).
        """
        whitened = (X - self.arrays["source_mean"]) @ self.arrays["whitening"]
        leverage = np.einsum("ij,ij->i", whitened, whitened)
        variance: FloatMatrix = np.float32(self.held_out["squared error"]) * (1 + leverage)
        return variance

    def solve_fitting(self, split: SplitStatistics) -> tuple[Affine, float]:
        """The map fitted without the held-out pairs, and its strength."""
        fitting = Spectrum.of(split.fitting)
        strength = choose_strength(fitting, split.held_out) if self.strength is None else self.strength
        return fitting.solution(strength), strength

    def _learn_statistics(self, split: SplitStatistics) -> None:
        solution, strength = self.solve_fitting(split)
        self.chosen = {"strength": strength}
        self.held_out = held_out_figures(solution, split)
        whole = Spectrum.of(split.whole)
        self._keep(whole.solution(strength))
        self.arrays["whitening"] = as_float32(whole.whitening(strength))
        self.arrays["source_mean"] = as_float32(whole.x_mean)


class Spectrum(NamedTuple):
    """XᵀX = V diag(e) Vᵀ about the means, and what ridge regression needs besides."""

    values: Matrix
    vectors: Matrix
    rotated_xy: Matrix  # VᵀXᵀY
    x_mean: Matrix
    y_mean: Matrix

    @classmethod
    def of(cls, statistics: PairStatistics) -> Spectrum:
        """Decompose the second moments of `statistics`."""
        moments = statistics.about(statistics.x_mean, statistics.y_mean)
        values, vectors = np.linalg.eigh(moments.xx)
        # Rounding leaves tiny or negative values where X has no variance; they must not be divided by.
        values = np.maximum(values, max(values[-1] * len(values) * np.finfo(np.float64).eps, 1e-30))
        return cls(values, vectors, vectors.T @ moments.xy, statistics.x_mean, statistics.y_mean)

    def shrunk(self, strength: float) -> Matrix:
        """e + λnv, (d_source,)."""
        shrunk: Matrix = self.values + strength * self.values.mean()
        return shrunk

    def solution(self, strength: float) -> Affine:
        """The ridge map of this strength."""
        weight = self.vectors @ (self.rotated_xy / self.shrunk(strength)[:, None])
        return Affine(weight, self.y_mean - self.x_mean @ weight)

    def whitening(self, strength: float) -> Matrix:
        """L with LLᵀ = (XᵀX + λnvI)⁻¹."""
        return self.vectors / np.sqrt(self.shrunk(strength))


def choose_strength(spectrum: Spectrum, held_out: PairStatistics) -> float:
    """The strength with the smallest squared error on the held-out pairs, all in closed form.

    In the eigenbasis W = V diag(f) A with A = VᵀXᵀY and f = 1 / (e + λnv), so that over the held-out moments
    tr(WᵀXᵀY) = Σ f_i (A ∘ VᵀX̃ᵀỸ)_i and tr(WᵀX̃ᵀX̃W) = fᵀ (VᵀX̃ᵀX̃V ∘ AAᵀ) f: a vector product each.
    """
    moments = held_out.about(spectrum.x_mean, spectrum.y_mean)
    linear = np.einsum("ij,ij->i", spectrum.rotated_xy, spectrum.vectors.T @ moments.xy)
    quadratic = spectrum.vectors.T @ moments.xx @ spectrum.vectors
    quadratic *= spectrum.rotated_xy @ spectrum.rotated_xy.T
    factors = [1 / spectrum.shrunk(strength) for strength in STRENGTHS]
    errors = [float(f @ quadratic @ f - 2 * linear @ f) for f in factors]
    return float(STRENGTHS[int(np.argmin(errors))])
