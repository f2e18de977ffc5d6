"""Softmax cross-entropy with label smoothing."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from crossfade.errors import DataError


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of -Σ_c q_c log softmax(logits)_c, q = (1 - ε) onehot(label) + ε / C.

    Args:
        logits: (n, C).
        labels: (n,) class codes.
        label_smoothing: ε (Szegedy et al., CVPR 2016, section 7).
    """
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def require_labels_within(largest: int, classes: int, what: str) -> None:
    """Refuse labels that a classifier has no output for.

    Raises:
        DataError: with both numbers.
    """
    if not largest < classes:
        raise DataError(
            f"{what}: label {largest} is outside the classifier, which has {classes} classes "
            f"(0 to {classes - 1}); choose the classes that it knows with data.classes, "
            "or train it on these labels"
        )
