"""Contrastive language-image pre-training (Radford et al., ICML 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crossfade.encoders.dual_network import DualNetwork, Tokens
from crossfade.training.distributed import gather
from crossfade.training.learner import Learner
from crossfade.training.losses.info_nce import info_nce

LARGEST_SCALE = math.log(100)  # section 2.5 of the paper


class ClipLearner(Learner):
    """Every picture has to find its caption in the batch, and every caption its picture.

    A caption that was drawn for another picture and stands, token for token, among a picture's own is not
    wrong for it: such pairs are left out of the loss, neither right nor wrong.

    Args:
        network: both towers, and the temperature, which is learned.
    """

    def __init__(self, network: DualNetwork) -> None:
        super().__init__()
        self.network = network
        self._reduced_precision = False

    def reduce_precision(self, active: bool) -> None:
        self._reduced_precision = active

    def forward(
        self,
        pictures: Tensor,
        tokens: Tokens,
        belongs: Tensor,
        image_vectors: dict[str, Tensor],
        caption_vectors: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Takes a `PairPart`; vectors are not used."""
        log_scale = self.network.model.logit_scale
        with torch.no_grad():
            log_scale.clamp_(max=LARGEST_SCALE)
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self._reduced_precision):
            images, texts = self.network(pictures, tokens)
        images, texts = gather(images.float()), gather(texts.float())
        temperature = torch.exp(-log_scale)
        loss = info_nce(images, texts, temperature, belongs)
        return {"loss": loss, "temperature": temperature.detach(), "found": found(images, texts, belongs)}


@torch.no_grad()
def found(images: Tensor, texts: Tensor, belongs: Tensor) -> Tensor:
    """Share of a batch's pictures whose most similar caption is right for them."""
    scores = images @ torch.nn.functional.normalize(texts, dim=1).T
    return belongs.gather(1, scores.argmax(1, keepdim=True)).float().mean()
