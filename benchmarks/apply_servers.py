"""Upgrade collections of Chroma and Milvus from 512 to 768 dimensions: speed of `apply` against bulk writing.

    python benchmarks/apply_servers.py --work DIR [--kinds chroma milvus] [--rows 20000] [--repeats 3]

Servers of the machine's own (`chroma run`; Milvus Lite) hold a collection of unit vectors of a Gaussian, each
with a title. Two things alternate, in one process, each in a fresh collection:

* ``bulk``: ready new vectors, and the titles, into a new collection in the largest batches that the server
  takes; nothing is read, mapped or checked.
* ``crossfade``: `apply`, which reads the old vectors and everything beside them, maps, checks and digests,
  writes the same new collection, and in the end reads the old one again to find what has changed meanwhile.

``read`` is the old collection read once, whole, by the client alone. Milvus Lite is one Python process, in
which both readings and the writing take turns, so there the share is bounded by what reading costs.

Vectors are compared by l2. Qdrant is left out: its client's local mode is no server, and none is at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from apply import D_NEW, D_OLD, timed

from crossfade.extras import load

RESULTS = Path(__file__).parent / "results"
BULK = {"chroma": 5000, "milvus": 8192}
"""Rows of a batch: what Chroma takes at most is 5,461; Milvus's messages hold 64 MiB."""


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server, until the block ends."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait(30)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Chroma:
    """Collections on `chroma run`."""

    def __init__(self, port: int) -> None:
        chromadb = load("chromadb", "chroma-local")
        settings = chromadb.Settings(anonymized_telemetry=False)
        self.client = chromadb.HttpClient("127.0.0.1", port, settings=settings)
        self.address = f"chroma://127.0.0.1:{port}#items"

    @staticmethod
    def command(folder: Path, port: int) -> list[str]:
        program = str(Path(sys.executable).parent / "chroma")
        return [program, "run", "--path", str(folder / "chroma"), "--host", "127.0.0.1", "--port", str(port)]

    def create(self, name: str, dimension: int) -> Any:
        settings = {"hnsw": {"space": "l2"}}
        return self.client.create_collection(name, configuration=settings, embedding_function=None)

    def fill(self, collection: Any, vectors: np.ndarray, batch: int) -> None:
        for start in range(0, len(vectors), batch):
            piece = vectors[start : start + batch]
            ids = [str(start + row) for row in range(len(piece))]
            collection.add(ids, piece, [{"title": f"item {one}"} for one in ids])

    def read(self, collection: Any, rows: int) -> None:
        for start in range(0, rows, BULK["chroma"]):
            collection.get(
                limit=BULK["chroma"], offset=start, include=["embeddings", "metadatas", "documents", "uris"]
            )

    def drop(self) -> None:
        for one in self.client.list_collections():
            self.client.delete_collection(one.name)

    def alias(self) -> None:
        """There are none."""


class Milvus:
    """Collections on a server of Milvus Lite."""

    def __init__(self, port: int) -> None:
        self.client = load("pymilvus", "milvus-lite").MilvusClient(f"http://127.0.0.1:{port}", timeout=120)
        self.address = f"milvus://127.0.0.1:{port}#items.vector"

    @staticmethod
    def command(folder: Path, port: int) -> list[str]:
        program = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "milvus")]
        return [*program, "--host", "127.0.0.1", "--port", str(port)]

    def create(self, name: str, dimension: int) -> str:
        kinds = load("pymilvus", "milvus-lite").DataType
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field("title", kinds.VARCHAR, max_length=200)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dimension)
        name = f"{name}_v1"
        self.client.create_collection(name, schema=schema, consistency_level="Strong")
        wanted = self.client.prepare_index_params()
        wanted.add_index("vector", index_type="FLAT", metric_type="L2")
        self.client.create_index(name, wanted, sync=False)
        self.client.load_collection(name)
        return name

    def fill(self, collection: str, vectors: np.ndarray, batch: int) -> None:
        for start in range(0, len(vectors), batch):
            piece = enumerate(vectors[start : start + batch], start=start)
            self.client.insert(
                collection, [{"id": row, "title": f"item {row}", "vector": one} for row, one in piece]
            )

    def read(self, collection: str, rows: int) -> None:
        for start in range(0, rows, BULK["milvus"]):
            ids = list(range(start, min(start + BULK["milvus"], rows)))
            self.client.query(collection, filter=f"id in {ids}", output_fields=["*"])

    def alias(self) -> None:
        """As readers know it."""
        self.client.create_alias("items_v1", "items")

    def drop(self) -> None:
        for name in self.client.list_collections():
            for alias in self.client.list_aliases(name)["aliases"]:
                self.client.drop_alias(alias)
            self.client.drop_collection(name)


KINDS: dict[str, Any] = {"chroma": Chroma, "milvus": Milvus}


def bulk(kind: str, engine: Any, old: np.ndarray, new: np.ndarray, folder: Path) -> dict[str, float]:
    """Ready vectors into a new collection."""
    collection = engine.create("ready", D_NEW)
    seconds = timed(lambda: engine.fill(collection, new, BULK[kind]))[1]
    engine.drop()
    return {"seconds": seconds}


def upgrade(kind: str, engine: Any, old: np.ndarray, new: np.ndarray, folder: Path) -> dict[str, float]:
    """A whole upgrade; seconds of each step."""
    from crossfade.spaces import Space
    from crossfade.upgrade import Upgrade, plan

    collection = engine.create("items", D_OLD)
    engine.fill(collection, old, BULK[kind])
    engine.alias()
    reading = timed(lambda: engine.read(collection, len(old)))[1]
    space = Space("generated-old", D_OLD, "l2")
    made, planning = timed(
        lambda: plan(engine.address, strategy="gallery", adapter=folder / "adapter", old=space)
    )
    running_upgrade = Upgrade.create(made)
    seconds = {"read": reading, "plan": planning, "planned": made.estimates.seconds}
    for step in ("apply", "verify", "cutover"):
        seconds[step] = timed(getattr(running_upgrade, step))[1]
    running_upgrade.retire(confirm=True)
    engine.drop()
    return {**seconds, "seconds": seconds["apply"]}


RUNS = {"bulk": bulk, "crossfade": upgrade}


def compare(kind: str, folder: Path, rows: int, repeats: int, seed: int) -> dict[str, Any]:
    """Both in turn on one server, and the ratios within each repeat."""
    from crossfade.adapters import make_adapter
    from crossfade.spaces import Space

    generator, port = np.random.default_rng(seed), free_port()
    old = generator.standard_normal((rows, D_OLD), dtype=np.float32)
    old /= np.linalg.norm(old, axis=1, keepdims=True)
    x = generator.standard_normal((4096, D_OLD), dtype=np.float32)
    y = x @ generator.standard_normal((D_OLD, D_NEW), dtype=np.float32)
    spaces = Space("generated-old", D_OLD, "l2"), Space("generated-new", D_NEW, "l2")
    adapter = make_adapter("ridge").fit(x, y, source=spaces[0], target=spaces[1])
    folder.mkdir(parents=True)
    adapter.save_pretrained(folder / "adapter")
    new = adapter.transform(old)
    os.environ["CROSSFADE_HOME"] = str(folder / "home")
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in RUNS}
    with running(KINDS[kind].command(folder, port), port):
        engine = KINDS[kind](port)
        for repeat in range(repeats):
            for who in tuple(RUNS) if repeat % 2 == 0 else tuple(RUNS)[::-1]:
                runs[who].append(RUNS[who](kind, engine, old, new, folder))
                print(f"{kind} {who:10} {runs[who][-1]['seconds']:7.2f} s", file=sys.stderr)
    ratios = [one["seconds"] / mine["seconds"] for one, mine in zip(*runs.values(), strict=True)]
    steps = {name: statistics.median(run[name] for run in runs["crossfade"]) for name in runs["crossfade"][0]}
    return {"runs": runs, "ratios": ratios, "steps": steps}


def table(report: dict[str, Any]) -> str:
    rows, columns = report["rows"], ("read", "plan", "planned", "verify", "cutover")
    lines = [
        f"# Upgrading collections of {rows:,} × {D_OLD} → {D_NEW}",
        "",
        f"`python benchmarks/apply_servers.py --kinds {' '.join(report['results'])} --rows {rows} "
        f"--repeats {report['repeats']} --seed {report['seed']} --work DIR`",
        "",
        ", ".join(f"{name} {value}" for name, value in report["environment"].items()) + ".",
        "`load` is the number of processes that wanted to run, the benchmark's own included.",
        "",
        f"| | `apply`, rows/s | ready vectors in bulk, rows/s | share | {' | '.join(columns)} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, found in report["results"].items():
        speed = {
            who: rows / statistics.median(run["seconds"] for run in runs)
            for who, runs in found["runs"].items()
        }
        ratios = found["ratios"]
        share = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        steps = [f"{found['steps'][one]:.2f} s" for one in columns]
        cells = [kind, f"{speed['crossfade']:,.0f}", f"{speed['bulk']:,.0f}", share, *steps]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the servers' data")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for apply-servers.json and .md")
    options = parser.parse_args()
    work = options.work.absolute()
    results = {
        kind: compare(kind, work / kind, options.rows, options.repeats, options.seed)
        for kind in options.kinds
    }
    versions = {name: version(name) for name in ("chromadb", "pymilvus")}
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)}
    report = {
        "rows": options.rows,
        "repeats": options.repeats,
        "seed": options.seed,
        "environment": {**machine, "Python": platform.python_version(), **versions},
        "results": results,
    }
    (options.out / "apply-servers.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "apply-servers.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
