"""Forward-compatible training: h from cached old vectors and side-information to new vectors.

Ramanujan et al., CVPR 2022 (arXiv 2112.02805), sections 3.3 and 4.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.adapters.prepared import PreparedPairs
from crossfade.adapters.trained import TrainedAdapter
from crossfade.training.transformation import Transformation
from crossfade.training.vector_loop import (
    CachedPairs,
    VectorLearner,
    VectorRecipe,
    Watch,
    find_device,
    optimize,
    seeded,
)


class FctLearner(VectorLearner):
    """h with the squared error to the new embedding (equation 4); labels are not looked at."""

    def __init__(self, transformation: Transformation) -> None:
        super().__init__()
        self.transformation = transformation

    def forward(self, x: Tensor, side: Tensor, y: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": F.mse_loss(self.transformation(x, side).float(), y)}


def learn(adapter: ForwardTransformation, pairs: PreparedPairs, *, watch: Watch | None = None) -> None:
    """Train h and put it into `adapter`.

    Raises:
        TrainingDiverged: the loss became NaN or infinite.
    """
    cached = cache(adapter, pairs)
    learner = FctLearner(transformation_for(adapter, cached, pairs.dimensions))
    log = optimize(learner, cached, recipe_of(adapter), watch)
    adapter.arrays = learner.transformation.folded(cached.spreads)
    adapter.chosen = {"training loss": log[-1]["loss"]}
    adapter.held_out = {}


def cache(adapter: ForwardTransformation, pairs: PreparedPairs, *, equal_length: bool = False) -> CachedPairs:
    """The pairs as tensors where `adapter` trains."""
    device = find_device(adapter.device)
    return CachedPairs(pairs, side=adapter.takes_side, device=device, equal_length=equal_length)


def transformation_for(
    adapter: ForwardTransformation, cached: CachedPairs, dimensions: tuple[int, int]
) -> Transformation:
    """A new h for these pairs, its random numbers from the adapter's seed."""
    d_source, d_target = dimensions
    made: Transformation = seeded(
        adapter.seed, lambda: Transformation(d_source, cached.side_dimension, d_target, adapter.inner)
    )
    return made


def recipe_of(adapter: TrainedAdapter) -> VectorRecipe:
    """The adapter's parameters as the loop takes them."""
    return VectorRecipe(
        learning_rate=adapter.learning_rate,
        weight_decay=adapter.weight_decay,
        batch_rows=adapter.batch_rows,
        epochs=adapter.epochs,
        warm_up_epochs=adapter.warm_up_epochs,
        bf16=adapter.bf16,
        device=adapter.device,
        seed=adapter.seed,
    )
