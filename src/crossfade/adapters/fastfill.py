"""FastFill: h that knows how far off each of its vectors is, so that a backfill can begin with the worst."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.errors import UsageError
from crossfade.vectors import FloatMatrix


class FastFill(ForwardTransformation):
    """h with a predicted variance per item (Jaeckle et al., FastFill, ICLR 2023, sections 4.1 and 4.2).

    The network is that of `ForwardTransformation` with one more output, the log of the item's variance. It
    is trained with the Gaussian negative log-likelihood of the error. Where the pairs are labelled the error
    has a second part: the cross-entropy of the new model's classifier on h (point to cluster), or of the
    classes' mean new embeddings if there is no classifier. Without labels the variance is that of the
    alignment alone. Training: `crossfade.training.fastfill`.

    Args:
        classifier_weight: of the cross-entropy, beside a squared error whose scale is 1 for an h that answers
            with vectors of the right length and a random direction.
        inner, side_information, learning_rate, weight_decay, batch_rows, epochs, warm_up_epochs, bf16,
            device, seed: see `ForwardTransformation`.
    """

    name: ClassVar[str] = "fastfill"
    complexity: ClassVar[int] = 7

    def __init__(
        self,
        *,
        classifier_weight: float = 0.1,
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
            inner=inner,
            side_information=side_information,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_rows=batch_rows,
            epochs=epochs,
            warm_up_epochs=warm_up_epochs,
            bf16=bf16,
            device=device,
            seed=seed,
        )
        if classifier_weight < 0:
            raise UsageError(f"classifier_weight must be at least 0, got {classifier_weight}")
        self.classifier_weight = classifier_weight

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        head: dict[str, tuple[int, ...]] = {"variance.weight": (self.inner, 1), "variance.bias": (1,)}
        return super().shapes(d_source, d_target) | head

    def _expected_error(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        """Squared error that h expects of its vectors, (b,) float32.

        After labelled training the variance is that of both parts of the error: these numbers then put items
        in order, but are larger than the squared distance to the new embedding.
        """
        logarithm = self._layer("variance", self._features(X, side))[:, 0]
        # A wild extrapolation is far off, not infinitely so.
        expected: FloatMatrix = np.exp(np.minimum(logarithm, np.float32(80)))
        return expected
