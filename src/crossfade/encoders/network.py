"""The network behind a trained image encoder: backbone and embedding layer."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossfade.encoders.architecture import Architecture
from crossfade.encoders.backbones import build_backbone
from crossfade.errors import DimensionMismatch


class EmbeddingNetwork(nn.Module):
    """Pictures to embeddings.

    Args:
        architecture: what it is made of.
        weights: folder of local weights of the backbone to start from; empty for random numbers.

    Raises:
        DimensionMismatch: the embedding is to be the features, which are of another width.

    Attributes:
        reduced_precision: run the backbone in bfloat16 (autocast); the embedding layer stays in float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, weights: str | Path = "") -> None:
        super().__init__()
        self.architecture = architecture
        self.reduced_precision = False
        self.backbone = build_backbone(architecture, weights)
        self.embedding = _head(architecture, self.backbone.width)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(architecture, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 3, side, side) float in [0, 1] → (n, dimension) float32."""
        pixels = ((pictures - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.reduced_precision):
            features = self.backbone(pixels)
        embedding = self.embedding(features.float())
        return F.normalize(embedding, dim=1) if self.architecture.normalized else embedding

    @torch.no_grad()
    def embed(self, pictures: Tensor) -> Tensor:
        """(n, picture_size, picture_size, 3) uint8 → (n, dimension) float32, as used for retrieval."""
        return self(center_view(pictures, self.architecture))


def _head(architecture: Architecture, width: int) -> nn.Module:
    if architecture.head == "linear":
        return nn.Linear(width, architecture.dimension)
    if width != architecture.dimension:
        raise DimensionMismatch(
            f"head 'features' embeds into the backbone's {width} features, architecture.dimension is "
            f"{architecture.dimension}; set it to {width}, or use head 'linear'"
        )
    return nn.Identity()


def center_view(pictures: Tensor, architecture: Architecture) -> Tensor:
    """What the network sees of cached pictures when nothing is random: their middle, at its input size.

    (n, picture_size, picture_size, 3) uint8 → (n, 3, input_size, input_size) float in [0, 1].
    """
    side = pictures.shape[1]
    kept = max(1, round(side * architecture.crop))
    start = (side - kept) // 2
    middle = pictures[:, start : start + kept, start : start + kept]
    pixels = middle.permute(0, 3, 1, 2).float() / 255
    if kept == architecture.input_size:
        return pixels
    size = (architecture.input_size, architecture.input_size)
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
