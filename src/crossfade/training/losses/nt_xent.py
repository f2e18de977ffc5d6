"""The normalized temperature-scaled cross-entropy of SimCLR."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Each view has to find the other view of its picture among all views.

    Chen et al., ICML 2020, equation 1.

    Args:
        first, second: (n, d) projections of two views of the same n pictures.
        temperature: τ.
    """
    views = F.normalize(torch.cat([first, second]), dim=1)
    logits = views @ views.T / temperature
    logits.fill_diagonal_(float("-inf"))
    count = len(first)
    partners = torch.arange(2 * count, device=first.device).roll(count)
    return F.cross_entropy(logits, partners)
