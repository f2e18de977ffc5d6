"""Measure, on this disk and with this adapter or encoder, how fast an upgrade will go."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from crossfade.stores import Description, Produce, Store
from crossfade.stores.base import existing
from crossfade.upgrade.plans import Estimates, Plan
from crossfade.upgrade.strategies import Strategy

BATCHES = 4


def estimate(store: Store, plan: Plan, strategy: Strategy, produce: Produce | None) -> Estimates:
    """Rows, seconds and bytes of a plan; the speed is measured on a few batches."""
    free = store.free_bytes()
    if strategy.writes != "column":
        return Estimates(bytes_free=free)
    rows, found = plan.found.rows, plan.found
    needed = store.bytes_for(rows, plan.new.dimension) + _index_bytes(found, plan.new.dimension)
    speed = _measure(store, plan, produce) if produce is not None else 0.0
    return Estimates(rows, rows / speed if speed else 0.0, speed, needed, free)


def _index_bytes(found: Description, dimension: int) -> int:
    if found.index is None:
        return 0
    kind, parameters = found.index.type, found.index.parameters
    codes = parameters.get("num_sub_vectors", dimension) if "PQ" in kind else dimension
    codes = dimension * 4 if kind.endswith("FLAT") else codes
    return int(found.rows * (codes + 16 + 8 * parameters.get("m", 0)))


def _measure(store: Store, plan: Plan, produce: Produce) -> float:
    """Rows per second over a few batches; the first warms up and does not count."""
    folder = Path(tempfile.mkdtemp(prefix="crossfade-probe-", dir=existing(store.neighbourhood)))
    rows, started = 0, 0.0
    try:
        with (folder / "vectors").open("wb") as file:
            for number, batch in enumerate(store.scan(rows=plan.batch_rows, columns=plan.staging.reads)):
                file.write(produce(batch).vectors.tobytes())
                if number == 0:
                    started = time.perf_counter()
                    first = len(batch)
                else:
                    rows += len(batch)
                if number == BATCHES:
                    break
            file.flush()
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
        return rows / seconds if rows else _single(store, plan, produce, first)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _single(store: Store, plan: Plan, produce: Produce, rows: int) -> float:
    """A store of one batch: timed by doing it once more."""
    started = time.perf_counter()
    produce(next(iter(store.scan(rows=plan.batch_rows, columns=plan.staging.reads))))
    return rows / max(time.perf_counter() - started, 1e-6)
