"""What a training loop optimizes: a network with whatever its loss needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from crossfade.encoders.network import EmbeddingNetwork
from crossfade.training.classifier import Classifier
from crossfade.training.losses.cross_entropy import require_labels_within

if TYPE_CHECKING:
    from crossfade.training.data import Steps


class Learner(nn.Module, ABC):
    """Networks and a loss.

    ``forward`` takes a part of a batch, one argument for each of its fields, and returns the loss under
    ``loss`` and further numbers worth logging, each a scalar tensor.
    """

    @abstractmethod
    def reduce_precision(self, active: bool) -> None:
        """Run what bears it in bfloat16 (autocast), or nothing."""

    def require(self, batches: Steps[Any]) -> None:
        """Refuse batches that this cannot learn from, before the first step."""

    def learning_rates(self) -> dict[str, float]:
        """Factors on the learning rate for parameters whose names begin so."""
        return {}


class ImageLearner(Learner):
    """An embedding network and a loss on labelled pictures.

    Attributes:
        network: what is kept after training.
        views: random views of each picture that the loss needs.
        classifier: what is kept beside the network for backward-compatible training later; may be None.
    """

    views: int = 1

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network
        self.classifier: Classifier | None = None

    @abstractmethod
    def forward(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss under ``loss``, and further numbers worth logging.

        Args:
            pictures: (views * n, 3, side, side) float in [0, 1]; first the first view of all pictures.
            labels: (n,) class codes.
        """

    def reduce_precision(self, active: bool) -> None:
        self.network.reduced_precision = active

    def require(self, batches: Steps[Any]) -> None:
        """Refuse labels outside the classifier.

        Raises:
            DataError: with the label and the number of classes.
        """
        if self.classifier is not None:
            require_labels_within(batches.largest_label, len(self.classifier.weight), "training data")
