"""Training for compatibility on 100 classes of photographs: the models, then the vectors' methods.

    python benchmarks/compatibility.py --data DIR --work DIR [--stage old new side-info bct metric]

DIR of --data holds tiny-imagenet-100/train.parquet and validation.parquet. Every stage leaves its
result under --work and is skipped when that is there; a stage that was stopped goes on from its last
checkpoint. The models' stages write

    WORK/models/NAME                          the trained encoder
    WORK/vectors/NAME.{train,validation}.parquet   id, label, vector of every photograph
    WORK/stages/*.json                        seconds, processor seconds and machine per stage
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RECIPES = Path(__file__).parents[1] / "recipes" / "tiny-imagenet-100"
MODELS = ("old", "new", "side-info", "bct", "metric")
SPLITS = ("train", "validation")
Advance = Callable[[int, int], None]


Seconds = dict[str, float]


def train_stage(name: str, data: Path, work: Path, device: str) -> Seconds:
    """Train one model; returns the time of its epochs, those of earlier runs included."""
    from crossfade.training import Recipe, train_model

    recipe = Recipe.read(RECIPES / f"{name}.yaml")
    trained = train_model(
        recipe,
        data / "train.parquet",
        work / "models" / name,
        cache=work / "pixels",
        old=work / "models" / "old" if recipe.method == "bct" else None,
        device=device,
        progress=printing(f"train {name}"),
    )
    return {"seconds": trained.seconds, "processor_seconds": trained.processor_seconds}


def embed_stage(name: str, data: Path, work: Path, device: str) -> Seconds:
    """Embed both splits with one model; returns the time."""
    from crossfade.datasets.images import open_images
    from crossfade.encoders.trained import TrainedEncoder
    from crossfade.training import embed_images

    encoder = TrainedEncoder.load(work / "models" / name, device=None if device == "auto" else device)
    (work / "vectors").mkdir(exist_ok=True)
    wall, processor = time.perf_counter(), time.process_time()
    for split in SPLITS:
        images = open_images(data / f"{split}.parquet")
        embed_images(encoder, images, vectors_path(work, name, split), cache=work / "pixels", overwrite=True)
    return {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}


def vectors_path(work: Path, name: str, split: str) -> Path:
    """Where the vectors of a model are."""
    return work / "vectors" / f"{name}.{split}.parquet"


def run_model(name: str, data: Path, work: Path, device: str) -> None:
    """The two stages of a model, each once."""
    done = read_stages(work)
    for stage, run in ((f"train-{name}", train_stage), (f"embed-{name}", embed_stage)):
        if stage not in done:
            print(f"{time.strftime('%H:%M:%S')} {stage}", file=sys.stderr, flush=True)
            seconds = run(name, data, work, device)
            record_stage(work, stage, seconds, device)
    found = {metric: round(quick_cmc(work, name, metric), 4) for metric in ("l2", "cosine")}
    print(f"{name}/{name} CMC-1 {found}", file=sys.stderr, flush=True)


def quick_cmc(work: Path, name: str, metric: str) -> float:
    """CMC-1 of a model on itself, the query left out: a glance while the rest is still running."""
    import numpy as np

    from crossfade.vectors import open_vectors

    found = open_vectors(str(vectors_path(work, name, "validation"))).read(("label",))
    X, labels = found.matrix.astype(np.float64), found.columns["label"].to_numpy()
    if metric == "cosine":
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
    scores = 2 * X @ X.T - np.square(X).sum(1)
    np.fill_diagonal(scores, -np.inf)
    return float((labels[scores.argmax(1)] == labels).mean())


def machine(device: str) -> dict[str, Any]:
    """Where a stage ran."""
    import torch

    on_gpu = device != "cpu" and torch.cuda.is_available()
    return {
        "processor": torch.cuda.get_device_name() if on_gpu else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name, where the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read_stages(work: Path) -> dict[str, Any]:
    """Stages that are done, with seconds and machine."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((work / "stages").glob("*.json"))}


def record_stage(work: Path, stage: str, seconds: Seconds, device: str) -> None:
    """Note that a stage is done: one file each, so that stages may run side by side."""
    rounded = {clock: round(value, 1) for clock, value in seconds.items()}
    (work / "stages").mkdir(exist_ok=True)
    partial = work / "stages" / f"{stage}.partial"
    partial.write_text(json.dumps({**rounded, **machine(device)}, indent=2) + "\n")
    partial.replace(work / "stages" / f"{stage}.json")


def printing(label: str, every: float = 30.0) -> Advance:
    """Progress as a line now and then, for logs."""
    begun: list[float] = []
    state = {"printed": 0.0, "first": 0}

    def advance(done: int, total: int) -> None:
        now = time.perf_counter()
        if not begun:
            begun.append(now)
            state["first"] = done
        if now - state["printed"] > every or done == total:
            state["printed"] = now
            rate = (done - state["first"]) / max(now - begun[0], 1e-9)
            print(f"{label}: {done:,}/{total:,} images, {rate:,.0f}/s", file=sys.stderr, flush=True)

    return advance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CROSSFADE_DATA"), help="the data folder")
    parser.add_argument("--work", type=Path, default=Path("runs/compatibility"))
    parser.add_argument("--stage", nargs="+", choices=MODELS, default=MODELS, help="which models")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data DIR, or set CROSSFADE_DATA")
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.stage:
        run_model(name, Path(options.data) / "tiny-imagenet-100", options.work, options.device)


if __name__ == "__main__":
    main()
