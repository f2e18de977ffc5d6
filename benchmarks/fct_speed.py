"""Train h (FCT) from cached vectors: samples per second, against bare matrix products and a plain loop.

    python benchmarks/fct_speed.py [--device auto] [--dimension 128] [--inner 2048] [--steps 12] [--repeats 5]

Three things alternate within one process, each over the same number of samples:

* products: only the matrix products that a step cannot do without, forward and backward (for the first layers
  no gradient of the inputs), into memory that is there already; no optimizer, no normalization, no loss;
* loop: Crossfade's training loop as `crossfade train fct` runs it, Adam steps, shuffling, logging and the
  frozen half included;
* plain: the same network the way one would write it down: DataLoader over a TensorDataset, Adam, loss.item().

The ratio loop / products says what everything but the products costs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from crossfade.adapters.forward_transformation import ForwardTransformation, layer_sizes
from crossfade.adapters.prepared import PreparedPairs
from crossfade.training.fct import FctLearner, cache, recipe_of, transformation_for
from crossfade.training.vector_loop import find_device, optimize
from crossfade.vectors import ArrayPairs, PairBatch

RESULTS = Path(__file__).parent / "results"
EPOCHS = 2


def generated(rows: int, dimension: int, seed: int) -> ArrayPairs:
    """Pairs with side-information; what they hold does not matter for the speed."""
    rng = np.random.default_rng(seed)
    x, side, y = (rng.standard_normal((rows, dimension), dtype=np.float32) for _ in range(3))
    return ArrayPairs(x, y, side=side)


class Products:
    """The matrix products of a step, on memory that is allocated once."""

    def __init__(self, options: argparse.Namespace, device: torch.device, kind: torch.dtype) -> None:
        sizes = layer_sizes(options.dimension, options.dimension, options.dimension, options.inner)
        self.layers = []
        for name, (inputs, outputs) in sizes.items():
            shapes = ((options.batch, inputs), (outputs, inputs), (options.batch, outputs))
            x, weight, gradient = (torch.randn(shape, device=device, dtype=kind) for shape in shapes)
            spare = [torch.empty_like(one) for one in (gradient, weight, x)]
            self.layers.append((x, weight, gradient, spare, name in ("old.0", "side.0")))

    def step(self) -> None:
        """Forward, then both gradients of every layer."""
        for x, weight, _, spare, _ in self.layers:
            torch.mm(x, weight.T, out=spare[0])
        for x, weight, gradient, spare, first in reversed(self.layers):
            torch.mm(gradient.T, x, out=spare[1])
            if not first:
                torch.mm(gradient, weight, out=spare[2])

    @property
    def operations(self) -> int:
        """Floating-point operations of a step."""
        return sum(
            2 * len(x) * weight.numel() * (2 if first else 3) for x, weight, _, _, first in self.layers
        )


def loop(adapter: ForwardTransformation, pairs: PreparedPairs) -> Callable[[], None]:
    """Crossfade's training of h from the start; reading the pairs is timed with it."""

    def run() -> None:
        cached = cache(adapter, pairs)
        learner = FctLearner(transformation_for(adapter, cached, pairs.dimensions))
        optimize(learner, cached, recipe_of(adapter))

    return run


def plain(adapter: ForwardTransformation, pairs: PreparedPairs, device: torch.device) -> Callable[[], None]:
    """A straightforward loop."""
    block = PairBatch.join(list(pairs.full_blocks()))
    data = torch.utils.data.TensorDataset(*(torch.from_numpy(one) for one in (block.x, block.side, block.y)))

    def run() -> None:
        network = transformation_for(adapter, cache(adapter, pairs), pairs.dimensions).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, weight_decay=3e-5)
        for _ in range(EPOCHS):
            total = 0.0
            for batch in torch.utils.data.DataLoader(data, batch_size=adapter.batch_rows, shuffle=True):
                x, side, y = (one.to(device) for one in batch)
                loss = torch.nn.functional.mse_loss(network(x, side), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item()

    return run


def timed(run: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, spent = time.perf_counter(), time.process_time()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - spent


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All three, alternating."""
    device = find_device(options.device)
    kind = torch.bfloat16 if options.bf16 else torch.float32
    rows = options.steps * options.batch
    adapter = ForwardTransformation(
        inner=options.inner,
        batch_rows=options.batch,
        epochs=EPOCHS,
        warm_up_epochs=1,
        bf16=options.bf16,
        device=options.device,
        seed=options.seed,
    )
    pairs = PreparedPairs(generated(rows, options.dimension, options.seed))
    products = Products(options, device, kind)

    def bare() -> None:
        for _ in range(EPOCHS * options.steps):
            products.step()

    runs = {"products": bare, "loop": loop(adapter, pairs), "plain": plain(adapter, pairs, device)}
    for run in runs.values():
        run()  # memory, threads and kernels are there from now on
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            seconds[name].append(timed(run, device))
    return report(options, device, products, seconds)


def report(
    options: argparse.Namespace,
    device: torch.device,
    products: Products,
    seconds: dict[str, list[tuple[float, float]]],
) -> dict[str, Any]:
    """Figures per sample; ratios are medians of the ratios within a repeat."""
    samples = EPOCHS * options.steps * options.batch
    clock = 0 if device.type == "cuda" else 1  # others at work on the machine cost wall time, not CPU time
    columns = {name: [pair[clock] for pair in pairs] for name, pairs in seconds.items()}
    wall = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in seconds.items()}
    flops = products.operations * EPOCHS * options.steps
    return {
        "command": f"python benchmarks/fct_speed.py --device {device.type} --dimension {options.dimension} "
        f"--inner {options.inner} --batch {options.batch} --steps {options.steps} --repeats {options.repeats}"
        + " --bf16"
        * options.bf16,
        "environment": {
            "processor": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "clock": ("wall", "CPU")[clock],
        "samples": samples,
        "samples per second": {name: round(samples / value) for name, value in wall.items()},
        "seconds": {name: [round(one, 3) for one in values] for name, values in columns.items()},
        "products GFLOP/s": round(flops / wall["products"] / 1e9, 1),
        "loop / products": ratio(columns["loop"], columns["products"]),
        "plain / products": ratio(columns["plain"], columns["products"]),
        "loop / plain": ratio(columns["loop"], columns["plain"]),
    }


def ratio(first: list[float], second: list[float]) -> dict[str, float]:
    """Median, lowest and highest over the repeats."""
    found = [a / b for a, b in zip(first, second, strict=True)]
    return {
        "median": round(statistics.median(found), 3),
        "low": round(min(found), 3),
        "high": round(max(found), 3),
    }


def processor() -> str:
    """The processor's name, where the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def table(reports: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "# Training h from cached vectors",
        "",
        "| processor | precision | samples/s | products | plain loop | loop / products | loop / plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in reports:
        speed, precision = one["samples per second"], "bf16" if "--bf16" in one["command"] else "float32"
        over, against = one["loop / products"], one["loop / plain"]
        lines.append(
            f"| {one['environment']['processor']}, {one['environment']['threads']} threads | {precision} "
            f"| {speed['loop']:,} | {speed['products']:,} | {speed['plain']:,} "
            f"| {over['median']:.2f} ({over['low']:.2f}–{over['high']:.2f}) "
            f"| {against['median']:.2f} ({against['low']:.2f}–{against['high']:.2f}) |"
        )
    notes = (
        "Samples per second are wall clock on a machine that others use; ratios are medians (and ranges)",
        "over repeats that alternate, of CPU seconds on a processor and of wall seconds on a GPU.",
        "`products` are the matrix products of forward and backward pass alone, without optimizer,",
        "normalization or loss.",
    )
    return "\n".join([*lines, "", *notes, "", *(f"`{one['command']}`  " for one in reports), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dimension", type=int, default=128, help="of old, side and new vectors")
    parser.add_argument("--inner", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=12, help="steps per epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for fct-speed.json and fct-speed.md"
    )
    options = parser.parse_args()
    reports = []
    for bf16 in (False, True)[: 1 + options.bf16]:
        options.bf16 = bf16
        reports.append(measure(options))
        print(json.dumps(reports[-1], indent=2))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fct-speed.json").write_text(json.dumps(reports, indent=2) + "\n")
    (options.out / "fct-speed.md").write_text(table(reports))


if __name__ == "__main__":
    main()
