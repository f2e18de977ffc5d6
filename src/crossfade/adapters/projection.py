"""Projection φ: new vectors of images or texts into the old space, trained on texts alone (XBT)."""

from __future__ import annotations

from typing import ClassVar

from crossfade.adapters.residual_mlp import gelu
from crossfade.adapters.trained import TrainedAdapter, require_at_least_one
from crossfade.errors import UsageError
from crossfade.vectors import FloatMatrix


class Projection(TrainedAdapter):
    """φ(x) = x @ skip + GELU(… GELU(x @ hidden.0 + bias) …) @ out + bias (XBT, ICCV 2025, stage 1).

    Pairs are the same texts under the text encoders of both models. A dual encoder puts images beside texts,
    not on them (the modality gap), so that a map fitted on clean text vectors says nothing about images.
    Therefore every step trains on x + ε, scaled back to the length of x, with fresh noise ε ~ N(0, σ² L² / d)
    in each of the d components, where L is the root mean square length of the source vectors (1 in a cosine
    space): E‖ε‖² = (σ L)², so that σ = 1 is noise as long as the vector itself. φ then sees vectors of the
    length that it is used on, which on planted worlds does better than leaving the sum as it is.

    `skip` starts from the closed form: for a linear map the noise is Tikhonov regularisation by its variance
    (Bishop, Neural Computation 1995). `out` starts at zero.

    Loss: cosine · (1 - cos(φ(x + ε), y)) + contrastive_weight · InfoNCE, which is symmetric: in a batch each
    φ(x + ε) has to find its y, and each y its φ(x + ε), by softmax of cosines over `temperature`. In a target
    space where lengths count, the squared error takes the place of 1 - cos.

    Where unpaired images of the new model are given (`crossfade.training.xbt_text`), a random `shifted` share
    of the rows of every step is moved by g = mean image vector - mean text vector beside the noise; φ then
    meets vectors where images lie, and keeps mapping texts where they lie. It is off by default: on planted
    gaps it helps, on real models it made no difference (benchmarks/results/xbt-fashion.md).

    The paper leaves width and depth of the module, σ and the weights of the terms open in what we could read;
    those here are ours, as are the skip connection and the shift. Training: `crossfade.training.projection`.

    Args:
        hidden: width of the hidden layers.
        depth: number of hidden layers; 0 leaves the linear map.
        sigma: σ, length of the noise relative to the source vectors.
        cosine, contrastive_weight: weights of the two terms.
        temperature: of the contrastive term.
        shifted: share of the rows that are moved by the modality gap, where it is known.
        learning_rate, weight_decay, batch_rows, epochs, warm_up_epochs, bf16, device, seed: see
            `TrainedAdapter`.
    """

    name: ClassVar[str] = "projection"
    complexity: ClassVar[int] = 9

    def __init__(
        self,
        *,
        hidden: int = 512,
        depth: int = 1,
        sigma: float = 1.0,
        cosine: float = 1.0,
        contrastive_weight: float = 0.5,
        temperature: float = 0.07,
        shifted: float = 0.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        batch_rows: int = 512,
        epochs: int = 30,
        warm_up_epochs: float = 1.0,
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
        require_at_least_one(hidden=hidden)
        _require_number("sigma", sigma)
        terms = {"cosine": cosine, "contrastive_weight": contrastive_weight}
        for option, value in {"depth": depth, **terms}.items():
            if not value >= 0:
                raise UsageError(f"{option} must be at least 0, got {value}")
        if not cosine + contrastive_weight > 0:
            raise UsageError("cosine and contrastive_weight are both 0, so there is nothing to learn from")
        if not temperature > 0:
            raise UsageError(f"temperature must be above 0, got {temperature}")
        if not 0 <= shifted <= 1:
            raise UsageError(f"shifted is a share between 0 and 1, got {shifted}")
        self.hidden, self.depth, self.sigma = hidden, depth, sigma
        self.cosine, self.contrastive_weight, self.temperature = cosine, contrastive_weight, temperature
        self.shifted = shifted

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"skip": (d_source, d_target), "bias": (d_target,)}
        for layer in range(self.depth):
            shapes[f"hidden.{layer}.weight"] = (self.hidden if layer else d_source, self.hidden)
            shapes[f"hidden.{layer}.bias"] = (self.hidden,)
        return shapes | ({"out": (self.hidden, d_target)} if self.depth else {})

    def _map(self, X: FloatMatrix) -> FloatMatrix:
        mapped: FloatMatrix = X @ self.arrays["skip"]
        mapped += self.arrays["bias"]
        if self.depth:
            mapped += self._features(X) @ self.arrays["out"]
        return mapped

    def _features(self, X: FloatMatrix) -> FloatMatrix:
        """(b, hidden) what the last layer sees."""
        for layer in range(self.depth):
            X = gelu(X @ self.arrays[f"hidden.{layer}.weight"] + self.arrays[f"hidden.{layer}.bias"])
        return X


def _require_number(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise UsageError(
            f"{option} must be a number of at least 0, got {value!r}; 'auto' is chosen by "
            "crossfade train xbt-text on unpaired images (--images)"
        )
