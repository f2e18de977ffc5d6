"""Upgrade a LanceDB table of 1,000,000 x 512 vectors to 768 dimensions: speed of `apply`, split and memory.

    python benchmarks/apply.py --work DIR [--rows 1000000] [--repeats 3] [--seed 0] [--index]

`apply` (checks every vector, checksums and flushes every part, journals it) alternates with the table's
own best bulk path for a new column: `LanceDataset.add_columns` with a function that multiplies and does
nothing else, in batches of the same size. Vectors are compared by l2, so that neither side normalises
them; by cosine, `apply` also scales every vector before and after the map. Each run is a process of its
own, on a fresh copy of the table. The ratio is the median over the repeats of bulk time / apply time.

With --index the old vectors have an IVF index of 256 lists, which `apply` builds again on the new ones; its
time is stated apart and is not in the ratio.
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

D_OLD, D_NEW, ROWS_PER_BATCH, ROWS_PER_FRAGMENT, LISTS = 512, 768, 8192, 1 << 17, 256
RESULTS = Path(__file__).parent / "results"


def generate(folder: Path, rows: int, seed: int, index: bool) -> None:
    """A table of unit vectors of a Gaussian with integer ids, and an adapter fitted on a planted map."""
    import lance

    from crossfade.adapters import make_adapter
    from crossfade.spaces import Space

    generator = np.random.default_rng(seed)
    vector = pa.list_(pa.float32(), D_OLD)
    schema = pa.schema([("id", pa.int64()), ("vector", vector)])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, ROWS_PER_BATCH):
            stop = min(start + ROWS_PER_BATCH, rows)
            vectors = generator.standard_normal((stop - start, D_OLD), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=vector)
            yield pa.record_batch([pa.array(np.arange(start, stop)), column], schema=schema)

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    made = lance.write_dataset(reader, str(folder / "items.lance"), max_rows_per_file=ROWS_PER_FRAGMENT)
    if index:
        made.create_index("vector", "IVF_FLAT", metric="l2", num_partitions=LISTS)
    old, new = Space("generated-old", D_OLD, "l2"), Space("generated-new", D_NEW, "l2")
    x = generator.standard_normal((4096, D_OLD), dtype=np.float32)
    y = x @ generator.standard_normal((D_OLD, D_NEW), dtype=np.float32)
    make_adapter("ridge").fit(x, y, source=old, target=new).save_pretrained(folder / "adapter")


def bulk(folder: Path) -> dict[str, float]:
    """LanceDB's own way to fill a new column."""
    import lance

    from crossfade.adapters import load_adapter

    weights = next(a for a in load_adapter(folder / "adapter").arrays.values() if a.shape == (D_OLD, D_NEW))
    field = pa.list_(pa.float32(), D_NEW)

    @lance.batch_udf(output_schema=pa.schema([("vector__next", field)]))  # type: ignore[untyped-decorator]
    def multiply(batch: pa.RecordBatch) -> pa.RecordBatch:
        vectors = batch.column("vector").flatten().to_numpy().reshape(-1, D_OLD)
        values = pa.array((vectors @ weights).reshape(-1))
        return pa.record_batch([pa.FixedSizeListArray.from_arrays(values, type=field)], ["vector__next"])

    started = time.perf_counter()
    dataset = lance.dataset(str(folder / "items.lance"))
    dataset.add_columns(multiply, read_columns=["vector"], batch_size=ROWS_PER_BATCH)
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak_memory()}


def upgrade(folder: Path) -> dict[str, float]:
    """Plan, apply, verify, cut over, roll back; seconds of each, and apply's split."""
    from crossfade.spaces import Space
    from crossfade.upgrade import Upgrade, plan

    uri = f"lancedb://{folder}#items.vector"
    old = Space("generated-old", D_OLD, "l2")
    split = Split()
    made, planning = timed(lambda: plan(uri, strategy="gallery", adapter=folder / "adapter", old=old))
    running = Upgrade.create(made)
    seconds = {"plan": planning, "planned": made.estimates.seconds}
    forget_peak()
    with split:
        seconds["apply"] = timed(running.apply)[1]
    peak = peak_memory()
    seconds |= split.seconds
    seconds["verify"] = timed(running.verify)[1]
    seconds["cutover"] = timed(running.cutover)[1]
    seconds["rollback"] = timed(running.rollback)[1]
    return {
        **seconds,
        "seconds": seconds["apply"] - seconds["index"],
        "peak_bytes": peak,
        "peak_bytes_of_all_steps": peak_memory(),
    }


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and how long it took."""
    started = time.perf_counter()
    return call(), time.perf_counter() - started


class Split:
    """Times the pieces of `apply`; mapping and writing overlap with the rest."""

    def __init__(self) -> None:
        self.seconds = {"read": 0.0, "map": 0.0, "write": 0.0, "flush and checksum": 0.0, "index": 0.0}

    def __enter__(self) -> Split:
        from lance.file import LanceFileWriter

        from crossfade.stores import lance_index, lance_parts
        from crossfade.upgrade.building import Builder

        self._wrap(Builder, "_advance", "map")
        self._wrap(LanceFileWriter, "write_batch", "write")
        self._wrap(lance_parts, "bring_to_disk", "flush and checksum")
        self._wrap(lance_index, "build_index", "index")
        self._wrap_iterator(lance_parts.FragmentFile, "_windows", "read")
        return self

    def _wrap(self, owner: Any, name: str, label: str) -> None:
        honest = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made, seconds = timed(lambda: honest(*arguments, **options))
            self.seconds[label] += seconds
            return made

        setattr(owner, name, call)

    def _wrap_iterator(self, owner: Any, name: str, label: str) -> None:
        honest = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Iterator[Any]:
            items = honest(*arguments, **options)
            while True:
                item, seconds = timed(lambda: next(items, None))
                self.seconds[label] += seconds
                if item is None:
                    return
                yield item

        setattr(owner, name, call)

    def __exit__(self, *_: object) -> None:
        """The process ends after its run; nothing is put back."""


def forget_peak() -> None:
    """Let `peak_memory` count from now on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Largest resident set of this process so far, or since `forget_peak`, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not report VmHWM")


RUNS: dict[str, Callable[[Path], dict[str, float]]] = {"bulk": bulk, "crossfade": upgrade}


def child(who: str, folder: Path) -> None:
    """One measured run; prints JSON."""
    import lance  # noqa: F401 - importing is not what is measured

    import crossfade.upgrade.upgrade  # noqa: F401

    found: dict[str, float] = RUNS[who](folder)
    print(json.dumps(found))


def measure(who: str, source: Path, work: Path) -> dict[str, float]:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    command = [sys.executable, __file__, "--child", who, "--work", str(work)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(work)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{who:10} {found['seconds']:7.2f} s {found['peak_bytes'] / 1e6:6.0f} MB", file=sys.stderr)
    return found


def compare(source: Path, work: Path, repeats: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in RUNS}
    for repeat in range(repeats):
        for who in tuple(RUNS) if repeat % 2 == 0 else tuple(RUNS)[::-1]:
            runs[who].append(measure(who, source, work))
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(runs["bulk"], runs["crossfade"], strict=True)]
    steps = {name: statistics.median(run[name] for run in runs["crossfade"]) for name in runs["crossfade"][0]}
    return {"runs": runs, "ratios": ratios, "ratio": statistics.median(ratios), "steps": steps}


def table(report: dict[str, Any]) -> str:
    rows, found = report["rows"], report["results"]
    speed = {who: rows / statistics.median(r["seconds"] for r in runs) for who, runs in found["runs"].items()}
    peak = {who: max(r["peak_bytes"] for r in runs) / 1e6 for who, runs in found["runs"].items()}
    steps = {
        name: value for name, value in found["steps"].items() if name != "seconds" and "peak" not in name
    }
    later = max(run["peak_bytes_of_all_steps"] for run in found["runs"]["crossfade"]) / 1e6
    return "\n".join(
        [
            f"# Upgrading a LanceDB table of {rows:,} × {D_OLD} → {D_NEW}"
            + (", with an index" if report["index"] else ""),
            "",
            f"`python benchmarks/apply.py --rows {rows} --repeats {report['repeats']} "
            f"--seed {report['seed']}{' --index' if report['index'] else ''} --work DIR`",
            "",
            ", ".join(f"{name} {value}" for name, value in report["environment"].items()) + ".",
            "`load` is the number of processes that wanted to run, the benchmark's own included: on a busy",
            "machine the times are long and the ratios, of runs that alternate, are what counts.",
            "",
            "| | rows/s | peak memory |",
            "|---|---|---|",
            f"| `crossfade apply` | {speed['crossfade']:,.0f} | {peak['crossfade']:,.0f} MB |",
            f"| `LanceDataset.add_columns` | {speed['bulk']:,.0f} | {peak['bulk']:,.0f} MB |",
            "",
            f"Speed of `apply` as a share of `add_columns`, median over {report['repeats']} pairs of runs: "
            f"**{found['ratio']:.2f}** ({min(found['ratios']):.2f} to {max(found['ratios']):.2f}).",
            "",
            "| step | seconds (median) |",
            "|---|---|",
            *(f"| {name} | {value:.3f} |" for name, value in steps.items()),
            "",
            "`plan` reads the whole gallery once and checks every vector and id; `planned` is the time that",
            "it predicted for `apply`. `read`, `map`, `write`, `flush and checksum` and `index` are parts of",
            "`apply`; the first three overlap. Speed and share are without the index: `add_columns` builds",
            "none. `verify` reads every new vector and every file again and recomputes a",
            f"sample. The peak memory of verify, cutover and rollback was {later:,.0f} MB.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the generated table")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", action="store_true", help="with an IVF index on the old vectors")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for apply.json and apply.md")
    parser.add_argument("--child", metavar="WHO", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.work)
        return
    source = options.work / "template"
    source.mkdir(parents=True)
    generate(source, options.rows, options.seed, options.index)
    try:
        results = compare(source, options.work / "work", options.repeats)
    finally:
        shutil.rmtree(source)
    versions = {"Python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    environment = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
    }
    report = {
        "rows": options.rows,
        "repeats": options.repeats,
        "seed": options.seed,
        "index": options.index,
        "environment": {**environment, **versions},
        "results": results,
    }
    name = "apply-index" if options.index else "apply"
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / f"{name}.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
