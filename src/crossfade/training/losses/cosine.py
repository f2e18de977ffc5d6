"""The angle between vectors that should be the same."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def cosine_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean over the batch of 1 - cos(first, second), both (n, d)."""
    return (1 - F.cosine_similarity(first, second, dim=1)).mean()
