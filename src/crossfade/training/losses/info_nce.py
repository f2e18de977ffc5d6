"""The symmetric in-batch contrastive loss of dual encoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def info_nce(
    first: Tensor, second: Tensor, temperature: float | Tensor, belongs: Tensor | None = None
) -> Tensor:
    """Mean of two cross-entropies: each first has to find its second in the batch, each second its first.

    van den Oord et al., arXiv 1807.03748, equation 4, with cosines over the temperature as logits;
    symmetric as in CLIP (Radford et al., ICML 2021, section 2.3).

    Args:
        first, second: (n, d), row for row what belongs together.
        temperature: τ.
        belongs: (n, n) bool, where a second belongs to a first; off the diagonal, such a pair is no negative
            (the same caption drawn for two images).
    """
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    partners = torch.arange(len(first), device=first.device)
    if belongs is not None:
        others = ~torch.eye(len(first), dtype=torch.bool, device=first.device)
        logits = logits.masked_fill(belongs & others, float("-inf"))
    return (F.cross_entropy(logits, partners) + F.cross_entropy(logits.T, partners)) / 2
