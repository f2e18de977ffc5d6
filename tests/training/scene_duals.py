"""Two tiny CLIP models of generated scenes, an old and a better new one, trained in seconds."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tokenizers
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from tokenizers import models, pre_tokenizers, processors

from crossfade.datasets.drawing import draw
from crossfade.datasets.scenes import COLORS, Scene, Split, Thing, scene_key, scenes_table, split_of
from crossfade.datasets.scenes import LAYOUTS as TEMPLATES
from crossfade.encoders.dual_network import DualNetwork
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.encoders.picture_settings import PictureSettings
from crossfade.spaces import Space
from crossfade.training.losses.info_nce import info_nce

SIDE, CONTEXT, BATCH = 32, 24, 64
RATE = 3e-3
LAYOUTS = ("row of three", "column of three")


def scenes_of(*splits: Split, copies: int = 1, seed: int = 0) -> list[Scene]:
    """Every scene of three discs of different colors in line that belongs to one of the splits.

    Args:
        copies: pictures of each, with two captions each of other templates.
    """
    random = Random(seed)
    things = [Thing("large", color, "circle") for color in COLORS]
    scenes = []
    for layout in LAYOUTS:
        for trio in itertools.permutations(things, 3):
            key = scene_key(layout, trio)
            if split_of(key) in splits:
                scenes += [_scene(f"{key} {number}", layout, trio, random) for number in range(copies)]
    random.shuffle(scenes)
    return scenes


def _scene(identifier: str, layout: str, trio: tuple[Thing, ...], random: Random) -> Scene:
    chosen = random.sample(TEMPLATES[layout], 2)
    captions = tuple(template.format(*(f"a {thing}" for thing in trio)) for template in chosen)
    return Scene(identifier, layout, trio, captions, random.getrandbits(32))


def write_scenes(scenes: list[Scene], path: Path) -> Path:
    """As Parquet: id, image, caption (a list)."""
    table = scenes_table(scenes, SIDE)
    pq.write_table(table.rename_columns(["id", "image", "caption", "key"]), path)
    return path


@dataclass(frozen=True)
class Size:
    """Of a model and its training."""

    width: int
    layers: int
    dimension: int
    scenes: int
    steps: int
    seed: int


OLD = Size(width=24, layers=1, dimension=32, scenes=1000, steps=100, seed=3)
NEW = Size(width=64, layers=1, dimension=48, scenes=9000, steps=300, seed=2)


def train_dual(size: Size, folder: Path, scenes: list[Scene]) -> HuggingFaceDual:
    """Symmetric InfoNCE with Adam; saved in `folder`."""
    scenes = scenes[: size.scenes]
    tokenizer = _tokenizer(scenes)
    torch.manual_seed(size.seed)
    dual = _untrained(size, tokenizer, folder.name)
    pictures = torch.from_numpy(np.stack(list(draw(scenes, SIDE)))).permute(0, 3, 1, 2)
    captions = [dual.tokenize([scene.captions[number] for scene in scenes]) for number in range(2)]
    network = dual.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, size.steps, pct_start=0.1)
    for step in range(size.steps):
        rows = torch.randint(len(scenes), (BATCH,))
        images = network.image_features(pictures[rows].float() / 255)
        texts = network.text_features(captions[step % 2].rows(rows))
        optimizer.zero_grad()
        info_nce(images, texts, 0.07).backward()
        optimizer.step()
        schedule.step()
    dual.network.eval()
    dual.save(folder)
    return HuggingFaceDual.load(folder, device="cpu")


def _untrained(size: Size, tokenizer: Any, name: str) -> HuggingFaceDual:
    shape = {
        "hidden_size": size.width,
        "intermediate_size": 2 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": 4,
    }
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {**shape, **special, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config={**shape, "image_size": SIDE, "patch_size": 8},
        projection_dim=size.dimension,
    )
    settings = PictureSettings(side=SIDE, resize_to=SIDE)
    network = DualNetwork(transformers.CLIPModel(config), settings)
    return HuggingFaceDual(
        network, tokenizer, settings, Space(name, size.dimension, normalized=True), device="cpu"
    )


def _tokenizer(scenes: list[Scene]) -> Any:
    words = sorted(
        {word for scene in scenes for text in scene.captions for word in re.findall(r"\w+|,", text)}
    )
    numbers = {word: number for number, word in enumerate(["<unk>", "<begin>", "<end>", "<pad>", *words])}
    made = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>", special_tokens=[("<begin>", 1), ("<end>", 2)]
    )
    special = {f"{name}_token": f"<{word}>" for name, word in (("bos", "begin"), ("eos", "end"))}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **special, pad_token="<pad>", unk_token="<unk>", model_max_length=CONTEXT
    )


def reciprocal_ranks(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(n,) 1 / rank of the item of the same row, by cosine."""
    unit = [F.normalize(torch.from_numpy(one), dim=1) for one in (queries, gallery)]
    scores = unit[0] @ unit[1].T
    rank = (scores > scores.diagonal()[:, None]).sum(1) + 1
    return (1 / rank).numpy()
