"""Forward transformation h: the stored old vector and its side-information into the new space (FCT)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from crossfade.adapters.trained import TrainedAdapter, require_at_least_one
from crossfade.vectors import FloatMatrix, no_side


class ForwardTransformation(TrainedAdapter):
    """h(φ_old(x), ψ(x)) of forward-compatible training (Ramanujan et al., CVPR 2022, section 3.3).

    Two branches, old → 2·d_old → 2·d_new and side → 2·d_side → 2·d_new, are concatenated and go through
    inner → inner → d_new; every layer but the last is followed by batch normalization and ReLU. Without
    side-information its branch has no inputs and is not there. Training (`crossfade.training.fct`, extra
    "train") folds the batch normalization into the matrices, so that mapping is five matrix products, seven
    with side-information, in numpy.

    The loss is the squared error to the new embedding (equation 4), with vectors on both sides scaled to mean
    square 1 per component, so that learning rate and weight decay mean the same for every pair of spaces.

    Args:
        inner: width of the inner layers.
        side_information: make use of it where the pairs have it; False leaves its branch out.
        learning_rate, weight_decay: of Adam; the decay is added to the gradient, as in the paper.
        batch_rows: pairs per step.
        epochs: passes over the pairs; in the second half batch normalization keeps its statistics.
        warm_up_epochs: linear rise of the learning rate, before a cosine to zero.
        bf16: compute products in bfloat16 (autocast); faster where the processor has it.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        seed: of the initial weights and the order of the pairs.
    """

    name: ClassVar[str] = "fct"
    complexity: ClassVar[int] = 6

    def __init__(
        self,
        *,
        inner: int = 2048,
        side_information: bool = True,
        learning_rate: float = 5e-4,
        weight_decay: float = 3e-5,
        batch_rows: int = 1024,
        epochs: int = 80,
        warm_up_epochs: float = 5.0,
        bf16: bool = False,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_rows=batch_rows,
            epochs=epochs,
            warm_up_epochs=warm_up_epochs,
            bf16=bf16,
            device=device,
            seed=seed,
        )
        require_at_least_one(inner=inner)
        self.inner, self.side_information = inner, side_information

    @property
    def takes_side(self) -> bool:
        """Whether a fit makes use of side-information, where the pairs have it."""
        return self.side_information

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        layers = layer_sizes(d_source, self.side_dimension, d_target, self.inner)
        weights = {f"{name}.weight": size for name, size in layers.items()}
        return weights | {f"{name}.bias": (size[1],) for name, size in layers.items()}

    # --- mapping ------------------------------------------------------------------------------

    def _map(self, X: FloatMatrix) -> FloatMatrix:
        return self._map_with_side(X, no_side(len(X)))

    def _map_with_side(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        return self._layer("out", self._features(X, side))

    def _features(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        """(b, inner) what the last layer sees."""
        branches = {"old": X, "side": side}
        parts = [
            self._hidden(f"{name}.1", self._hidden(f"{name}.0", given))
            for name, given in branches.items()
            if given.shape[1]
        ]
        return self._hidden("inner.1", self._hidden("inner.0", np.concatenate(parts, axis=1)))

    def _layer(self, name: str, X: FloatMatrix) -> FloatMatrix:
        mapped: FloatMatrix = X @ self.arrays[f"{name}.weight"]
        mapped += self.arrays[f"{name}.bias"]
        return mapped

    def _hidden(self, name: str, X: FloatMatrix) -> FloatMatrix:
        mapped = self._layer(name, X)
        np.maximum(mapped, 0, out=mapped)
        return mapped


def layer_sizes(d_source: int, d_side: int, d_target: int, inner: int) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of every layer of h, in the order of its computation."""
    branches = {"old": d_source, "side": d_side}
    present = {name: width for name, width in branches.items() if width}
    sizes: dict[str, tuple[int, int]] = {}
    for name, width in present.items():
        sizes[f"{name}.0"] = (width, 2 * width)
        sizes[f"{name}.1"] = (2 * width, 2 * d_target)
    joined = 2 * d_target * len(present)
    return sizes | {"inner.0": (joined, inner), "inner.1": (inner, inner), "out": (inner, d_target)}
