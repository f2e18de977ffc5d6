"""What an image embedding network is made of: enough to build it again, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crossfade.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Architecture:
    """An image embedding network: picture → backbone → embedding layer.

    Attributes:
        backbone: a model type of transformers (``resnet``, ``convnext``, ``vit``, ``dinov2``), or
            ``timm:NAME`` where timm is installed.
        config: options of the backbone's configuration, in its library's words.
        stem: ``standard`` is the backbone's own; ``small`` replaces a ResNet's 7 × 7 convolution and
            pooling by one 3 × 3 convolution, as is usual for pictures of 32 or 64 pixels.
        head: ``linear`` maps the backbone's pooled features to the dimension; ``features`` takes them as
            they are, the dimension being the backbone's width.
        dimension: length of the embedding.
        normalized: whether embeddings have unit length.
        picture_size: side at which pictures are decoded and cached.
        input_size: side at which the network sees them.
        crop: share of the picture's side that is kept, around its middle, when it is embedded.
        mean, std: per-channel statistics of pixels in [0, 1].

    Raises:
        UsageError: a size or a share that makes no sense.
    """

    backbone: str = "resnet"
    config: Mapping[str, Any] = field(default_factory=dict)
    stem: Literal["standard", "small"] = "standard"
    head: Literal["linear", "features"] = "linear"
    dimension: int = 128
    normalized: bool = False
    picture_size: int = 256
    input_size: int = 224
    crop: float = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("dimension", "picture_size", "input_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"architecture.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise UsageError(f"architecture.crop is a share of the picture's side in (0, 1], got {self.crop}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError(
                "architecture.mean and .std have one number per channel, three each, std above 0"
            )
