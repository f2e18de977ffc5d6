"""Dual encoders of a few thousand random weights, in folders laid out as their sources lay them out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["red", "blue", "circle", "square", "left", "of", "large"]
TEXTS = ["a red circle", "blue", "a large blue square left of a red circle", "A Red Circle"]

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCHES = {**TOWER, "image_size": 16, "patch_size": 8}
CONTEXT = 12

CLIP_PICTURES = {  # as openai/clip-vit-base-patch32 writes it, bare numbers and a name of old
    "crop_size": 16,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 16,
}
SIGLIP_PICTURES = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "SiglipProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 16, "width": 16},
}
ALIGN_PICTURES = {
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_normalize": False,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "EfficientNetImageProcessor",
    "include_top": False,
    "resample": 2,
    "rescale_factor": 0.00784313725490196,
    "rescale_offset": True,
    "size": {"height": 38, "width": 38},
}
VIT_PICTURES = {"image_processor_type": "ViTFeatureExtractor", "do_resize": True, "size": 16, "resample": 2}


@dataclass(frozen=True)
class Small:
    """How one kind of model is made and used, as its documentation says."""

    write: Callable[[Path], None]
    processor: str
    padding: str
    dimension: int
    side: int


def picture(size: tuple[int, int], seed: int = 0, mode: str = "RGB", form: str = "PNG") -> bytes:
    """The bytes of a smooth random picture."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 4), dtype=np.uint8), "RGBA")
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, form)
    return buffer.getvalue()


def save_model(kind: str, config: dict[str, Any], folder: Path, seed: int = 0) -> None:
    """Random weights of a configuration, as transformers saves them."""
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **config))
    with torch.no_grad():
        for values in model.parameters():  # the usual start makes all vectors nearly the same
            if values.ndim > 1:
                values.normal_(std=0.3)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    model.save_pretrained(folder)


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def write_clip(folder: Path, *, seed: int = 0, dimension: int = 12, legacy: bool = True) -> None:
    """A CLIP as OpenAI laid it out: vocab.json and merges.txt; `legacy`: with the wrong end of a text."""
    words, merges = byte_pairs()
    text = {**TOWER, "vocab_size": len(words), "max_position_embeddings": CONTEXT}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": 1}
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1} if legacy else ends
    config = {"text_config": {**text, **ends}, "vision_config": PATCHES, "projection_dim": dimension}
    save_model("clip", config, folder, seed)
    write_json(folder / "vocab.json", words)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "errors": "replace"}
    write_json(folder / "tokenizer_config.json", {**tokenizer, "do_lower_case": True})
    write_json(folder / "preprocessor_config.json", CLIP_PICTURES)


def byte_pairs(words: list[str] = WORDS) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of CLIP's byte pairs for a few words."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    merges = []
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = f"{pieces[0]} {pieces[1]}"
            pieces[:2] = [pieces[0] + pieces[1]]
            if pair not in merges:
                merges.append(pair)
                tokens.append(pieces[0])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def write_siglip(folder: Path, *, kind: str = "SiglipTokenizer", seed: int = 0) -> None:
    """A SigLIP with its tokenizer.json: lower case, no punctuation, </s> at the end and as padding."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((f"▁{word}", -2.0) for word in WORDS)]
    pieces += [(letter, -5.0) for letter in ["▁", *LETTERS]]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@]"), ""), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    text = {**TOWER, "vocab_size": len(pieces), "max_position_embeddings": CONTEXT, "pad_token_id": 1}
    text |= {"bos_token_id": 0, "eos_token_id": 1}
    save_model("siglip", {"text_config": text, "vision_config": PATCHES}, folder, seed)
    tokenizer.save(str(folder / "tokenizer.json"))
    options = {"tokenizer_class": kind, "model_max_length": CONTEXT, "model_input_names": ["input_ids"]}
    ends = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "do_lower_case": True}
    write_json(folder / "tokenizer_config.json", options | ends)
    write_json(folder / "preprocessor_config.json", SIGLIP_PICTURES)


def bert_vocabulary(folder: Path) -> int:
    """BERT's vocab.txt for a few words; returns its length."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{c}" for c in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return len(pieces)


def write_chinese_clip(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = {**TOWER, "vocab_size": bert_vocabulary(folder), "max_position_embeddings": CONTEXT}
    config = {"text_config": text, "vision_config": PATCHES, "projection_dim": 12}
    save_model("chinese_clip", config, folder)
    kept = {key: value for key, value in CLIP_PICTURES.items() if key != "feature_extractor_type"}
    square = {"height": 16, "width": 16}
    pictures = {**kept, "size": square, "crop_size": square, "do_convert_rgb": True}
    # A folder that transformers 5 saved keeps the settings in the processor's file.
    processor = {"image_processor": {**pictures, "image_processor_type": "ChineseCLIPImageProcessor"}}
    write_json(folder / "processor_config.json", {**processor, "processor_class": "ChineseCLIPProcessor"})


def write_align(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = {**TOWER, "vocab_size": bert_vocabulary(folder), "max_position_embeddings": CONTEXT}
    vision = {"width_coefficient": 0.1, "depth_coefficient": 0.1, "image_size": 32, "hidden_dim": 32}
    save_model("align", {"text_config": text, "vision_config": vision, "projection_dim": 32}, folder)
    write_json(folder / "preprocessor_config.json", ALIGN_PICTURES)


def write_vision_text(folder: Path) -> None:
    """Any two towers, e.g. clip-italian's ViT and BERT."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {**TOWER, "vocab_size": bert_vocabulary(folder), "max_position_embeddings": CONTEXT}
    bert = {**text, "model_type": "bert"}
    config = {"text_config": bert, "vision_config": {**PATCHES, "model_type": "vit"}, "projection_dim": 12}
    save_model("vision-text-dual-encoder", config, folder)
    write_json(folder / "preprocessor_config.json", VIT_PICTURES)


SMALL = {
    "clip": Small(write_clip, "clip.image_processing_pil_clip.CLIPImageProcessorPil", "longest", 12, 16),
    "siglip": Small(
        write_siglip, "siglip.image_processing_pil_siglip.SiglipImageProcessorPil", "max_length", 16, 16
    ),
    "chinese-clip": Small(
        write_chinese_clip,
        "chinese_clip.image_processing_pil_chinese_clip.ChineseCLIPImageProcessorPil",
        "longest",
        12,
        16,
    ),
    "align": Small(
        write_align,
        "efficientnet.image_processing_pil_efficientnet.EfficientNetImageProcessorPil",
        "longest",
        32,
        32,
    ),
    "vision-text": Small(
        write_vision_text, "vit.image_processing_pil_vit.ViTImageProcessorPil", "longest", 12, 16
    ),
}


def unit(features: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = torch.nn.functional.normalize(features, dim=1).numpy()
    return values
