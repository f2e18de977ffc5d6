"""The penalty that keeps a matrix nearly orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_orthogonality(weight: Tensor, threshold: float) -> Tensor:
    """max(0, ‖WᵀW - I‖_F - λ) (Ricci et al., NeurIPS 2025).

    Args:
        weight: (outputs, inputs); of a wide matrix the rows are compared, of a tall one the columns.
        threshold: λ.
    """
    outputs, inputs = weight.shape
    gram = weight.T @ weight if inputs <= outputs else weight @ weight.T
    # A norm has no gradient at zero, where an orthogonal start would put it.
    squared = (gram - torch.eye(len(gram), device=weight.device)).square().sum()
    return torch.relu((squared + 1e-12).sqrt() - threshold)
