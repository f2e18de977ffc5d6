"""Fit maps on 512 -> 768 pairs, in memory and streamed from Parquet: time and peak memory.

    python benchmarks/fit.py --work DIR [--rows 100000] [--streamed-rows 1000000] [--repeats 3] [--seed 0]

Each fit is a process of its own, so that its peak memory is its own. Before and after the fit, the same
process multiplies blocks of the same shapes with bare numpy (XᵀX and XᵀY, float32, as many rows as
there are pairs): the ratio says what checking, splitting, accumulating and solving add to the products
that the fit cannot do without.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crossfade.adapters import make_adapter
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, Pairs, ParquetVectorWriter, VectorBatch, align, open_vectors

D_OLD, D_NEW, BLOCK_ROWS = 512, 768, 8192
OLD, NEW = Space("generated-old", D_OLD), Space("generated-new", D_NEW)
RESULTS = Path(__file__).parent / "results"
METHODS = ("procrustes", "ridge")


def generated(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian X (rows, 512), and Y (rows, 768) that a random affine map and noise give."""
    rng = np.random.default_rng((seed, rows))
    weight = np.random.default_rng(seed).standard_normal((D_OLD, D_NEW), dtype=np.float32) / D_OLD**0.5
    X = rng.standard_normal((rows, D_OLD), dtype=np.float32)
    Y = rng.standard_normal((rows, D_NEW), dtype=np.float32)
    for start in range(0, rows, BLOCK_ROWS):  # in place: the data must not count twice
        Y[start : start + BLOCK_ROWS] += X[start : start + BLOCK_ROWS] @ weight
    return X, Y


def write(folder: Path, rows: int, seed: int) -> tuple[Path, Path]:
    """Two aligned Parquet files."""
    old, new = folder / f"old-{rows}.parquet", folder / f"new-{rows}.parquet"
    if old.exists() and new.exists():
        return old, new
    with ParquetVectorWriter(old, OLD) as olds, ParquetVectorWriter(new, NEW) as news:
        for start in range(0, rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows)
            X, Y = generated(stop - start, seed + start)
            ids = pa.array(np.arange(start, stop))
            olds.write(VectorBatch(ids, X))
            news.write(VectorBatch(ids, Y))
    return old, new


def bare_products(rows: int, seed: int) -> float:
    """Seconds for XᵀX and XᵀY of `rows` rows, block by block, and nothing else."""
    X, Y = generated(BLOCK_ROWS, seed)
    started = time.perf_counter()
    for start in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - start)
        x, y = X[:count], Y[:count]
        x.T @ x
        x.T @ y
    return time.perf_counter() - started


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not report VmHWM")


def open_case(case: str, rows: int, folder: Path, seed: int) -> Pairs:
    """The pairs of a case: in memory, or streamed."""
    if case == "in memory":
        return ArrayPairs(*generated(rows, seed), source=OLD, target=NEW)
    old, new = write(folder, rows, seed)
    return align(open_vectors(old), open_vectors(new))


def child(method: str, case: str, rows: int, folder: Path, seed: int) -> None:
    """One measured fit; prints JSON."""
    pairs = open_case(case, rows, folder, seed)
    before = bare_products(rows, seed)
    started, started_cpu = time.perf_counter(), time.process_time()
    adapter = make_adapter(method, seed=seed).fit_pairs(pairs)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    bare = (before + bare_products(rows, seed)) / 2
    result = {
        "method": method,
        "case": case,
        "rows": rows,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "bare_seconds": bare,
        "ratio": seconds / bare,
        "peak_bytes": peak_memory(),
        "relative_squared_error": adapter.held_out["relative squared error"],
    }
    print(json.dumps(result))


def measure(method: str, case: str, rows: int, folder: Path, seed: int) -> dict[str, Any]:
    """Run `child` as a process of its own."""
    command = [sys.executable, __file__, "--child", method, case, str(rows), "--work", str(folder)]
    done = subprocess.run([*command, "--seed", str(seed)], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def repeat(method: str, case: str, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a case some times (the long one once): medians of times and ratios, the largest peak."""
    times = options.repeats if rows == options.rows else 1
    runs = [measure(method, case, rows, options.work, options.seed) for _ in range(times)]
    timed = ("seconds", "cpu_seconds", "bare_seconds", "ratio")
    summary = {
        **runs[0],
        **{name: statistics.median(run[name] for run in runs) for name in timed},
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "all_seconds": [run["seconds"] for run in runs],
    }
    print(row(summary), file=sys.stderr)
    return summary


def row(one: dict[str, Any]) -> str:
    """One fit as a row of the Markdown table."""
    return (
        f"| {one['method']} | {one['case']} | {one['rows']:,} "
        f"| {one['seconds']:.1f} ({min(one['all_seconds']):.1f} to {max(one['all_seconds']):.1f}) "
        f"| {one['cpu_seconds']:.1f} | {one['bare_seconds']:.1f} | {one['ratio']:.2f} "
        f"| {one['peak_bytes'] / 1e6:,.0f} MB |"
    )


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    environment = ", ".join(f"{name} {value}" for name, value in report["environment"].items())
    lines = [
        f"# Fitting maps {D_OLD} → {D_NEW}",
        "",
        f"`{report['command']}`",
        "",
        f"{environment}. `load` is the number of processes that wanted to run, the benchmark's own included.",
        "",
        "| method | pairs | number | seconds | CPU seconds | bare products, s | fit / bare | peak memory |",
        "|---|---|---|---|---|---|---|---|",
        *map(row, report["results"]),
        "",
        f"In memory, the pairs themselves take {report['pairs_bytes'] / 1e6:,.0f} MB of the peak.",
        "Times are medians (and ranges) of repeats, peaks the largest. The bare products are XᵀX and XᵀY",
        "of as many rows, in float32, run in the same process before and after the fit; the streamed fits",
        "also read their Parquet files, which the products do not.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the generated vectors")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--streamed-rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for fit.json and fit.md")
    parser.add_argument("--child", nargs=3, metavar=("METHOD", "CASE", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        method, case, rows = options.child
        child(method, case, int(rows), options.work, options.seed)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    sizes = (options.rows, options.streamed_rows)
    for rows in sizes:
        write(options.work, rows, options.seed)  # before any child runs, so that no peak holds it
    cases = [("in memory", options.rows), *(("streamed", rows) for rows in sizes)]
    results = [repeat(method, case, rows, options) for method in options.methods for case, rows in cases]
    publish(options, results)


def publish(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Write fit.json and fit.md."""
    versions = {"Python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    cores = len(os.sched_getaffinity(0))
    report = {
        "command": f"python benchmarks/fit.py --rows {options.rows} --streamed-rows {options.streamed_rows} "
        f"--repeats {options.repeats} --methods {' '.join(options.methods)} --seed {options.seed} --work DIR",
        "environment": {
            "machine": platform.machine(),
            "cores": cores,
            "load": round(os.getloadavg()[1], 1),
            **versions,
        },
        "pairs_bytes": 4 * options.rows * (D_OLD + D_NEW),
        "results": results,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fit.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "fit.md").write_text(table(report))


if __name__ == "__main__":
    main()
