"""What XBT's second stage optimizes: LoRA and prompts of the new model, seen through the frozen φ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossfade.adapters import Adapter
from crossfade.adapters.linear import LinearAdapter
from crossfade.adapters.projection import Projection
from crossfade.encoders.dual_network import Tokens
from crossfade.encoders.tuned_network import TunedNetwork
from crossfade.errors import NotSupported
from crossfade.training.distributed import gather
from crossfade.training.learner import Learner
from crossfade.training.losses.xbt import align_loss, anchor_loss, preserve_loss
from crossfade.training.projection import ProjectionNetwork
from crossfade.training.xbt_recipe import XbtObjective

OWN = "own"  # the name of the off-the-shelf vectors in a batch


class XbtLearner(Learner):
    """align · InfoNCE(φ(image), φ(text)) + anchor · (1 - cos(φ(text), φ(own text))) + preserve · P.

    P is the mean over both towers of how far a vector is from the off-the-shelf one.

    Its state is what is tuned, so that checkpoints stay small and never hold the base.

    Args:
        parts: the new model with LoRA and prompts.
        projection: φ; frozen.
        objective: weights of the terms.
        prompt_learning_rate: factor on the prompts' learning rate.
    """

    def __init__(
        self,
        parts: TunedNetwork,
        projection: Adapter,
        objective: XbtObjective,
        *,
        prompt_learning_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.parts, self._objective = parts, objective
        self.projection = projection_network(projection).requires_grad_(False)
        self._prompt_learning_rate = prompt_learning_rate
        self._reduced = False

    def reduce_precision(self, active: bool) -> None:
        self._reduced = active

    def learning_rates(self) -> dict[str, float]:
        return {"parts.prompts.": self._prompt_learning_rate}

    def forward(
        self,
        pictures: Tensor,
        tokens: Tokens,
        belongs: Tensor,
        image_vectors: dict[str, Tensor],
        caption_vectors: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self._reduced):
            features = self.parts.image_features(pictures), self.parts.text_features(tokens)
        image, text = (gather(F.normalize(one.float(), dim=1)) for one in features)
        own_image, own_text = gather(image_vectors[OWN]), gather(caption_vectors[OWN])
        goal = self._objective
        temperature = goal.temperature if goal.preserve_by == "contrastive" else None
        old_text = self.projection(text)
        terms = {
            "align": align_loss(self.projection(image), old_text, belongs, goal.temperature),
            "anchor": anchor_loss(old_text, self.projection(own_text)),
            "preserve": (
                preserve_loss(image, own_image, temperature)
                + preserve_loss(text, own_text, temperature, belongs)
            )
            / 2,
        }
        loss = goal.align * terms["align"] + goal.anchor * terms["anchor"] + goal.preserve * terms["preserve"]
        return {"loss": loss, **{name: value.detach() for name, value in terms.items()}}

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        """What is tuned."""
        return {name: value.detach() for name, value in self.parts.tuned().items()}

    def load_state_dict(self, state: Mapping[str, Any], *arguments: Any, **options: Any) -> None:
        """Take over what `state_dict` gave."""
        tuned = self.parts.tuned()
        if set(state) != set(tuned):
            raise KeyError(f"tuned parts {sorted(set(state) ^ set(tuned))} are on one side only")
        with torch.no_grad():
            for name, value in tuned.items():
                value.copy_(state[name])


def projection_network(projection: Adapter) -> nn.Module:
    """φ in torch, with gradient to its input: vectors of unit length to what `projection` maps them to.

    Raises:
        NotSupported: another method than a projection or a linear map.
    """
    if isinstance(projection, Projection):
        return ProjectionNetwork.from_adapter(projection)
    if not isinstance(projection, LinearAdapter):
        raise NotSupported(
            f"φ is a {projection.name} adapter, which has no gradient here; train a projection with "
            "crossfade train xbt-text, or fit a linear map (procrustes, ridge)"
        )
    network = nn.Linear(*projection.dimensions)
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(projection.weight.T.copy()))
        network.bias.copy_(torch.from_numpy(projection.bias.copy()))
    return network
