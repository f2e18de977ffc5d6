"""Embeddings by classification."""

from __future__ import annotations

from torch import Tensor

from crossfade.encoders.network import EmbeddingNetwork
from crossfade.training.classifier import Classifier
from crossfade.training.learner import ImageLearner
from crossfade.training.losses.cross_entropy import cross_entropy
from crossfade.training.recipe import BctObjective, ClassificationObjective


class ClassificationLearner(ImageLearner):
    """Softmax cross-entropy on a classifier over the embedding.

    Args:
        network: embeds the pictures.
        classes: number of classes.
        objective: label smoothing, and whether directions are compared.
    """

    classifier: Classifier

    def __init__(
        self, network: EmbeddingNetwork, classes: int, objective: ClassificationObjective | BctObjective
    ) -> None:
        super().__init__(network)
        self.classifier = Classifier(
            network.architecture.dimension,
            classes,
            bias=objective.bias,
            normalized=objective.normalized,
            scale=objective.scale,
        )
        self._label_smoothing = objective.label_smoothing

    def forward(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return self.classify(self.network(pictures), labels)

    def classify(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and accuracy of the classifier."""
        logits = self.classifier(embeddings)
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return {"loss": cross_entropy(logits, labels, self._label_smoothing), "accuracy": accuracy}
