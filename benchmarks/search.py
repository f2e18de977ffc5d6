"""Exact top-100 search against bare ``faiss.knn``: time in the same run, and memory.

    python benchmarks/search.py [--out benchmarks/results] [--gallery 200000] [--dimension 512] [--repeats 9]

Generated Gaussian vectors, seed 0. Repeats alternate between all contestants; a ratio is the median over
the repeats of (our time / time of ``faiss.knn`` in the same repeat), so that below 1 is faster. Cosine on a
gallery that is not normalised is compared with ``faiss.knn`` by inner product, which answers another question
(faiss would need a normalised copy first) but does the same arithmetic. Memory is how far the peak resident
size of a fresh process grows during one search, beside the gallery itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.evaluation import search
from crossfade.evaluation.search import Engine
from crossfade.spaces import Metric

SEED, K, BOUND = 0, 100, 1.10
QUERIES = (1, 10, 100, 1000)
METRICS: tuple[Metric, ...] = ("dot", "cosine", "l2")
CONTESTANTS: tuple[Engine | None, ...] = (None, "faiss", "numpy")
Matrix = np.ndarray[Any, np.dtype[np.float32]]


def generate(rows: int, dimension: int, seed: int) -> Matrix:
    """Gaussian vectors (rows, dimension) of unequal length."""
    return np.random.default_rng(seed).standard_normal((rows, dimension), dtype=np.float32)


def bare_faiss(queries: Matrix, gallery: Matrix, metric: Metric) -> None:
    import faiss

    faiss.knn(queries, gallery, K, metric=faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def contest(queries: Matrix, gallery: Matrix, metric: Metric, repeats: int) -> dict[str, float]:
    """Median seconds of ``faiss.knn`` and median ratios of ours to it."""
    runs: dict[str, Callable[[], object]] = {"faiss.knn": lambda: bare_faiss(queries, gallery, metric)}
    for engine in CONTESTANTS:
        runs[engine or "default"] = _searching(queries, gallery, metric, engine)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    bare = times.pop("faiss.knn")
    ratios = {
        name: statistics.median(own / base for own, base in zip(taken, bare, strict=True))
        for name, taken in times.items()
    }
    return {"seconds": statistics.median(bare), **ratios}


def _searching(
    queries: Matrix, gallery: Matrix, metric: Metric, engine: Engine | None
) -> Callable[[], object]:
    return lambda: search(queries, gallery, K, metric, engine=engine)


def agrees(queries: Matrix, gallery: Matrix) -> bool:
    """Whether both engines and ``faiss.knn`` find the same items, up to rounding."""
    found = [search(queries, gallery, K, "dot", engine=engine)[1] for engine in ("faiss", "numpy")]
    return bool(np.mean(found[0] == found[1]) > 0.999)


# --- memory -----------------------------------------------------------------------------------


def growth(name: str, metric: Metric, rows: int, dimension: int, n_queries: int) -> float:
    """MiB by which one search raises the peak of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grow, (name, metric, rows, dimension, n_queries))


def _grow(name: str, metric: Metric, rows: int, dimension: int, n_queries: int) -> float:
    gallery, queries = generate(rows, dimension, SEED), generate(n_queries, dimension, SEED + 1)
    run = _contestant(name)
    run(queries[:1], gallery[:1000], metric)  # libraries and their thread pools are loaded
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    run(queries, gallery, metric)
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _contestant(name: str) -> Callable[[Matrix, Matrix, Metric], object]:
    if name == "faiss.knn":
        return bare_faiss
    engine: Engine | None = None if name == "default" else "numpy" if name == "numpy" else "faiss"
    return lambda queries, gallery, metric: search(queries, gallery, K, metric, engine=engine)


# --- output -----------------------------------------------------------------------------------


def document(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    machine, found = report["machine"], "reached" if report["reached"] else "missed"
    parts = [
        "# Exact search",
        f"Made by `python benchmarks/search.py`, seed {SEED}: top-{K} of {report['gallery']:,} × "
        f"{report['dimension']}, {report['repeats']} alternating repeats, {machine['cores']} cores, other "
        f"work beside it (load {machine['load']:.1f}). Ratios are our time / `faiss.knn`'s in the same "
        "repeat (median; below 1 is faster). The gallery is not normalised: for cosine `faiss.knn` would "
        "need a normalised copy first, and is timed by inner product, without it.",
        _times(report["times"]),
        f"Growth of the peak memory in one search, beside the gallery of {report['gallery_mib']:.0f} MiB:",
        _memory(report["memory"]),
        f"Bound: `search` takes at most {BOUND:.2f} times as long as `faiss.knn` by dot and l2: {found}, "
        f"worst {report['worst']:.2f}. Both engines find what `faiss.knn` finds: {report['same_items']}.",
    ]
    return "\n\n".join(parts) + "\n"


def _times(rows: list[dict[str, Any]]) -> str:
    head = "| metric | queries | `faiss.knn`, s | `search` | its engine faiss | its engine numpy |"
    lines = [
        f"| {r['metric']} | {r['queries']:,} | {r['seconds']:.3f} | {r['default']:.2f} | {r['faiss']:.2f} "
        f"| {r['numpy']:.2f} |"
        for r in rows
    ]
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- |", *lines])


def _memory(rows: list[dict[str, Any]]) -> str:
    head = "| metric | queries | `faiss.knn` | `search` | its engine numpy |"
    lines = [
        f"| {r['metric']} | {r['queries']:,} | {r['faiss.knn']:.0f} MiB | {r['default']:.0f} MiB "
        f"| {r['numpy']:.0f} MiB |"
        for r in rows
    ]
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *lines])


def measure(rows: int, dimension: int, repeats: int) -> dict[str, Any]:
    """Everything that the report says."""
    gallery = generate(rows, dimension, SEED)
    times: list[dict[str, Any]] = []
    machine = {"cores": os.cpu_count(), "cpu": platform.machine(), "load": os.getloadavg()[0]}
    for metric in METRICS:
        for n_queries in QUERIES:
            queries = generate(n_queries, dimension, SEED + 1)
            figures = contest(queries, gallery, metric, repeats)
            times.append({"metric": metric, "queries": n_queries, **figures})
            print(times[-1], file=sys.stderr)
    same = agrees(generate(100, dimension, SEED + 1), gallery)
    gallery_mib = gallery.nbytes / 2**20
    del gallery
    memory = [
        {"metric": metric, "queries": n_queries, **_growths(metric, rows, dimension, n_queries)}
        for metric in METRICS
        for n_queries in (100, 1000)
    ]
    worst = max(float(row["default"]) for row in times if row["metric"] != "cosine")
    return {
        "seed": SEED,
        "k": K,
        "gallery": rows,
        "dimension": dimension,
        "repeats": repeats,
        "machine": machine,
        "same_items": same,
        "times": times,
        "gallery_mib": gallery_mib,
        "memory": memory,
        "worst": worst,
        "reached": worst <= BOUND,
    }


def _growths(metric: Metric, rows: int, dimension: int, n_queries: int) -> dict[str, float]:
    names = ("faiss.knn", "default", "numpy")
    return {name: growth(name, metric, rows, dimension, n_queries) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--gallery", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    report = measure(options.gallery, options.dimension, options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "search.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    text = document(report)
    (options.out / "search.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
