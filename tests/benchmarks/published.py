"""The paper's models, and its data in its layouts.

The towers have the real widths, heads, patches and pictures, one layer of random weights, and an eighth of
the real dimensions in common, so that a map between them needs few pairs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from small_duals import byte_pairs, save_model, write_json

WORDS = [
    "red",
    "blue",
    "green",
    "dog",
    "cat",
    "house",
    "tree",
    "on",
    "of",
    "the",
    "runs",
    "sits",
    "old",
    "new",
]
CLIP_PICTURES = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
# width, heads and width of the MLP of both towers, patch, dimension: as the models' own config.json says
SMALLER = 8
MODELS = {
    "openai/clip-vit-base-patch32": ((768, 12, 3072), (512, 8, 2048), 32, 512, "quick_gelu"),
    "openai/clip-vit-large-patch14": ((1024, 16, 4096), (768, 12, 3072), 14, 768, "quick_gelu"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ((1280, 16, 5120), (1024, 16, 4096), 14, 1024, "gelu"),
}


def write_model(name: str, folder: Path, seed: int) -> Path:
    """A folder as the Hub has it."""
    vision, text, patch, dimension, activation = MODELS[name]
    words, merges = byte_pairs(WORDS)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": 1}
    config = {
        "vision_config": {**_tower(*vision, activation), "image_size": 224, "patch_size": patch},
        "text_config": {
            **_tower(*text, activation),
            **ends,
            "vocab_size": len(words),
            "max_position_embeddings": 77,
        },
        "projection_dim": dimension // SMALLER,
    }
    folder.mkdir(parents=True)
    save_model("clip", config, folder, seed)
    write_json(folder / "vocab.json", words)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "errors": "replace"}
    write_json(folder / "tokenizer_config.json", {**tokenizer, "do_lower_case": True})
    write_json(folder / "preprocessor_config.json", CLIP_PICTURES)
    return folder


def _tower(width: int, heads: int, inner: int, activation: str) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
        "hidden_act": activation,
    }


def write_data(folder: Path, texts: int) -> None:
    """COCO and Flickr30k with Karpathy's splits, nocaps, and a corpus of captions."""
    rng = np.random.default_rng(0)
    splits = ["train"] * 4 + ["restval", "val", "test"]
    coco = []
    for number, split in enumerate(splits):
        part = "train2014" if split == "train" else "val2014"
        name = f"COCO_{part}_{number:012d}.jpg"
        _picture(folder / "coco" / part / name, rng)
        # so many captions that the few pictures give more pairs than the widest space has dimensions
        said = _captions(40 if split == "train" else 5, rng)
        coco.append(_karpathy(name, split, said) | {"filepath": part, "cocoid": number})
    _json(folder / "coco" / "dataset_coco.json", {"images": coco, "dataset": "coco"})
    flickr = []
    for number, split in enumerate(["train", "val", "test"]):
        _picture(folder / "flickr30k" / "images" / f"{number}.jpg", rng)
        flickr.append(_karpathy(f"{number}.jpg", split, _captions(5, rng)))
    _json(folder / "flickr30k" / "dataset_flickr30k.json", {"images": flickr, "dataset": "flickr30k"})
    domains = ["in-domain", "near-domain", "out-domain"]
    images = [
        {"id": number, "file_name": f"{number:016x}.jpg", "domain": domain}
        for number, domain in enumerate(domains)
    ]
    for image in images:
        _picture(folder / "nocaps" / "images" / str(image["file_name"]), rng)
    said = [(number, caption) for number in range(3) for caption in _captions(10, rng)]
    notes = [{"id": row, "image_id": number, "caption": text} for row, (number, text) in enumerate(said)]
    _json(folder / "nocaps" / "nocaps_val_4500_captions.json", {"images": images, "annotations": notes})
    (folder / "texts").mkdir()
    (folder / "texts" / "captions.txt").write_text("\n".join(_captions(texts, rng)) + "\n", encoding="utf-8")


def _captions(count: int, rng: np.random.Generator) -> list[str]:
    return [" ".join(rng.choice(WORDS, 8)) for _ in range(count)]


def _karpathy(name: str, split: str, captions: Sequence[str]) -> dict[str, Any]:
    sentences = [{"raw": caption, "tokens": caption.split()} for caption in captions]
    return {"filename": name, "split": split, "sentences": sentences}


def _picture(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    coarse.resize((250, 230)).save(file, "JPEG")
    path.write_bytes(file.getvalue())


def _json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
