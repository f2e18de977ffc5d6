"""Stage 1 of XBT: φ from cached text vectors of the new model to those of the old one; no image, no encoder.

"Towards Cross-modal Backward-compatible Representation Learning for Vision-Language Models", ICCV 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossfade.adapters.prepared import PreparedPairs, uses_unit_length
from crossfade.adapters.projection import Projection
from crossfade.adapters.statistics import Matrix, PairStatistics, gather
from crossfade.training.fct import recipe_of
from crossfade.training.losses.cosine import cosine_loss
from crossfade.training.losses.info_nce import info_nce
from crossfade.training.step_noise import StepNoise
from crossfade.training.transformation import Spreads
from crossfade.training.vector_loop import CachedPairs, VectorLearner, Watch, find_device, optimize, seeded
from crossfade.vectors import FloatMatrix

if TYPE_CHECKING:
    from typing_extensions import Self

JITTER = 1e-6  # of the mean variance: without noise the covariance of few texts has no inverse


class ProjectionNetwork(nn.Module):
    """φ in torch: a linear skip beside GELU layers, both about `mean`.

    Args:
        d_source, d_target: dimensions.
        hidden, depth: width and number of the hidden layers.
    """

    mean: Tensor

    def __init__(self, d_source: int, d_target: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(d_source))
        self.skip = nn.Linear(d_source, d_target)
        self.hidden = nn.ModuleList(
            nn.Linear(hidden if layer else d_source, hidden) for layer in range(depth)
        )
        self.out = nn.Linear(hidden, d_target, bias=False) if depth else None

    def forward(self, x: Tensor) -> Tensor:
        """(b, d_source) → (b, d_target), not scaled to unit length."""
        centred = x - self.mean
        mapped: Tensor = self.skip(centred)
        if self.out is None:
            return mapped
        for layer in self.hidden:
            centred = F.gelu(layer(centred), approximate="tanh")
        return mapped + self.out(centred)

    @classmethod
    def from_adapter(cls, adapter: Projection) -> Self:
        """A fitted φ as a network: it maps what `adapter.transform` maps, source vectors of unit length."""
        network = cls(*adapter.dimensions, adapter.hidden, adapter.depth)
        linear = {"skip.weight": "skip", "skip.bias": "bias", "out.weight": "out"}
        for name, value in network.state_dict().items():
            if name != "mean":
                value.copy_(torch.from_numpy(adapter.arrays[linear.get(name, name)].T))
        return network

    def folded(self, spreads: Spreads) -> dict[str, FloatMatrix]:
        """The arrays of the adapter: mean and spreads are part of the matrices."""
        mean = _numpy(self.mean) * spreads.x
        skip = _numpy(self.skip.weight).T * (spreads.y / spreads.x)
        arrays = {"skip": skip, "bias": _numpy(self.skip.bias) * spreads.y - mean @ skip}
        for number, layer in enumerate(self.hidden):
            weight, bias = (_numpy(value) for value in layer.parameters())
            weight = weight if number else weight / spreads.x
            arrays[f"hidden.{number}.weight"] = weight.T
            arrays[f"hidden.{number}.bias"] = bias if number else bias - weight @ mean
        if self.out is not None:
            arrays["out"] = _numpy(self.out.weight).T * spreads.y
        return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}


class ProjectionLearner(VectorLearner):
    """φ with noise on its input, and its two losses; labels and side-information are not looked at.

    Args:
        network: φ.
        adapter: gives σ, the weights of the terms, the temperature and the seed.
        unit: only directions count in the target space.
        gap: (d_source,) mean image vector - mean text vector, scaled like the input; None if not known.
    """

    gap: Tensor | None

    def __init__(
        self, network: ProjectionNetwork, adapter: Projection, *, unit: bool, gap: Tensor | None = None
    ) -> None:
        super().__init__()
        self.network, self._adapter, self._unit = network, adapter, unit
        self.noise = StepNoise(adapter.seed)
        self.register_buffer("gap", gap)

    def disturbed(self, x: Tensor) -> Tensor:
        """x (b, d), some rows moved by the gap, plus noise of length σ √d, at the length of x again.

        Components of x have mean square 1, so that its own length is √d on average.
        """
        generator = self.noise.next_step(x.device)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        away = x + self._adapter.sigma * noise
        if self.gap is not None:
            moved = torch.rand((len(x), 1), generator=generator, device=x.device) < self._adapter.shifted
            away = away + moved * self.gap
        return away * (x.norm(dim=1, keepdim=True) / away.norm(dim=1, keepdim=True))

    def forward(self, x: Tensor, side: Tensor, y: Tensor, labels: Tensor) -> dict[str, Tensor]:
        mapped = self.network(self.disturbed(x)).float()
        name, near = ("cosine", cosine_loss) if self._unit else ("squared error", F.mse_loss)
        numbers = {name: near(mapped, y), "contrastive": info_nce(mapped, y, self._adapter.temperature)}
        weights = self._adapter.cosine, self._adapter.contrastive_weight
        loss = sum(weight * value for weight, value in zip(weights, numbers.values(), strict=True))
        assert isinstance(loss, Tensor)
        return {"loss": loss, **{name: value.detach() for name, value in numbers.items()}}


def learn(
    adapter: Projection,
    pairs: PreparedPairs,
    *,
    watch: Watch | None = None,
    gap: FloatMatrix | None = None,
) -> None:
    """Train φ and put it into `adapter`.

    Args:
        gap: (d_source,) mean image vector - mean text vector of the new model; the adapter's `shifted` share
            of the rows is moved by it.

    Raises:
        TrainingDiverged: the loss became NaN or infinite.
    """
    cached = CachedPairs(pairs, side=False, device=find_device(adapter.device))
    network: ProjectionNetwork = seeded(
        adapter.seed, lambda: ProjectionNetwork(*pairs.dimensions, adapter.hidden, adapter.depth)
    )
    _start(network, adapter, gather(pairs, adapter.seed).whole, cached.spreads, gap)
    scaled_gap = None if gap is None else torch.from_numpy(gap / np.float32(cached.spreads.x))
    learner = ProjectionLearner(network, adapter, unit=uses_unit_length(pairs.target), gap=scaled_gap)
    log = optimize(learner, cached, recipe_of(adapter), watch)
    adapter.arrays = network.folded(cached.spreads)
    adapter.chosen = {f"training {name}": value for name, value in log[-1].items() if name in _LOSSES}
    if gap is not None:
        adapter.chosen["length of the modality gap"] = float(np.linalg.norm(gap))
    adapter.held_out = {}


_LOSSES = ("loss", "cosine", "squared error", "contrastive")


def _start(
    network: ProjectionNetwork,
    adapter: Projection,
    statistics: PairStatistics,
    spreads: Spreads,
    gap: FloatMatrix | None,
) -> None:
    """The linear map of least expected squared error on disturbed vectors; the hidden layers add nothing yet.

    Noise and shift only add to the covariance of x, so the expectation is in closed form; that all vectors
    are shortened again is taken as division by √(1 + σ²), which it is up to chance in many dimensions.
    """
    moments = statistics.about(statistics.x_mean, statistics.y_mean)
    mean, covariance = statistics.x_mean, moments.xx / moments.n
    if gap is not None:
        share, direction = adapter.shifted, gap.astype(np.float64)
        mean = mean + share * direction
        covariance = covariance + share * (1 - share) * np.outer(direction, direction)
    skip = _ridge(covariance, moments.xy / moments.n, (adapter.sigma * spreads.x) ** 2)
    longer = np.sqrt(1 + adapter.sigma**2)
    with torch.no_grad():
        network.mean.copy_(torch.from_numpy(mean / (spreads.x * longer)))
        network.skip.weight.copy_(torch.from_numpy(skip.T * (longer * spreads.x / spreads.y)))
        network.skip.bias.copy_(torch.from_numpy(statistics.y_mean / spreads.y))
        if network.out is not None:
            network.out.weight.zero_()


def _ridge(covariance: Matrix, cross: Matrix, variance: float) -> Matrix:
    jitter = JITTER * float(np.trace(covariance)) / len(covariance)
    regularised = covariance + (variance + jitter) * np.eye(len(covariance))
    return np.linalg.solve(regularised, cross).astype(np.float64, copy=False)


def _numpy(value: Tensor) -> np.ndarray:
    found: np.ndarray = value.detach().double().cpu().numpy()
    return found
