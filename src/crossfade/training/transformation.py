"""The network h in torch: what FCT, FastFill and the λ-orthogonal forward map train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.adapters.forward_transformation import layer_sizes
from crossfade.vectors import FloatMatrix


@dataclass(frozen=True)
class Spreads:
    """Root mean square of a component: vectors are divided by these while training.

    Attributes:
        x, side, y: of the source vectors, the side-information and the target vectors.
    """

    x: float
    side: float
    y: float


class Transformation(nn.Module):
    """h: branches for the old vector and the side-information, then the inner layers.

    Args:
        d_source, d_side, d_target: dimensions; without side-information d_side is 0.
        inner: width of the inner layers.
        outputs: where it ends, if not in the new space.
    """

    def __init__(
        self, d_source: int, d_side: int, d_target: int, inner: int, outputs: int | None = None
    ) -> None:
        super().__init__()
        sizes = layer_sizes(d_source, d_side, d_target, inner)
        self.old = _block(sizes, "old")
        self.side = _block(sizes, "side") if d_side else None
        self.inner = _block(sizes, "inner")
        self.out = nn.Linear(inner, outputs or d_target)

    def features(self, x: Tensor, side: Tensor) -> Tensor:
        """(b, inner) what the last layer sees."""
        parts = [self.old(x)] if self.side is None else [self.old(x), self.side(side)]
        joined: Tensor = self.inner(torch.cat(parts, dim=1))
        return joined

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """(b, d_source), (b, d_side) → (b, d_target)."""
        mapped: Tensor = self.out(self.features(x, side))
        return mapped

    def folded(self, spreads: Spreads) -> dict[str, FloatMatrix]:
        """The arrays of the adapter: batch normalization and the spreads are part of the matrices."""
        blocks = {"old": (self.old, spreads.x), "side": (self.side, spreads.side), "inner": (self.inner, 1.0)}
        arrays: dict[str, FloatMatrix] = {}
        for name, (block, spread) in blocks.items():
            if block is not None:
                for position in (0, 1):
                    linear, norm = block[3 * position], block[3 * position + 1]
                    divisor = spread if position == 0 else 1.0
                    arrays |= _arrays(f"{name}.{position}", *fold(linear, norm), divisor)
        weight, bias = (_numpy(value) * spreads.y for value in self.out.parameters())
        return arrays | _arrays("out", weight, bias)


def _block(sizes: dict[str, tuple[int, int]], name: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for position in (0, 1):
        inputs, outputs = sizes[f"{name}.{position}"]
        # A bias before batch normalization would be subtracted again.
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in) and bias (out,) of one affine map that equals both, in float64."""
    factor = _numpy(norm.weight) / np.sqrt(_numpy(norm.running_var) + norm.eps)
    return _numpy(linear.weight) * factor[:, None], _numpy(norm.bias) - _numpy(norm.running_mean) * factor


def _arrays(name: str, weight: np.ndarray, bias: np.ndarray, divisor: float = 1.0) -> dict[str, FloatMatrix]:
    turned = np.ascontiguousarray(weight.T / divisor, dtype=np.float32)
    return {f"{name}.weight": turned, f"{name}.bias": bias.astype(np.float32)}


def _numpy(value: Tensor) -> np.ndarray:
    found: np.ndarray = value.detach().double().cpu().numpy()
    return found
