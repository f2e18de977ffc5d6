"""Lift 1,000,000 x 512 vectors to 768 dimensions: speed against a bare loop, and peak memory.

    python benchmarks/lift.py --work DIR [--rows 1000000] [--repeats 5] [--seed 0]

Reads generated vectors from Parquet, maps them, and writes Parquet or Lance. Crossfade (a saved Procrustes
adapter between cosine spaces, so lengths are normalised; checks, ids, metadata, all-or-nothing output that
is on the disk when it returns) alternates with a bare read-multiply-write loop (the same matrix and batch
size, no normalising, no checks, no sync). Each run is a process of its own, so that its peak memory is its
own. The ratio is the median over the repeats of bare time / Crossfade time.
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

from crossfade.adapters import load_adapter
from crossfade.adapters.linear import LinearAdapter
from crossfade.spaces import Space

D_OLD, D_NEW, ROWS_PER_BATCH = 512, 768, 8192
OLD = Space("generated-old", D_OLD, normalized=True)
NEW = Space("generated-new", D_NEW, normalized=True)
RESULTS = Path(__file__).parent / "results"
Run = Callable[[Path, Path, LinearAdapter], None]


def generate(path: Path, rows: int, seed: int) -> None:
    """Unit vectors of a Gaussian, with integer ids."""
    from crossfade.vectors import ParquetVectorWriter, VectorBatch

    generator = np.random.default_rng(seed)
    with ParquetVectorWriter(path, OLD) as writer:
        for start in range(0, rows, ROWS_PER_BATCH):
            stop = min(start + ROWS_PER_BATCH, rows)
            vectors = generator.standard_normal((stop - start, D_OLD), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            writer.write(VectorBatch(pa.array(np.arange(start, stop)), vectors))


def fit(folder: Path, seed: int) -> None:
    """A Procrustes adapter between two cosine spaces, fitted on noise: only its speed is of interest."""
    from crossfade.adapters.registry import make_adapter

    generator = np.random.default_rng(seed + 1)
    X, Y = (generator.standard_normal((4096, d), dtype=np.float32) for d in (D_OLD, D_NEW))
    adapter = make_adapter("procrustes").fit(X, Y, source=OLD, target=NEW)
    adapter.save_pretrained(folder / "adapter")


def bare_batches(source: Path, adapter: LinearAdapter) -> Iterator[pa.RecordBatch]:
    weights = adapter.weight
    for batch in pq.ParquetFile(source, pre_buffer=False).iter_batches(ROWS_PER_BATCH):
        vectors = batch.column("vector").flatten().to_numpy().reshape(-1, D_OLD)
        values = pa.array((vectors @ weights).reshape(-1))
        lifted = pa.FixedSizeListArray.from_arrays(values, D_NEW)
        yield pa.record_batch([batch.column("id"), lifted], schema=BARE_SCHEMA)


BARE_SCHEMA = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), D_NEW))])


def bare_parquet(source: Path, out: Path, adapter: LinearAdapter) -> None:
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(out, BARE_SCHEMA, **options) as writer:
        for batch in bare_batches(source, adapter):
            writer.write_table(pa.Table.from_batches([batch]))


def bare_lance(source: Path, out: Path, adapter: LinearAdapter) -> None:
    import lance

    reader = pa.RecordBatchReader.from_batches(BARE_SCHEMA, bare_batches(source, adapter))
    lance.write_dataset(reader, str(out))


def crossfade_parquet(source: Path, out: Path, adapter: LinearAdapter) -> None:
    from crossfade.vectors import ParquetVectorWriter, lift, open_vectors

    lift(open_vectors(source), adapter.transform, NEW, ParquetVectorWriter(out, NEW))


def crossfade_lance(source: Path, out: Path, adapter: LinearAdapter) -> None:
    from crossfade.vectors import LanceLocation, LanceVectorWriter, lift, open_vectors

    location = LanceLocation(str(out.parent), out.stem, "vector")
    lift(open_vectors(source), adapter.transform, NEW, LanceVectorWriter(location, NEW))


RUNS: dict[str, dict[str, Run]] = {
    "parquet": {"bare": bare_parquet, "crossfade": crossfade_parquet},
    "lance": {"bare": bare_lance, "crossfade": crossfade_lance},
}


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not report VmHWM")


def child(kind: str, who: str, source: Path, out: Path) -> None:
    """One measured run; prints JSON."""
    adapter = load_adapter(source.parent / "adapter")
    assert isinstance(adapter, LinearAdapter)
    adapter.transform(np.ones((8, D_OLD), np.float32))
    if kind == "lance":
        import lance  # noqa: F401 - importing is not what is measured
    import crossfade.vectors  # noqa: F401

    started, started_cpu = time.perf_counter(), time.process_time()
    RUNS[kind][who](source, out, adapter)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak_memory()}))


def measure(kind: str, who: str, folder: Path) -> dict[str, Any]:
    out = folder / f"{who}.{kind}"
    command = [sys.executable, __file__, "--child", kind, who, "--work", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    result: dict[str, Any] = json.loads(done.stdout)
    peak = result["peak_bytes"] / 1e6
    times = f"{result['seconds']:7.2f} s {result['cpu_seconds']:7.2f} s of processor"
    print(f"{kind:8} {who:10} {times} {peak:6.0f} MB", file=sys.stderr)
    return result


def compare(kind: str, folder: Path, repeats: int, rows: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"bare": [], "crossfade": []}
    for repeat in range(repeats):
        for who in ("bare", "crossfade") if repeat % 2 == 0 else ("crossfade", "bare"):
            runs[who].append(measure(kind, who, folder))
    seconds = {who: [run["seconds"] for run in runs[who]] for who in runs}
    ratios = [bare / ours for bare, ours in zip(seconds["bare"], seconds["crossfade"], strict=True)]
    return {
        "output": kind,
        "seconds": seconds,
        "rows_per_second": {who: rows / statistics.median(values) for who, values in seconds.items()},
        "peak_bytes": {who: max(run["peak_bytes"] for run in runs[who]) for who in runs},
        "cpu_seconds": {who: statistics.median(run["cpu_seconds"] for run in runs[who]) for who in runs},
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def environment() -> dict[str, Any]:
    versions = {"Python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
        **versions,
    }


def table(report: dict[str, Any]) -> str:
    lines = [
        f"# Lifting {report['rows']:,} × {D_OLD} → {D_NEW} from Parquet",
        "",
        f"`python benchmarks/lift.py --rows {report['rows']} --repeats {report['repeats']} "
        f"--seed {report['seed']} --work DIR`",
        "",
        ", ".join(f"{name} {value}" for name, value in report["environment"].items()) + ".",
        "`load` is the number of processes that wanted to run, the benchmark's own included: on a busy",
        "machine the times are long and the ratios, of runs that alternate, are what counts.",
        "",
        "| output | Crossfade rows/s | bare loop rows/s | Crossfade / bare, median (min to max) | "
        "Crossfade CPU s | bare loop CPU s | Crossfade peak memory | bare loop peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in report["results"]:
        speed, peak, ratios = one["rows_per_second"], one["peak_bytes"], one["ratios"]
        cpu = one["cpu_seconds"]
        lines.append(
            f"| {one['output']} | {speed['crossfade']:,.0f} | {speed['bare']:,.0f} "
            f"| {one['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {cpu['crossfade']:.1f} | {cpu['bare']:.1f} "
            f"| {peak['crossfade'] / 1e6:,.0f} MB | {peak['bare'] / 1e6:,.0f} MB |"
        )
    lines += [
        "",
        "Crossfade applies a saved Procrustes adapter between cosine spaces: it checks every vector and",
        "id, gives every mapped vector unit length, and waits until its output is on the disk. The bare",
        "loop does none of it; it reads, multiplies by the same matrix and writes in turns. 1.00 is the",
        "speed of the bare loop; higher is faster.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the generated vectors")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for lift.json and lift.md")
    parser.add_argument("--child", nargs=2, metavar=("OUTPUT", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    source = options.work / "source.parquet"
    if options.child:
        kind, who = options.child
        child(kind, who, source, options.work / f"{who}.{kind}")
        return
    options.work.mkdir(parents=True, exist_ok=True)
    fit(options.work, options.seed)
    generate(source, options.rows, options.seed)
    try:
        results = [compare(kind, options.work, options.repeats, options.rows) for kind in RUNS]
    finally:
        source.unlink()
    report = {
        "rows": options.rows,
        "repeats": options.repeats,
        "seed": options.seed,
        "environment": environment(),
        "results": results,
    }
    (options.out / "lift.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "lift.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
