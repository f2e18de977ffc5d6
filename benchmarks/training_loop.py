"""Time per epoch of `crossfade train` against a straightforward loop.

    python benchmarks/training_loop.py [--images 4096] [--repeats 5] [--seed 0] [--out benchmarks/results]

The straightforward loop has the pictures in memory, and no more than it needs: permutation, random
crop and flip, forward in bfloat16, cross-entropy, backward, SGD. Crossfade's reads pictures from a
memory-mapped file, checks every loss, logs, and writes a checkpoint at the end. Both train the same
small ResNet on the same generated pictures of 32 x 32; runs alternate, and an epoch of each comes
first, uncounted. Times are the processor's own, so that other programs disturb them less; the ratio is
the median over the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from crossfade.datasets.protocols import Part
from crossfade.encoders.network import EmbeddingNetwork
from crossfade.training import Recipe
from crossfade.training.augment import Augmentation
from crossfade.training.classification import ClassificationLearner
from crossfade.training.data import Batches
from crossfade.training.distributed import Workers
from crossfade.training.loop import train
from crossfade.training.order import Shuffled
from crossfade.training.recipe import ClassificationObjective

CLASSES = 50


def recipe(seed: int, epochs: int = 1) -> Recipe:
    """The small ResNet of recipes/tiny-imagenet-100 on pictures of 32 pixels."""
    values = Recipe.read(Path(__file__).parents[1] / "recipes" / "tiny-imagenet-100" / "old.yaml").to_dict()
    values["architecture"]["picture_size"] = 32
    values["schedule"] = {"epochs": epochs, "warm_up_epochs": 0}
    return Recipe.from_dict({**values, "seed": seed})


def crossfade_epoch(chosen: Recipe, folder: Path, part: Part) -> Callable[[], None]:
    """An epoch through Crossfade's loop."""
    array = np.load(folder / "pixels.npy", mmap_mode="r")
    workers = Workers("auto")
    objective = chosen.objective
    assert isinstance(objective, ClassificationObjective)

    def run() -> None:
        torch.manual_seed(chosen.seed)
        learner = ClassificationLearner(EmbeddingNetwork(chosen.architecture), CLASSES, objective)
        augmentation = Augmentation(chosen.augmentation, chosen.architecture)
        order = Shuffled(len(part), chosen.batch, chosen.seed)
        batches = Batches(
            array, part, order, augmentation, views=1, accumulate=1, seed=chosen.seed, workers=workers
        )
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        train(learner, batches, chosen, folder, workers, identity={})

    return run


def straightforward_epoch(chosen: Recipe, folder: Path, part: Part) -> Callable[[], None]:
    """An epoch of the loop that one would write first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = torch.from_numpy(np.load(folder / "pixels.npy")).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(part.codes).to(device)

    def run() -> None:
        torch.manual_seed(chosen.seed)
        network = EmbeddingNetwork(chosen.architecture).to(device, memory_format=torch.channels_last)
        network.reduced_precision = True
        classifier = nn.Linear(chosen.architecture.dimension, CLASSES).to(device)
        parameters = [*network.parameters(), *classifier.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
        for rows in torch.randperm(len(pictures)).split(chosen.batch)[: len(pictures) // chosen.batch]:
            views = random_views(pictures[rows])
            loss = F.cross_entropy(classifier(network(views)), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def random_views(pictures: torch.Tensor) -> torch.Tensor:
    """Random crops of 35 to 100 % of the area, mirrored at random."""
    count = len(pictures)
    extent = (0.35 + 0.65 * torch.rand(count, device=pictures.device)).sqrt()
    theta = torch.zeros(count, 2, 3, device=pictures.device)
    theta[:, 0, 0] = extent * torch.where(torch.rand(count, device=pictures.device) < 0.5, -1, 1)
    theta[:, 1, 1] = extent
    theta[:, :, 2] = (2 * torch.rand(count, 2, device=pictures.device) - 1) * (1 - extent)[:, None]
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures.float() / 255, grid, align_corners=False)


def measure(images: int, repeats: int, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    part = Part(np.arange(images), generator.integers(0, CLASSES, images), tuple(range(CLASSES)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "pixels.npy", generator.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8))
        makers = {"straightforward": straightforward_epoch, "crossfade": crossfade_epoch}
        epochs = {who: make(recipe(seed), folder, part) for who, make in makers.items()}
        seconds: dict[str, list[float]] = {who: [] for who in epochs}
        for repeat in range(repeats + 1):
            for who in list(epochs)[:: 1 if repeat % 2 else -1]:
                spent = timed(epochs[who])
                if repeat:
                    seconds[who].append(spent)
    ratios = [bare / ours for bare, ours in zip(*seconds.values(), strict=True)]
    return {"seconds": seconds, "ratios": ratios, "ratio": statistics.median(ratios)}


def timed(run: Callable[[], None]) -> float:
    """Seconds of the processor; on a GPU those of the clock."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def environment() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def table(report: dict[str, Any]) -> str:
    rates = {who: report["images"] / statistics.median(values) for who, values in report["seconds"].items()}
    low, high = min(report["ratios"]), max(report["ratios"])
    return "\n".join(
        [
            f"# An epoch of {report['images']:,} pictures of 32 × 32, small ResNet, bfloat16",
            "",
            f"`python benchmarks/training_loop.py --images {report['images']} --repeats {report['repeats']} "
            f"--seed {report['seed']}`",
            "",
            f"{report['environment']}",
            "",
            "| loop | pictures per second of processor time |",
            "|---|---|",
            f"| straightforward | {rates['straightforward']:,.0f} |",
            f"| crossfade train | {rates['crossfade']:,.0f} |",
            "",
            f"Straightforward time / Crossfade time: median {report['ratio']:.2f} ({low:.2f} to {high:.2f}); "
            "1.00 is the straightforward loop's speed, higher is better.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    measured = measure(options.images, options.repeats, options.seed)
    report = {
        "images": options.images,
        "repeats": options.repeats,
        "seed": options.seed,
        "environment": environment(),
        **measured,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "training-loop.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "training-loop.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
