"""What a training loop optimizes: a network with whatever its loss needs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from crossfade.encoders.network import EmbeddingNetwork
from crossfade.training.classifier import Classifier


class Learner(nn.Module, ABC):
    """An embedding network and a loss.

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

    def learning_rates(self) -> dict[str, float]:
        """Factors on the learning rate for parameters whose names begin so."""
        return {}
