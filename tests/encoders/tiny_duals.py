"""Randomly initialised dual encoders of transformers, small enough for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
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


WORDS = [
    "red",
    "green",
    "blue",
    "yellow",
    "white",
    "black",
    "circle",
    "square",
    "above",
    "under",
    "the",
    "of",
]


def tiny_tokenizer() -> Any:
    """Words to tokens; begin and end around them."""
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers, processors

    words = {word: number for number, word in enumerate(WORDS)}
    words |= {"<unk>": len(WORDS)} | {f"<unused{number}>": number for number in range(len(WORDS) + 1, BEGIN)}
    words |= {"<begin>": BEGIN, "<end>": END, "<pad>": PAD}
    made = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>", special_tokens=[("<begin>", BEGIN), ("<end>", END)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<begin>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
    )


def save_tiny_dual(directory: Path, kind: str = "clip", seed: int = 0, dimension: int = 24) -> Path:
    """A folder that `HuggingFaceDual.load` opens."""
    from crossfade.encoders.dual_network import DualNetwork
    from crossfade.encoders.hugging_face import HuggingFaceDual
    from crossfade.encoders.picture_settings import PictureSettings
    from crossfade.spaces import Space

    settings = PictureSettings(side=SIDE, resize_to=SIDE)
    network = DualNetwork(tiny_model(kind, seed, dimension=dimension), settings)
    space = Space(directory.name, dimension, normalized=True)
    HuggingFaceDual(network, tiny_tokenizer(), settings, space).save(directory)
    return directory


def tiny_pictures(count: int, seed: int = 0) -> list[bytes]:
    """PNG files of noise."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files


def tiny_captions(count: int, seed: int = 0) -> list[str]:
    """Some words each."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 8))) for _ in range(count)]
