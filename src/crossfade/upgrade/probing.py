"""Measure, with this store and this adapter or encoder, how fast an upgrade will go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from crossfade.stores import Description, Produce, Store
from crossfade.upgrade.building import file_written_once
from crossfade.upgrade.plans import Estimates, Plan
from crossfade.upgrade.strategies import Strategy
from crossfade.vectors import FloatMatrix

BATCHES = 4


def estimate(store: Store, plan: Plan, strategy: Strategy, produce: Produce | None) -> Estimates:
    """Rows, seconds and bytes of a plan; the speed is measured on a few batches."""
    free = store.free_bytes()
    if strategy.writes != "column":
        return Estimates(bytes_free=free)
    rows, found = plan.found.rows, plan.found
    needed = _vector_bytes(store, plan, strategy) + _index_bytes(found, plan.new.dimension)
    speed = _measure(store, plan, produce) if produce is not None else 0.0
    pause = store.pause(plan.staging, speed) if speed else None
    return Estimates(rows, rows / speed if speed else 0.0, speed, needed, free, str(pause or ""))


def _vector_bytes(store: Store, plan: Plan, strategy: Strategy) -> int:
    file = file_written_once(store, plan.staging, embeds=strategy.embeds, lifts=strategy.lifts)
    rows, dimension = plan.found.rows, plan.new.dimension
    return file.bytes_for(rows, dimension, once=True) if file else store.bytes_for(rows, dimension)


def _index_bytes(found: Description, dimension: int) -> int:
    if found.index is None:
        return 0
    kind, parameters = found.index.type, found.index.parameters
    codes = parameters.get("num_sub_vectors", dimension) if "PQ" in kind else dimension
    codes = dimension * 4 if kind.endswith("FLAT") else codes
    return int(found.rows * (codes + 16 + 8 * parameters.get("m", 0)))


def _measure(store: Store, plan: Plan, produce: Produce) -> float:
    """Rows per second over a few batches; the first warms up and does not count."""
    counted = _Counted(store, plan, produce)
    store.rehearse(iter(counted), plan.staging)
    seconds = time.perf_counter() - counted.started
    return counted.rows / seconds if counted.rows else _single(store, plan, produce, counted.first)


class _Counted:
    """Makes the vectors of a few batches; counts from the moment that the first has been written."""

    def __init__(self, store: Store, plan: Plan, produce: Produce) -> None:
        self._store, self._plan, self._produce = store, plan, produce
        self.rows = self.first = 0
        self.started = time.perf_counter()

    def __iter__(self) -> Iterator[FloatMatrix]:
        rows = self._store.rehearsal_rows or self._plan.batch_rows
        batches = self._store.scan(rows=rows, columns=self._plan.staging.reads)
        for number, batch in enumerate(islice(batches, BATCHES + 1)):
            yield self._produce(batch).vectors
            if number == 0:
                self.first, self.started = len(batch), time.perf_counter()
            else:
                self.rows += len(batch)


def _single(store: Store, plan: Plan, produce: Produce, rows: int) -> float:
    """A store of one batch: timed by doing it once more."""
    started = time.perf_counter()
    produce(next(iter(store.scan(rows=plan.batch_rows, columns=plan.staging.reads))))
    return rows / max(time.perf_counter() - started, 1e-6)
