"""λ-orthogonality: a nearly orthogonal way back, and a way forward to where it leads.

Ricci, Biondi, Pernici, Patras and Del Bimbo, NeurIPS 2025 (arXiv 2509.16664).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.adapters.lambda_orthogonal import LambdaOrthogonal
from crossfade.adapters.prepared import PreparedPairs
from crossfade.training.fct import cache, recipe_of
from crossfade.training.losses.lambda_orthogonality import lambda_orthogonality
from crossfade.training.losses.supervised_contrastive import supervised_contrastive
from crossfade.training.transformation import Spreads, Transformation
from crossfade.training.vector_loop import CachedPairs, VectorLearner, Watch, optimize, seeded
from crossfade.vectors import FloatMatrix


class LambdaOrthogonalLearner(VectorLearner):
    """The backward map of new vectors and the forward map of old ones, trained together.

    Args:
        d_old, d_side, d_new: dimensions.
        adapter: gives λ and the weights of the terms.
    """

    def __init__(self, d_old: int, d_side: int, d_new: int, adapter: LambdaOrthogonal) -> None:
        super().__init__()
        self.back = nn.Linear(d_new, d_old)
        self.ahead = Transformation(d_old, d_side, d_new, adapter.inner, outputs=d_old)
        self._adapter = adapter

    def forward(self, x: Tensor, side: Tensor, y: Tensor, labels: Tensor) -> dict[str, Tensor]:
        old, new = (y, x) if self._adapter.direction == "backward" else (x, y)
        returned, lifted = self.back(new).float(), self.ahead(old, side).float()
        numbers = {
            "backward": F.mse_loss(returned, old),
            "forward": F.mse_loss(lifted, returned),
            "beyond λ": lambda_orthogonality(self.back.weight, self._adapter.threshold),
            "contrastive": supervised_contrastive(lifted, returned, labels),
        }
        loss = (
            numbers["backward"]
            + numbers["forward"]
            + self._adapter.penalty * numbers["beyond λ"]
            + self._adapter.contrastive_weight * numbers["contrastive"]
        )
        return {"loss": loss, **{name: value.detach() for name, value in numbers.items()}}


def learn(adapter: ForwardTransformation, pairs: PreparedPairs, *, watch: Watch | None = None) -> None:
    """Train both maps and put that of the adapter's direction into it.

    Raises:
        TrainingDiverged: the loss became NaN or infinite.
    """
    assert isinstance(adapter, LambdaOrthogonal)
    # An orthogonal matrix keeps lengths: those of both models must be alike.
    cached = cache(adapter, pairs, equal_length=True)
    d_source, d_target = pairs.dimensions
    d_old, d_new = (d_target, d_source) if adapter.direction == "backward" else (d_source, d_target)
    learner: LambdaOrthogonalLearner = seeded(
        adapter.seed, lambda: LambdaOrthogonalLearner(d_old, cached.side_dimension, d_new, adapter)
    )
    mean_new = _start_orthogonal(learner.back, cached, adapter.direction)
    log = optimize(learner, cached, recipe_of(adapter), watch)
    weight, bias = (value.detach().double().cpu().numpy() for value in learner.back.parameters())
    if adapter.direction == "backward":
        adapter.arrays = _backward(weight, bias, cached.spreads)
    else:
        adapter.arrays = _forward(learner.ahead, weight, bias, mean_new, cached.spreads)
    last = log[-1]
    adapter.chosen = {f"training {name}": last[name] for name in ("loss", "backward", "forward")}
    adapter.chosen |= {"distance from orthogonal": _distance(weight)}
    adapter.held_out = {}


def _start_orthogonal(back: nn.Linear, cached: CachedPairs, direction: str) -> np.ndarray:
    """Orthogonal Procrustes between the centred vectors: what is relaxed from there is the orthogonality.

    Returns:
        (d_new,) the mean new vector, scaled.
    """
    x_sum: Any = 0
    y_sum: Any = 0
    cross: Any = 0
    rows = 0
    for window in cached.windows():
        x, y = window.x.double(), window.y.double()
        x_sum, y_sum, cross = x_sum + x.sum(0), y_sum + y.sum(0), cross + x.T @ y
        rows += len(window)
    cross = cross - torch.outer(x_sum, y_sum) / rows
    backward = direction == "backward"
    old, new = (y_sum / rows, x_sum / rows) if backward else (x_sum / rows, y_sum / rows)
    left, _, right = torch.linalg.svd(cross.T if backward else cross, full_matrices=False)
    weight = left @ right
    with torch.no_grad():
        back.weight.copy_(weight)
        back.bias.copy_(old - weight @ new)
    mean: np.ndarray = new.cpu().numpy()
    return mean


def _backward(weight: np.ndarray, bias: np.ndarray, spreads: Spreads) -> dict[str, FloatMatrix]:
    turned = np.ascontiguousarray(weight.T * (spreads.y / spreads.x), dtype=np.float32)
    return {"back.weight": turned, "back.bias": (bias * spreads.y).astype(np.float32)}


def _forward(
    ahead: Transformation, weight: np.ndarray, bias: np.ndarray, mean_new: np.ndarray, spreads: Spreads
) -> dict[str, FloatMatrix]:
    """F, with the inverse of B as part of its last layer.

    Where the new space has more dimensions, B forgets some: of all vectors that B sends to the same place,
    the one nearest to the mean new vector is taken.
    """
    arrays = ahead.folded(Spreads(spreads.x, spreads.side, 1.0))
    inverse = np.linalg.pinv(weight)
    forgotten = mean_new - inverse @ (weight @ mean_new)
    out, out_bias = arrays["out.weight"].astype(np.float64), arrays["out.bias"].astype(np.float64)
    return arrays | {
        "out.weight": (out @ inverse.T * spreads.y).astype(np.float32),
        "out.bias": ((inverse @ (out_bias - bias) + forgotten) * spreads.y).astype(np.float32),
    }


def _distance(weight: np.ndarray) -> float:
    """‖WᵀW - I‖ (Frobenius) of the smaller side."""
    outputs, inputs = weight.shape
    gram = weight.T @ weight if inputs <= outputs else weight @ weight.T
    return float(np.linalg.norm(gram - np.eye(len(gram))))
