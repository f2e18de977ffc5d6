"""Randomly initialised dual encoders of transformers, small enough for tests."""

from __future__ import annotations

from typing import Any

import torch

SIDE, CONTEXT, VOCABULARY = 16, 12, 60
KINDS = ("clip", "siglip")
BEGIN, END, PAD = 57, 58, 59


def tiny_model(kind: str, seed: int = 0, attention: str = "sdpa", dimension: int = 24) -> Any:
    """CLIP or SigLIP of two layers."""
    import transformers

    torch.manual_seed(seed)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    text = {
        **sizes,
        "hidden_size": 32 if kind == "clip" else dimension,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": PAD,
    }
    vision = {
        **sizes,
        "hidden_size": 40 if kind == "clip" else dimension,
        "image_size": SIDE,
        "patch_size": 8,
    }
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=dimension)
        made = transformers.CLIPModel._from_config(config, attn_implementation=attention)
    else:
        config = transformers.SiglipConfig(
            text_config=text | {"projection_size": dimension}, vision_config=vision
        )
        made = transformers.SiglipModel._from_config(config, attn_implementation=attention)
    return made.eval()


def tiny_tokens(lengths: list[int], seed: int = 0, width: int = CONTEXT) -> tuple[torch.Tensor, torch.Tensor]:
    """Random texts: ids (n, width) and mask; BEGIN, words, END, padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, 0], ids[row, length - 1] = BEGIN, END
        ids[row, 1 : length - 1] = torch.randint(0, BEGIN, (length - 2,), generator=generator)
        mask[row, :length] = 1
    return ids, mask
