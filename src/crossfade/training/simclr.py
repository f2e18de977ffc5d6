"""Side-information by self-supervision: SimCLR (Chen et al., ICML 2020)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from crossfade.encoders.network import EmbeddingNetwork
from crossfade.training.distributed import gather
from crossfade.training.learner import ImageLearner
from crossfade.training.losses.nt_xent import nt_xent
from crossfade.training.recipe import SimclrObjective


class SimclrLearner(ImageLearner):
    """Two views of a picture must be closer than views of different pictures; labels are not used.

    The projection head stands on the embedding and is dropped after training.
    """

    views = 2

    def __init__(self, network: EmbeddingNetwork, objective: SimclrObjective) -> None:
        super().__init__(network)
        widths = (network.architecture.dimension, *objective.projection)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.projection = nn.Sequential(*layers[:-1])
        self._temperature = objective.temperature

    def forward(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        first, second = self.projection(self.network(pictures)).chunk(2)
        return {"loss": nt_xent(gather(first), gather(second), self._temperature)}
