"""The influence loss of backward-compatible training."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

UNKNOWN = -1


def influence_loss(old_logits: Tensor, old_labels: Tensor) -> Tensor:
    """Cross-entropy of the frozen old classifier on new embeddings (Shen et al., CVPR 2020, equation 4).

    Items of classes that the old classifier does not know do not count; a batch without others costs 0.

    Args:
        old_logits: (n, C_old) the old classifier's logits of the new embeddings.
        old_labels: (n,) class codes of the old classifier, -1 where it does not know the class.
    """
    count = (old_labels != UNKNOWN).sum().clamp(min=1)
    return F.cross_entropy(old_logits, old_labels, ignore_index=UNKNOWN, reduction="sum") / count


def old_labels_of(labels: Tensor, positions: Tensor) -> Tensor:
    """Class codes of the old classifier for new class codes: (n,) → (n,)."""
    return torch.take(positions, labels)
