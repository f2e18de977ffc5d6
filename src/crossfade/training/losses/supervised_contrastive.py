"""Supervised contrastive loss between the embeddings of several models."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from crossfade.training.losses.influence import UNKNOWN


def supervised_contrastive(
    anchors: Tensor, others: Tensor, labels: Tensor, temperature: float = 0.1
) -> Tensor:
    """Every anchor has to find the others of its class among all others.

    Khosla et al., NeurIPS 2020, equation 2, with anchors and others embedded by different maps, so that an
    item's own vector under the other map counts as one of its class. Items of unknown class do not count.

    Args:
        anchors, others: (b, d), row for row the same items.
        labels: (b,) class codes, -1 where the class is not known.
        temperature: τ.
    """
    known = labels != UNKNOWN
    if not known.any():
        return anchors.sum() * 0
    anchors, others, labels = (
        F.normalize(anchors[known], dim=1),
        F.normalize(others[known], dim=1),
        labels[known],
    )
    log_share = torch.log_softmax(anchors @ others.T / temperature, dim=1)
    same = (labels[:, None] == labels[None, :]).to(log_share.dtype)
    return -((same * log_share).sum(1) / same.sum(1)).mean()
