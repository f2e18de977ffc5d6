"""Train, export and measure the two vision-language models of `crossfade demo`.

Reads from top to bottom: settings, data, towers, loss, training, export, measurement. Every stage
leaves its result under --work and is skipped when that is there; training goes on from its last
checkpoint and then ends in the same weights. CPU is enough. See README.md beside this file.

    python recipes/demo/train.py --work runs/demo
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossfade.datasets.drawing import IMAGE_SIDE, draw
from crossfade.datasets.scenes import Split, generate, scenes_table
from crossfade.encoders.onnx import OnnxEncoder
from crossfade.spaces import Space

# Settings


@dataclass(frozen=True)
class Recipe:
    """One dual encoder and how it is trained."""

    name: str
    dimension: int
    downscale: int  # the old model sees pictures of half the side
    channels: tuple[int, ...]  # one per stage; each stage halves the side
    hidden: int
    text_width: int
    text_layers: int
    scenes: int
    steps: int
    batch: int = 256
    learning_rate: float = 1.5e-3
    warm_up: int = 200
    weight_decay: float = 0.05
    seed: int = 0


OLD = Recipe(
    name="crossfade-demo-old",
    dimension=64,
    downscale=2,
    channels=(16, 32),
    hidden=64,
    text_width=32,
    text_layers=1,
    scenes=8_000,
    steps=500,
    seed=1,
)
NEW = Recipe(
    name="crossfade-demo-new",
    dimension=96,
    downscale=1,
    channels=(32, 64, 128),
    hidden=384,
    text_width=128,
    text_layers=2,
    scenes=120_000,
    steps=4000,
    seed=2,
)
TEXT_LENGTH = 24
CAPTIONS = 4
VALIDATION_SCENES = 5000
GALLERY_SCENES = 5000
CHECKPOINT_STEPS = 250
ASSETS = Path(__file__).parents[2] / "src/crossfade/demo/assets"

# Data


@dataclass(frozen=True)
class Pairs:
    """Pictures (n, side, side, 3) uint8 and their captions as token ids (n, captions, length)."""

    pictures: NDArray[np.uint8]
    tokens: NDArray[np.int32]


def tokenize(text: str, vocabulary: dict[str, int]) -> list[int]:
    words = re.findall(r"[a-z]+|,", text.lower())[:TEXT_LENGTH]
    ids = [vocabulary.get(word, 1) for word in words]
    return ids + [0] * (TEXT_LENGTH - len(ids))


def vocabulary_of_training_captions() -> dict[str, int]:
    scenes = generate("train", 5000, captions=CAPTIONS)
    words = {
        word for scene in scenes for caption in scene.captions for word in re.findall(r"[a-z]+|,", caption)
    }
    return {word: index for index, word in enumerate(["[pad]", "[unknown]", *sorted(words)])}


def prepare(work: Path, split: Split, count: int, vocabulary: dict[str, int], seed: int) -> Pairs:
    path = work / f"{split}-{count}-{seed}.npz"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        scenes = generate(split, count, seed=seed, captions=CAPTIONS)
        tokens = [[tokenize(caption, vocabulary) for caption in scene.captions] for scene in scenes]
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, pictures=draw(scenes), tokens=np.array(tokens, dtype=np.int32))
        partial.replace(path)
    stored = np.load(path)
    return Pairs(stored["pictures"], stored["tokens"])


# Towers


class ImageTower(nn.Module):  # type: ignore[misc]
    """Convolutions down to a small grid, then an MLP that sees every place: (n, h, w, 3) uint8 -> (n, d)."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.downscale = recipe.downscale
        layers: list[nn.Module] = []
        before = 3
        for width in recipe.channels:
            layers += [*convolution(before, width, stride=2), *convolution(width, width)]
            before = width
        cells = (IMAGE_SIDE // recipe.downscale // 2 ** len(recipe.channels)) ** 2
        self.stages = nn.Sequential(*layers, *convolution(before, 32, size=1))
        self.head = nn.Sequential(
            nn.Linear(32 * cells, recipe.hidden), nn.GELU(), nn.Linear(recipe.hidden, recipe.dimension)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.downscale > 1:
            x = F.avg_pool2d(x, self.downscale)
        return F.normalize(self.head(self.stages(x).flatten(1)).float(), dim=-1)


def convolution(before: int, after: int, *, size: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


class Block(nn.Module):  # type: ignore[misc]
    """Self-attention and MLP, normalized before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(self.before_attention(x)).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads) + mask
        x = x + self.out((scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(n, length, width))
        return x + self.mlp(self.before_mlp(x))


class TextTower(nn.Module):  # type: ignore[misc]
    """A small transformer over words, averaged: (n, length) token ids, 0 is padding -> (n, d)."""

    def __init__(self, recipe: Recipe, words: int) -> None:
        super().__init__()
        width = recipe.text_width
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(0.02 * torch.randn(TEXT_LENGTH, width))
        self.blocks = nn.ModuleList(Block(width, width // 32) for _ in range(recipe.text_layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, recipe.dimension)

    def forward(self, tokens: Tensor) -> Tensor:
        present = (tokens != 0).float()
        mask = (present[:, None, None, :] - 1) * 1e4
        x = self.words(tokens) + self.places
        for block in self.blocks:
            x = block(x, mask)
        pooled = (self.norm(x) * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1)
        return F.normalize(self.head(pooled).float(), dim=-1)


class DualEncoder(nn.Module):  # type: ignore[misc]
    def __init__(self, recipe: Recipe, words: int) -> None:
        super().__init__()
        self.image = ImageTower(recipe)
        self.text = TextTower(recipe, words)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


# Loss


def info_nce(model: DualEncoder, pictures: Tensor, tokens: Tensor) -> Tensor:
    """Symmetric InfoNCE over a batch of pairs (Radford et al., ICML 2021, figure 3)."""
    scale = model.log_scale.clamp(max=math.log(100)).exp()
    logits = scale * model.image(pictures) @ model.text(tokens).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


# Training


def batch_of(pairs: Pairs, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The pairs of one step, a function of its number alone, so that a resumed run is the same run."""
    per_epoch = len(pairs.pictures) // recipe.batch
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng((recipe.seed, epoch)).permutation(len(pairs.pictures))
    rows = np.sort(order[position * recipe.batch : (position + 1) * recipe.batch])
    caption = np.random.default_rng((recipe.seed, 1, step)).integers(pairs.tokens.shape[1], size=len(rows))
    return torch.from_numpy(pairs.pictures[rows]), torch.from_numpy(pairs.tokens[rows, caption]).long()


def learning_rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    progress = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    recipe: Recipe, pairs: Pairs, held_out: Pairs, words: int, folder: Path
) -> tuple[DualEncoder, dict[str, Any]]:
    torch.manual_seed(recipe.seed)
    model = DualEncoder(recipe, words).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    step, log = resume(folder, model, optimizer)
    started, losses = time.perf_counter(), []
    while step < recipe.steps:
        losses.append(update(model, optimizer, recipe, pairs, step))
        step += 1
        if step % CHECKPOINT_STEPS == 0 or step == recipe.steps:
            log["seconds"] = round(log["seconds"] + time.perf_counter() - started, 1)
            loss = round(float(np.mean(losses)), 4)
            log["curve"].append({"step": step, "loss": loss, **recalls(*embed(model, held_out))})
            print(recipe.name, log["seconds"], "s", log["curve"][-1], file=sys.stderr, flush=True)
            checkpoint(folder, model, optimizer, step, log)
            started, losses = time.perf_counter(), []
    return model.eval(), log


def update(model: DualEncoder, optimizer: Any, recipe: Recipe, pairs: Pairs, step: int) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, step)
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(model, *batch_of(pairs, recipe, step))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.item())


def checkpoint(folder: Path, model: nn.Module, optimizer: Any, step: int, log: dict[str, Any]) -> None:
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = optimizer.state[parameter][key].contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "checkpoint.partial"
    save_file(tensors, partial, metadata={"step": str(step), "log": json.dumps(log)})
    partial.replace(folder / "checkpoint.safetensors")


def resume(folder: Path, model: nn.Module, optimizer: Any) -> tuple[int, dict[str, Any]]:
    from safetensors import safe_open

    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0, {"seconds": 0.0, "curve": []}
    with safe_open(path, "pt") as file:
        noted = file.metadata()
    tensors = load_file(path)
    model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
    for name, parameter in model.named_parameters():
        moments = {key: tensors[f"{key}.{name}"].clone() for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(float(noted["step"])), **moments}
    return int(noted["step"]), json.loads(noted["log"])


def embed(model: DualEncoder, pairs: Pairs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of the pictures and of their first captions."""
    model.eval()
    images, texts = [], []
    with torch.no_grad():
        for start in range(0, len(pairs.pictures), 256):
            images.append(model.image(torch.from_numpy(pairs.pictures[start : start + 256])))
            texts.append(model.text(torch.from_numpy(pairs.tokens[start : start + 256, 0]).long()))
    model.train()
    return torch.cat(images).numpy(), torch.cat(texts).numpy()


def recalls(images: NDArray[np.float32], texts: NDArray[np.float32]) -> dict[str, float]:
    scores, truth = texts @ images.T, np.arange(len(images))
    return {
        "text_to_image_r1": round(float((scores.argmax(1) == truth).mean()), 4),
        "image_to_text_r1": round(float((scores.argmax(0) == truth).mean()), 4),
    }


# Export


def export(model: DualEncoder, recipe: Recipe, vocabulary: dict[str, int], folder: Path) -> None:
    """Both towers as ONNX with half-precision weights, and what `OnnxEncoder` needs beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = torch.zeros(2, IMAGE_SIDE, IMAGE_SIDE, 3, dtype=torch.uint8)
    export_tower(model.image, pictures, "pictures", folder / "image.onnx")
    export_tower(model.text, torch.ones(2, TEXT_LENGTH, dtype=torch.int64), "tokens", folder / "text.onnx")
    space = Space(recipe.name, recipe.dimension, "cosine", normalized=True, revision="1")
    config = {
        "space": space.to_dict(),
        "image": {"file": "image.onnx", "side": IMAGE_SIDE},
        "text": {"file": "text.onnx", "vocabulary": "vocabulary.json", "length": TEXT_LENGTH},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary, indent=0) + "\n")


def export_tower(tower: nn.Module, example: Tensor, name: str, path: Path) -> None:
    program = torch.onnx.export(
        tower.to(memory_format=torch.contiguous_format),
        (example,),
        input_names=[name],
        output_names=["vectors"],
        dynamic_shapes=({0: torch.export.Dim("items", min=1, max=65536)},),
        dynamo=True,
        verbose=False,
    )
    save_half(program.model_proto, path)


def save_half(model: Any, path: Path) -> None:
    """Store large weights in half precision, with a cast that the runtime folds away when it loads."""
    casts = []
    for tensor in model.graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.dtype == np.float32 and weights.size >= 256:
            casts.append(
                onnx.helper.make_node(
                    "Cast", [f"{tensor.name}.half"], [tensor.name], to=onnx.TensorProto.FLOAT
                )
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights.astype(np.float16), f"{tensor.name}.half"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    for node in model.graph.node:  # the exporter notes its own file paths here
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


# Measurement: the exported files on the gallery of the demo


def measure(folder: Path) -> dict[str, Any]:
    scenes = generate("gallery", GALLERY_SCENES)
    pictures = scenes_table(scenes)["image"].to_pylist()
    started = time.perf_counter()
    images = OnnxEncoder.load(folder, "image").encode(pictures)
    texts = OnnxEncoder.load(folder, "text").encode([scene.captions[0] for scene in scenes])
    seconds = round(time.perf_counter() - started, 1)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return {"scenes": GALLERY_SCENES, **recalls(images, texts), "embedding_seconds": seconds, "bytes": sizes}


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="data and checkpoints")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="where the exported models go")
    parser.add_argument("--log", type=Path, default=Path(__file__).with_name("training.json"))
    options = parser.parse_args()
    vocabulary = vocabulary_of_training_captions()
    held_out = prepare(options.work, "validation", VALIDATION_SCENES, vocabulary, 0)
    report: dict[str, Any] = {"machine": machine(), "validation_scenes": VALIDATION_SCENES}
    for label, recipe in (("old", OLD), ("new", NEW)):
        pairs = prepare(options.work, "train", recipe.scenes, vocabulary, recipe.seed)
        model, log = train(recipe, pairs, held_out, len(vocabulary), options.work / label)
        export(model, recipe, vocabulary, options.assets / label)
        report[label] = {"recipe": asdict(recipe), **log, "exported": measure(options.assets / label)}
    options.log.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
