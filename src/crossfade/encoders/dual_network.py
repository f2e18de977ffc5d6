"""The network behind a dual encoder: pixels and tokens to features of one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.encoders.picture_settings import PictureSettings
from crossfade.errors import NotSupported

# Of these models a position is counted from the padding token's id on, so that many positions are not used.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "altclip_text_model")


@dataclass(frozen=True)
class Tokens:
    """Texts as a model reads them.

    Attributes:
        input_ids: (n, L) int64.
        attention_mask: (n, L) int64; 1 where the model looks; everywhere for those that see padding.
        truncated: how many of the texts were longer than the context and lost their end.
    """

    input_ids: Tensor
    attention_mask: Tensor
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device: Any) -> Tokens:
        """The same on another device."""
        return Tokens(self.input_ids.to(device), self.attention_mask.to(device), self.truncated)

    def rows(self, index: Any) -> Tokens:
        """Some of the texts, by slice, numbers or mask; padding that none of them needs is left out.

        How many of those were truncated is not known any more, so it is 0.
        """
        ids, mask = self.input_ids[index], self.attention_mask[index]
        used = mask.any(dim=0).nonzero()
        length = int(used[-1]) + 1 if len(used) else ids.shape[1]
        return Tokens(ids[:, :length], mask[:, :length])


class DualNetwork(nn.Module):
    """A transformers model with ``get_image_features`` and ``get_text_features``.

    Args:
        model: CLIPModel, SiglipModel, AlignModel, ChineseCLIPModel, VisionTextDualEncoderModel, ...
        settings: what its pictures look like; mean and std are applied here.

    Raises:
        NotSupported: the model lacks one of the two methods.

    Attributes:
        dimension: d, components of a feature.
        image_size: s, pixels on a side of its pictures.
        context_length: most tokens of a text, the special ones included.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, settings: PictureSettings) -> None:
        super().__init__()
        require_towers(type(model))
        self.model = model
        self.dimension = feature_dimension(model.config)
        self.image_size = settings.side
        self.context_length = context_length(model.config)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(settings, name), dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def image_features(self, pictures: Tensor) -> Tensor:
        """(n, 3, s, s) float in [0, 1] → (n, d), not of unit length."""
        pixels = (pictures - self.mean) / self.std
        return _pooled(self.model.get_image_features(pixel_values=pixels))

    def text_features(self, tokens: Tokens) -> Tensor:
        """n texts → (n, d), not of unit length."""
        output = self.model.get_text_features(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        )
        return _pooled(output)

    def forward(self, pictures: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """`image_features` and `text_features`."""
        return self.image_features(pictures), self.text_features(tokens)


def require_towers(model_class: type) -> None:
    """Refuse a model that is no dual encoder.

    Raises:
        NotSupported: one of the two methods is missing, or the pictures are not squares of one size.
    """
    name = model_class.__name__
    if name.startswith("Siglip2"):
        raise NotSupported(
            f"{name} takes pictures of any shape (NaFlex), which is not supported; "
            "take the checkpoint of a fixed resolution, e.g. google/siglip2-base-patch16-224"
        )
    for method in ("get_image_features", "get_text_features"):
        if not hasattr(model_class, method):
            raise NotSupported(
                f"{name} is no dual encoder: it has no {method}; "
                "take a model with an image and a text tower (CLIP, SigLIP, ...)"
            )


def feature_dimension(config: Any) -> int:
    """Components of the features of a model of this configuration."""
    if getattr(config, "projection_dim", None):
        return int(config.projection_dim)
    text = config.text_config
    return int(getattr(text, "projection_size", None) or text.hidden_size)


def context_length(config: Any) -> int:
    """Most tokens of a text, the special ones included, for a model of this configuration."""
    text = config.text_config
    positions = int(text.max_position_embeddings)
    if text.model_type in _OFFSET_POSITIONS:
        positions -= (text.pad_token_id or 0) + 1
    return positions


def _pooled(output: Any) -> Tensor:
    # transformers 5 returns an object, earlier versions the features themselves.
    features: Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features
