"""Backward-compatible training (Shen et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from crossfade.encoders.network import EmbeddingNetwork
from crossfade.errors import DataError, DimensionMismatch
from crossfade.training.classification import ClassificationLearner
from crossfade.training.classifier import ClassName, ClassWeights
from crossfade.training.losses.influence import influence_loss, old_labels_of
from crossfade.training.recipe import BctObjective


class BctLearner(ClassificationLearner):
    """Classification, while the frozen old classifier must still understand the new embeddings.

    Args:
        network: the new model.
        names: the classes of the new data.
        old: the old model's classifier, or a synthesized one (`classifier.synthesize`).
        objective: label smoothing, normalization, weight of the influence loss.

    Raises:
        DimensionMismatch: old and new embeddings are of different lengths.
        DataError: the old classifier knows none of the classes.
    """

    positions: Tensor

    def __init__(
        self,
        network: EmbeddingNetwork,
        names: Sequence[ClassName],
        old: ClassWeights,
        objective: BctObjective,
    ) -> None:
        super().__init__(network, len(names), objective)
        dimension, old_dimension = network.architecture.dimension, old.weight.shape[1]
        if dimension != old_dimension:
            raise DimensionMismatch(
                f"backward-compatible training keeps the dimension: the old model has {old_dimension}, "
                f"architecture.dimension is {dimension}; set it to {old_dimension}"
            )
        positions = torch.from_numpy(old.positions(names))
        if (positions < 0).all():
            raise DataError(
                f"the old classifier knows none of the {len(names)} classes: it has {old.names[0]!r} to "
                f"{old.names[-1]!r}, the data {names[0]!r} to {names[-1]!r}; "
                "set objective.influence to synthesized, or give the data of the old classes as well"
            )
        normalized = objective.normalized or old.normalized
        scale = objective.scale if normalized else old.scale
        self.old_classifier = old.frozen(normalized=normalized, scale=scale)
        self.register_buffer("positions", positions)
        self._weight = objective.influence_weight

    def forward(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        embeddings = self.network(pictures)
        numbers = self.classify(embeddings, labels)
        old_labels = old_labels_of(labels, self.positions)
        influence = influence_loss(self.old_classifier(embeddings), old_labels)
        total = numbers["loss"] + self._weight * influence
        return {
            **numbers,
            "loss": total,
            "classification": numbers["loss"].detach(),
            "influence": influence.detach(),
        }
