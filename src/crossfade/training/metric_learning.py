"""Embeddings by the losses of pytorch-metric-learning."""

from __future__ import annotations

from torch import Tensor

from crossfade.encoders.network import EmbeddingNetwork
from crossfade.training.distributed import gather
from crossfade.training.learner import ImageLearner
from crossfade.training.losses.metric import make_metric_loss, make_miner
from crossfade.training.recipe import MetricLearningObjective


class MetricLearner(ImageLearner):
    """A loss on pairs, triplets or proxies of the embeddings of a whole batch.

    Args:
        network: embeds the pictures.
        classes: number of classes.
        objective: the loss, its options, its miner.

    Raises:
        UsageError: no such loss or miner.
    """

    def __init__(self, network: EmbeddingNetwork, classes: int, objective: MetricLearningObjective) -> None:
        super().__init__(network)
        self.loss = make_metric_loss(
            objective.loss, objective.options, classes, network.architecture.dimension
        )
        self._miner = make_miner(objective.miner, objective.miner_options) if objective.miner else None
        self._loss_factor = objective.proxy_learning_rate

    def learning_rates(self) -> dict[str, float]:
        return {"loss.": self._loss_factor}

    def forward(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        embeddings, labels = gather(self.network(pictures)), gather(labels)
        pairs = self._miner(embeddings, labels) if self._miner else None
        return {"loss": self.loss(embeddings, labels, pairs) if pairs else self.loss(embeddings, labels)}
