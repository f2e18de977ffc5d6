"""The three terms of XBT's second stage."""

from __future__ import annotations

from torch import Tensor

from crossfade.training.losses.cosine import cosine_loss
from crossfade.training.losses.info_nce import info_nce


def align_loss(image: Tensor, text: Tensor, belongs: Tensor, temperature: float) -> Tensor:
    """φ(image) to φ(text), in the old space: symmetric InfoNCE.

    Args:
        image, text: (B, d_old).
        belongs: (B, B) bool, whether a caption is right for an image; see `info_nce`.
    """
    return info_nce(image, text, temperature, belongs)


def anchor_loss(text: Tensor, before: Tensor) -> Tensor:
    """φ(text) to where stage 1 put it, φ of the off-the-shelf text vector: mean of 1 - cos, (b, d_old)."""
    return cosine_loss(text, before)


def preserve_loss(
    vectors: Tensor, before: Tensor, temperature: float | None = None, same: Tensor | None = None
) -> Tensor:
    """New vectors of images or texts to the off-the-shelf ones, (b, d_new).

    Args:
        temperature: None for mean of 1 - cos; otherwise InfoNCE, in which each finds its own among all.
        same: (b, b) bool, what is no negative for InfoNCE.
    """
    if temperature is None:
        return cosine_loss(vectors, before)
    return info_nce(vectors, before, temperature, same)
