"""λ-orthogonal maps: back by a nearly orthogonal matrix, forward by h into the space it leads to."""

from __future__ import annotations

from typing import ClassVar, Literal

from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.errors import UsageError
from crossfade.vectors import FloatMatrix

Direction = Literal["forward", "backward"]


class LambdaOrthogonal(ForwardTransformation):
    """Backward and forward maps of λ-orthogonality (Ricci et al., NeurIPS 2025, arXiv 2509.16664).

    The backward map B(y) = W y + b carries new vectors into the old space. W may leave the orthogonal
    matrices, which keep the new model's own geometry, by up to λ: only what ‖WᵀW - I‖ (Frobenius) exceeds λ
    by is penalized. The forward map F lifts old vectors to where B puts the new ones. Both are trained
    together: B on the squared error to the old vectors, F on that to B's, and, where the pairs are labelled,
    both on a supervised contrastive term between what they return. Training:
    `crossfade.training.lambda_orthogonal`.

    A fit in the direction ``backward`` (new → old) keeps B. A fit ``forward`` (old → new) keeps F followed by
    the inverse of B, so that lifted vectors are in the new model's own space and mix with vectors that it
    made. F is the network of `ForwardTransformation`. The paper leaves the weights of the terms and the shape
    of F open in what we could read; those here are ours.

    Args:
        direction: ``forward`` or ``backward``.
        threshold: λ.
        penalty: weight of what exceeds it.
        contrastive_weight: of the supervised contrastive term.
        inner, side_information, learning_rate, weight_decay, batch_rows, epochs, warm_up_epochs, bf16,
            device, seed: see `ForwardTransformation`.
    """

    name: ClassVar[str] = "lambda-orthogonal"
    complexity: ClassVar[int] = 8

    def __init__(
        self,
        *,
        direction: Direction = "forward",
        threshold: float = 12.0,
        penalty: float = 1.0,
        contrastive_weight: float = 0.1,
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
        if direction not in ("forward", "backward"):
            raise UsageError(f"direction is 'forward' (gallery) or 'backward' (queries), got {direction!r}")
        for option, value in {
            "threshold": threshold,
            "penalty": penalty,
            "contrastive_weight": contrastive_weight,
        }.items():
            if value < 0:
                raise UsageError(f"{option} must be at least 0, got {value}")
        self.direction, self.threshold, self.penalty = direction, threshold, penalty
        self.contrastive_weight = contrastive_weight

    @property
    def takes_side(self) -> bool:
        """Whether a fit makes use of side-information, where the pairs have it; the way back has none."""
        return self.side_information and self.direction == "forward"

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        if self.direction == "backward":
            return {"back.weight": (d_source, d_target), "back.bias": (d_target,)}
        return super().shapes(d_source, d_target)

    def _map_with_side(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        return self._layer("back", X) if self.direction == "backward" else super()._map_with_side(X, side)
