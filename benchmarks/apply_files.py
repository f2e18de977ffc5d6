"""Upgrade files of 1,000,000 x 512 vectors to 768 dimensions: speed of `apply` against a bare loop.

    python benchmarks/apply_files.py --work DIR [--kinds parquet faiss] [--rows 1000000] [--repeats 3]

`apply` (checks every vector, checksums and flushes every part, journals it, writes the new file beside the
old one) alternates with the shortest program that does the same to the file: read it in batches of the
same size, multiply, write the new file, flush it to disk. Such a loop keeps nothing when it is killed.
For a FAISS index (flat) the loop is `reconstruct_n`, multiply, `add`, `write_index`. Vectors are compared by
l2, so that neither side normalises them. Each run is a process of its own on the same file; results are
deleted in between. The ratio is the median over the repeats of the loop's time / apply's time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))

from apply import D_NEW, D_OLD, ROWS_PER_BATCH, forget_peak, peak_memory, timed

RESULTS = Path(__file__).parent / "results"
ROWS_PER_GROUP = 1 << 15
FILES = {"parquet": "items.parquet", "faiss": "items.faiss"}
BARE = {
    "parquet": "read with `iter_batches`, multiply, `ParquetWriter`, flush",
    "faiss": "`reconstruct_n`, multiply, `add`, `write_index`, flush",
}


def generate(kind: str, folder: Path, rows: int, seed: int) -> None:
    """A file of unit vectors of a Gaussian with integer ids, and an adapter fitted on a planted map."""
    from crossfade.adapters import make_adapter
    from crossfade.spaces import Space

    generator = np.random.default_rng(seed)

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, rows, ROWS_PER_GROUP):
            vectors = generator.standard_normal((min(ROWS_PER_GROUP, rows - start), D_OLD), dtype=np.float32)
            yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    {"parquet": write_parquet, "faiss": write_faiss}[kind](folder, batches())
    old, new = Space("generated-old", D_OLD, "l2"), Space("generated-new", D_NEW, "l2")
    x = generator.standard_normal((4096, D_OLD), dtype=np.float32)
    y = x @ generator.standard_normal((D_OLD, D_NEW), dtype=np.float32)
    make_adapter("ridge").fit(x, y, source=old, target=new).save_pretrained(folder / "adapter")


def writer(path: Path, dimension: int) -> pq.ParquetWriter:
    """Vectors neither compressed nor in a dictionary."""
    schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), dimension))])
    return pq.ParquetWriter(path, schema, compression="none", use_dictionary=False)


def record_batch(ids: pa.Array, vectors: np.ndarray) -> pa.RecordBatch:
    """Ids and vectors."""
    kind = pa.list_(pa.float32(), vectors.shape[1])
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)
    return pa.record_batch([ids, column], ["id", "vector"])


def write_parquet(folder: Path, batches: Iterator[np.ndarray]) -> None:
    start = 0
    with writer(folder / FILES["parquet"], D_OLD) as file:
        for vectors in batches:
            file.write_batch(record_batch(pa.array(np.arange(start, start + len(vectors))), vectors))
            start += len(vectors)


def write_faiss(folder: Path, batches: Iterator[np.ndarray]) -> None:
    import faiss

    index = faiss.IndexFlatL2(D_OLD)
    for vectors in batches:
        index.add(vectors)
    faiss.write_index(index, str(folder / FILES["faiss"]))


def flush(path: Path) -> None:
    """Bring a file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def weights(folder: Path) -> np.ndarray:
    """The adapter's matrix."""
    from crossfade.adapters import load_adapter

    arrays = load_adapter(folder / "adapter").arrays.values()
    return np.asarray(next(one for one in arrays if one.shape == (D_OLD, D_NEW)))


def bare_parquet(folder: Path) -> None:
    matrix, target = weights(folder), folder / "bare.parquet"
    source = pq.ParquetFile(folder / FILES["parquet"], pre_buffer=False, buffer_size=1 << 20)
    with writer(target, D_NEW) as file:
        for batch in source.iter_batches(ROWS_PER_BATCH):
            vectors = batch.column("vector").flatten().to_numpy().reshape(-1, D_OLD)
            file.write_batch(record_batch(batch.column("id"), vectors @ matrix))
    flush(target)


def bare_faiss(folder: Path) -> None:
    import faiss

    matrix, target = weights(folder), folder / "bare.faiss"
    old, new = faiss.read_index(str(folder / FILES["faiss"])), faiss.IndexFlatL2(D_NEW)
    for start in range(0, old.ntotal, ROWS_PER_BATCH):
        new.add(old.reconstruct_n(start, min(ROWS_PER_BATCH, old.ntotal - start)) @ matrix)
    faiss.write_index(new, str(target))
    flush(target)


def bare(kind: str, folder: Path) -> dict[str, float]:
    """The shortest program."""
    run = {"parquet": bare_parquet, "faiss": bare_faiss}[kind]
    seconds = timed(lambda: run(folder))[1]
    next(folder.glob("bare.*")).unlink()
    return {"seconds": seconds, "peak_bytes": peak_memory()}


def upgrade(kind: str, folder: Path) -> dict[str, float]:
    """Plan, apply, verify, cut over, roll back; seconds of each."""
    from crossfade.spaces import Space
    from crossfade.upgrade import Upgrade, plan

    uri = f"{kind}://{folder / FILES[kind]}#vector"
    old = Space("generated-old", D_OLD, "l2")
    made, planning = timed(lambda: plan(uri, strategy="gallery", adapter=folder / "adapter", old=old))
    running = Upgrade.create(made)
    seconds = {"plan": planning}
    forget_peak()
    processor = time.process_time()
    seconds["apply"] = timed(running.apply)[1]
    seconds["apply, processor seconds"] = time.process_time() - processor
    peak = peak_memory()
    for step in ("verify", "cutover", "rollback"):
        seconds[step] = timed(getattr(running, step))[1]
    shutil.rmtree(folder / ".crossfade")
    return {**seconds, "seconds": seconds["apply"], "peak_bytes": peak}


RUNS: dict[str, Callable[[str, Path], dict[str, float]]] = {"bare": bare, "crossfade": upgrade}


def measure(who: str, kind: str, folder: Path) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, __file__, "--child", who, "--kinds", kind, "--work", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind} {who:10} {found['seconds']:7.2f} s {found['peak_bytes'] / 1e6:6.0f} MB", file=sys.stderr)
    return found


def compare(kind: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Both in turn."""
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in RUNS}
    for repeat in range(repeats):
        for who in tuple(RUNS) if repeat % 2 == 0 else tuple(RUNS)[::-1]:
            runs[who].append(measure(who, kind, folder))
    ratios = [one["seconds"] / mine["seconds"] for one, mine in zip(*runs.values(), strict=True)]
    steps = {name: statistics.median(run[name] for run in runs["crossfade"]) for name in runs["crossfade"][0]}
    return {"runs": runs, "ratios": ratios, "steps": steps}


def table(report: dict[str, Any]) -> str:
    rows = report["rows"]
    lines = [
        f"# Upgrading files of {rows:,} × {D_OLD} → {D_NEW}",
        "",
        f"`python benchmarks/apply_files.py --kinds {' '.join(report['results'])} --rows {rows} "
        f"--repeats {report['repeats']} --seed {report['seed']} --work DIR`",
        "",
        ", ".join(f"{name} {value}" for name, value in report["environment"].items()) + ".",
        "`load` is the number of processes that wanted to run, the benchmark's own included.",
    ]
    for kind, found in report["results"].items():
        ratios = found["ratios"]
        share = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        lines += ["", f"## {kind}", "", "| | rows/s | peak memory |", "|---|---|---|"]
        for who, title in (("crossfade", "`crossfade apply`"), ("bare", BARE[kind])):
            runs = found["runs"][who]
            speed = rows / statistics.median(run["seconds"] for run in runs)
            lines.append(
                f"| {title} | {speed:,.0f} | {max(run['peak_bytes'] for run in runs) / 1e6:,.0f} MB |"
            )
        lines += [
            "",
            f"Speed of `apply` as a share of the loop's, median of {report['repeats']}: {share}.",
            "",
        ]
        lines += ["| step | seconds (median) |", "|---|---|"]
        steps = {
            name: value for name, value in found["steps"].items() if name not in ("seconds", "peak_bytes")
        }
        lines += [f"| {name} | {value:.3f} |" for name, value in steps.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the generated files")
    parser.add_argument("--kinds", nargs="+", choices=tuple(FILES), default=list(FILES))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for apply-files.json and .md")
    parser.add_argument("--child", metavar="WHO", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(RUNS[options.child](options.kinds[0], options.work)))
        return
    results = {}
    for kind in options.kinds:
        folder = options.work / kind
        folder.mkdir(parents=True)
        generate(kind, folder, options.rows, options.seed)
        try:
            results[kind] = compare(kind, folder, options.repeats)
        finally:
            shutil.rmtree(folder)
    versions = {"Python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)}
    report = {
        "rows": options.rows,
        "repeats": options.repeats,
        "seed": options.seed,
        "environment": {**machine, **versions},
        "results": results,
    }
    (options.out / "apply-files.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "apply-files.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
