"""Maps that are trained by gradient steps, with torch, and map with numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from crossfade.adapters.base import Adapter
from crossfade.adapters.prepared import PreparedPairs
from crossfade.errors import UsageError
from crossfade.extras import load

Trainer = Callable[[Any, PreparedPairs], None]

TRAINERS = {
    "fct": "crossfade.training.fct",
    "fastfill": "crossfade.training.fastfill",
    "lambda-orthogonal": "crossfade.training.lambda_orthogonal",
    "projection": "crossfade.training.projection",
}
"""Which file trains a method: each has a function `learn`. The training layer stands above this one, so
it is looked up by name when a fit asks for it; mapping needs numpy alone."""


class TrainedAdapter(Adapter):
    """An adapter whose method has a file in `crossfade.training` (extra "train").

    Args:
        learning_rate, weight_decay: of Adam; the decay is added to the gradient.
        batch_rows: pairs per step.
        epochs: passes over the pairs.
        warm_up_epochs: linear rise of the learning rate, before a cosine to zero.
        bf16: compute products in bfloat16 (autocast); faster where the processor has it.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        seed: of the initial weights and the order of the pairs.
    """

    trainer: Trainer | None = None
    """Trains it in place of the method's own file: with a checkpoint, a classifier, a log."""

    def __init__(
        self,
        *,
        learning_rate: float,
        weight_decay: float,
        batch_rows: int,
        epochs: int,
        warm_up_epochs: float,
        bf16: bool,
        device: str,
        seed: int,
    ) -> None:
        super().__init__()
        require_at_least_one(batch_rows=batch_rows, epochs=epochs)
        if not learning_rate > 0 or weight_decay < 0:
            raise UsageError(
                "learning_rate must be above 0 and weight_decay at least 0, "
                f"got {learning_rate} and {weight_decay}"
            )
        if not 0 <= warm_up_epochs <= epochs:
            raise UsageError(f"warm_up_epochs must be within the {epochs} epochs, got {warm_up_epochs}")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.batch_rows, self.epochs, self.warm_up_epochs = batch_rows, epochs, warm_up_epochs
        self.bf16, self.device, self.seed = bf16, device, seed

    def required_pairs(self, d_source: int, d_target: int) -> int:
        """As many as the wider of both spaces has dimensions; hundreds of times that serve it well."""
        return max(64, d_source, d_target)

    def _learn(self, pairs: PreparedPairs) -> None:
        load("torch", "train")
        train = self.trainer or cast(Trainer, import_module(TRAINERS[self.name]).learn)
        train(self, pairs)


def require_at_least_one(**options: int) -> None:
    """Refuse counts and widths below 1.

    Raises:
        UsageError: with the first of them.
    """
    for option, value in options.items():
        if value < 1:
            raise UsageError(f"{option} must be at least 1, got {value}")
