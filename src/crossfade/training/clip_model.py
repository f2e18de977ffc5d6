"""The network of a dual encoder that is trained from scratch."""

from __future__ import annotations

import math
from typing import Any

import torch

from crossfade.encoders.dual_network import DualNetwork
from crossfade.encoders.picture_settings import PictureSettings
from crossfade.training.clip_recipe import ClipArchitecture, ClipRecipe, TowerRecipe


def make_network(recipe: ClipRecipe, tokenizer: Any, device: torch.device) -> DualNetwork:
    """CLIP with random weights, drawn from the recipe's seed.

    Args:
        tokenizer: the one it is to read; its tokens are the text tower's vocabulary.
        device: where it will be trained, for the choice of the attention.
    """
    from transformers import CLIPConfig, CLIPModel

    architecture = recipe.architecture
    config = CLIPConfig(
        text_config={
            **_tower(architecture.text, architecture),
            "vocab_size": len(tokenizer),
            "max_position_embeddings": architecture.context_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            **_tower(architecture.vision, architecture),
            "image_size": architecture.image_size,
            "patch_size": architecture.patch_size,
        },
        projection_dim=architecture.dimension,
        logit_scale_init_value=math.log(1 / recipe.temperature),
    )
    attention = recipe.attention
    if attention == "auto":
        attention = "eager" if device.type == "cpu" else "sdpa"
    config._attn_implementation = attention
    torch.manual_seed(recipe.seed)
    model = CLIPModel(config)
    return DualNetwork(model, picture_settings(architecture, architecture.image_size))


def picture_settings(architecture: ClipArchitecture, side: int) -> PictureSettings:
    """The middle square of a picture, at `side` pixels."""
    mean, std = ((values[0], values[1], values[2]) for values in (architecture.mean, architecture.std))
    return PictureSettings(side=side, resize="shortest", resize_to=side, mean=mean, std=std)


def _tower(tower: TowerRecipe, architecture: ClipArchitecture) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden or 4 * tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "attention_dropout": tower.attention_dropout,
        "hidden_act": architecture.activation,
        "projection_dim": architecture.dimension,
    }
