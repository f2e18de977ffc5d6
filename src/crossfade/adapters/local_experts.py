"""Local experts: one map per region of the source space, softly blended."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Adapter
from crossfade.adapters.kmeans import kmeans, squared_distances
from crossfade.adapters.linear import Affine, as_float32
from crossfade.adapters.prepared import PreparedPairs, RowSample, scale_to_unit, uses_unit_length
from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.ridge import Ridge, Spectrum, choose_strength
from crossfade.adapters.statistics import PairStatistics
from crossfade.errors import UsageError
from crossfade.vectors import FloatMatrix

Expert = Literal["procrustes", "ridge"]
SAMPLE_ROWS = 20_000


class LocalExperts(Adapter):
    """Σ_c p_c(x) (x @ W_c + b_c) over the clusters c of the source space.

    The clusters come from k-means on a sample of at most 20,000 source vectors. Each expert is fitted on the
    statistics of its own cluster plus some pairs' worth of all pairs, so that a small cluster stays with the
    global map and a large one goes its own way: splitting a small budget without that loses. p_c(x) is the
    softmax of -‖x - centre‖² / (temperature σ²), σ² the mean squared distance to the nearest centre;
    neighbouring experts blend, so that no border cuts through the mapped space.

    Two passes: one draws the sample, one gathers each cluster's statistics. Memory grows with clusters times
    dimensions squared, not with pairs.

    Args:
        clusters: number of experts.
        expert: ``procrustes``, or ``ridge`` (its strength chosen once, on all held-out pairs); None for what
            `direction` asks for.
        direction: ``forward`` takes ridge experts, ``backward`` Procrustes ones: on real vectors least
            squares lifted galleries better, and carried queries back worse, than rotations did.
        shrinkage: how many pairs the global map counts for in each cluster, in multiples of the source
            dimension.
        temperature: softness of the routing; towards 0 each vector belongs to its nearest centre alone.
        seed: chooses the sample, the k-means start and the held-out pairs.
    """

    name: ClassVar[str] = "local-experts"
    complexity: ClassVar[int] = 4

    def __init__(
        self,
        *,
        clusters: int = 8,
        expert: Expert | None = None,
        direction: str = "forward",
        shrinkage: float = 1.0,
        temperature: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if clusters < 1:
            raise UsageError(f"clusters must be at least 1, got {clusters}")
        if expert is not None and expert not in get_args(Expert):
            raise UsageError(f"expert must be one of {', '.join(get_args(Expert))}, got {expert!r}")
        if not (shrinkage > 0 and temperature > 0):
            raise UsageError(f"shrinkage and temperature must be above 0, got {shrinkage} and {temperature}")
        if direction not in ("forward", "backward"):
            raise UsageError(f"direction is 'forward' (gallery) or 'backward' (queries), got {direction!r}")
        self.clusters, self.expert, self.direction = clusters, expert, direction
        self.shrinkage, self.temperature, self.seed = shrinkage, temperature, seed

    @property
    def _ridge_experts(self) -> bool:
        return self.expert == "ridge" if self.expert else self.direction == "forward"

    def required_pairs(self, d_source: int, d_target: int) -> int:
        """What one expert's method asks for, and forty per cluster: fewer are better spent on one map."""
        expert = Ridge() if self._ridge_experts else Procrustes()
        return max(expert.required_pairs(d_source, d_target), 40 * self.clusters)

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        return {
            "centres": (self.clusters, d_source),
            "spread": (1,),
            "weights": (self.clusters, d_source, d_target),
            "biases": (self.clusters, d_target),
            "errors": (self.clusters,),
        }

    def _expected_error(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        """Squared error that the blended experts had on held-out pairs, (b,) float32.

        The cluster's own error, of unit-length vectors where the target compares by cosine.
        """
        expected: FloatMatrix = np.matmul(self._routing(X), self.arrays["errors"])
        return expected

    # --- fitting ------------------------------------------------------------------------------

    def _learn(self, pairs: PreparedPairs) -> None:
        self._place_centres(pairs)
        found = self._gather(pairs)
        self.chosen = self._choose(found)
        self._set_experts(found.fitting)
        self._measure(found)
        self._set_experts([fit + held for fit, held in zip(found.fitting, found.held_out, strict=True)])

    def _place_centres(self, pairs: PreparedPairs) -> None:
        wanted = RowSample.choose(len(pairs), 1.0, SAMPLE_ROWS, self.seed)
        sample = np.concatenate([x[mask] for x, _, mask in pairs.split_blocks(wanted)])
        centres = kmeans(sample, self.clusters, self.seed)
        spread = squared_distances(sample, centres).min(axis=1).mean(dtype=np.float64)
        self.arrays = {"centres": centres, "spread": np.array([max(spread, 1e-12)], dtype=np.float32)}

    def _gather(self, pairs: PreparedPairs) -> _Gathered:
        found: _Gathered | None = None
        for x, y, mask in pairs.split_blocks(pairs.held_out(self.seed)):
            if found is None:
                origin = x.mean(axis=0), y.mean(axis=0)
                fitting, held_out = (
                    [PairStatistics(*origin) for _ in range(self.clusters)] for _ in range(2)
                )
                found = _Gathered(fitting, held_out, uses_unit_length(pairs.target))
            clusters = squared_distances(x, self.arrays["centres"]).argmin(axis=1)
            found.take_in(x, y, clusters, mask)
        assert found is not None, "required_pairs asks for at least one pair"
        return found

    def _choose(self, found: _Gathered) -> dict[str, float]:
        if not self._ridge_experts:
            return {}
        return {"strength": choose_strength(Spectrum.of(_total(found.fitting)), _total(found.held_out))}

    def _set_experts(self, statistics: list[PairStatistics]) -> None:
        everything = _total(statistics)
        share = self.shrinkage * len(everything.x_origin) / everything.n
        experts = [self._solve(own + everything.weighted(share)) for own in statistics]
        self.arrays["weights"] = as_float32(np.stack([expert.weight for expert in experts]))
        self.arrays["biases"] = as_float32(np.stack([expert.bias for expert in experts]))

    def _solve(self, statistics: PairStatistics) -> Affine:
        if self._ridge_experts:
            return Spectrum.of(statistics).solution(self.chosen["strength"])
        return Procrustes().solve(statistics)

    def _measure(self, found: _Gathered) -> None:
        """Squared error per cluster on the held-out pairs; of all pairs where a cluster has none."""
        X, Y, clusters = found.rows()
        mapped = self._map(X)
        mapped = scale_to_unit(mapped) if found.unit_target else mapped
        squared = np.square(mapped - Y, dtype=np.float64).sum(axis=1)
        own = [squared[clusters == cluster] for cluster in range(self.clusters)]
        errors = [values.mean() if len(values) else squared.mean() for values in own]
        self.arrays["errors"] = np.array(errors, dtype=np.float32)
        variance = np.square(Y - Y.mean(axis=0), dtype=np.float64).sum()
        self.held_out = {
            "pairs": len(X),
            "squared error": float(squared.mean()),
            "relative squared error": float(squared.sum() / max(variance, np.finfo(np.float64).tiny)),
        }

    # --- using --------------------------------------------------------------------------------

    def _map(self, X: FloatMatrix) -> FloatMatrix:
        routing = self._routing(X)
        mapped: FloatMatrix = np.matmul(routing, self.arrays["biases"])
        for cluster, weight in enumerate(self.arrays["weights"]):
            mapped += routing[:, cluster, None] * (X @ weight)
        return mapped

    def _routing(self, X: FloatMatrix) -> FloatMatrix:
        """p_c(x), (n, clusters)."""
        distances = squared_distances(X, self.arrays["centres"])
        distances -= distances.min(axis=1, keepdims=True)
        weights: FloatMatrix = np.exp(distances / np.float32(-self.temperature * self.arrays["spread"][0]))
        weights /= weights.sum(axis=1, keepdims=True)
        return weights


class _Gathered:
    """Statistics of each cluster's pairs, and the held-out pairs themselves."""

    def __init__(
        self, fitting: list[PairStatistics], held_out: list[PairStatistics], unit_target: bool
    ) -> None:
        self.fitting, self.held_out, self.unit_target = fitting, held_out, unit_target
        self._rows: list[tuple[FloatMatrix, FloatMatrix, NDArray[np.intp]]] = []

    def take_in(
        self, x: FloatMatrix, y: FloatMatrix, clusters: NDArray[np.intp], held_out: NDArray[np.bool_]
    ) -> None:
        for cluster in range(len(self.fitting)):
            own = clusters == cluster
            self.fitting[cluster].update(x[own & ~held_out], y[own & ~held_out])
            self.held_out[cluster].update(x[own & held_out], y[own & held_out])
        self._rows.append((x[held_out], y[held_out], clusters[held_out]))

    def rows(self) -> tuple[FloatMatrix, FloatMatrix, NDArray[np.intp]]:
        x, y, clusters = zip(*self._rows, strict=True)
        return np.concatenate(x), np.concatenate(y), np.concatenate(clusters)


def _total(statistics: list[PairStatistics]) -> PairStatistics:
    total = statistics[0]
    for further in statistics[1:]:
        total = total + further
    return total
