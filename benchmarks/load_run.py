"""A whole upgrade beside writers that never stop, and what became of every row."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faults_galleries import D_OLD, OLD, adapter
from load_applications import Application, Switched

from crossfade.stores import Store, open_store
from crossfade.upgrade import Upgrade, plan

KINDS, SHARES = ("insert", "update", "delete"), (0.4, 0.45, 0.15)
WRITERS = 3
TOLERANCE = 1e-5
AFTERWARDS_SECONDS, PATIENCE_SECONDS = 0.5, 60
"""How long the writers go on after the cutover at least, and at most."""


def old_vector(one: int, version: int) -> np.ndarray:
    """(D_OLD,): what the old model makes of an item's version."""
    return np.random.default_rng((one, version)).standard_normal(D_OLD).astype(np.float32)


def old_vectors(ids: list[int], versions: list[int]) -> np.ndarray:
    """(n, D_OLD)."""
    return np.stack([old_vector(*one) for one in zip(ids, versions, strict=True)])


def own_vectors(ids: list[int], versions: list[int]) -> np.ndarray:
    """(n, D_NEW): what the new model makes of them, which no map could."""
    return -adapter().transform(old_vectors(ids, versions))


@dataclass
class Written:
    """What the application has written of a row last: its version, and whose vector."""

    version: int
    by_new_model: bool = False
    deleted: bool = False


class Writer:
    """Writes to rows of its own, so that nobody knows better what they should be.

    Args:
        ids: of its rows in the beginning.
        fresh: ids that it may give to further ones.
    """

    def __init__(
        self, application: Application, number: int, ids: list[int], fresh: int, seed: int, idle: float
    ) -> None:
        self._application, self._generator = application, np.random.default_rng((seed, number))
        self.rows = {one: Written(0) for one in ids}
        self._fresh, self._idle, self._new = fresh, idle, False
        self.counts: Counter[str] = Counter()
        self.waits: list[tuple[float, float]] = []
        self.error: BaseException | None = None
        self.pause, self.ended = threading.Event(), threading.Event()
        self._resting = threading.Lock()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self.ended.is_set():
                with self._resting:
                    self._write()
                time.sleep(self._generator.exponential(self._idle))
        except BaseException as error:
            self.error = error

    def rest(self) -> Callable[[], None]:
        """Stand still after the write under way; returns what ends that."""
        self._resting.acquire()
        return self._resting.release

    def _write(self) -> None:
        kind = str(self._generator.choice(KINDS, p=SHARES))
        ids = self._chosen(kind)
        versions = [self.rows[one].version + 1 if one in self.rows else 0 for one in ids]
        started = time.perf_counter()
        try:
            self._do(kind, ids, versions)
        except Switched:
            self._new = True
            return
        self.waits.append((started, time.perf_counter() - started))
        self.counts[kind] += len(ids)
        self.counts["by the new model"] += len(ids) if self._new and kind != "delete" else 0
        for one, version in zip(ids, versions, strict=True):
            self.rows[one] = Written(version, self._new, kind == "delete")

    def _chosen(self, kind: str) -> list[int]:
        """Rows that are there, or for an insert new ones, and some that were deleted before."""
        count = self._application.rows_at_once
        gone = [one for one, row in self.rows.items() if row.deleted]
        if kind != "insert":
            there = [one for one, row in self.rows.items() if not row.deleted]
            return sorted(self._generator.choice(there, min(count, len(there)), replace=False).tolist())
        again = gone[:count] if self._generator.random() < 0.2 else []
        self._fresh += count - len(again)
        return again + list(range(self._fresh - count + len(again), self._fresh))

    def _do(self, kind: str, ids: list[int], versions: list[int]) -> None:
        if kind == "delete":
            return self._application.delete(ids)
        made = own_vectors(ids, versions) if self._new else old_vectors(ids, versions)
        return getattr(self._application, kind)(ids, made)  # type: ignore[no-any-return]


class Poller:
    """Does something again and again, and notes how long each time took."""

    def __init__(self, work: Callable[[], object], idle: float) -> None:
        self._work, self._idle, self._ended = work, idle, threading.Event()
        self.waits: list[tuple[float, float]] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._idle):
                started = time.perf_counter()
                self._work()
                self.waits.append((started, time.perf_counter() - started))
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Poller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@dataclass
class Load:
    """What was measured.

    Attributes:
        rows: in the beginning.
        inserted, updated, deleted: by the application, during the upgrade.
        by_new_model: inserted or updated after the cutover, with vectors of the new model.
        checked: rows that should be there at the end.
        lost: of those, rows that are not there.
        undead: rows that were deleted and are there.
        stale: rows whose vector is not the map of their current old vector, or not what was written last.
        seconds: of each step.
        pause_ms: the longest write that the cutover held up, or how long writers had to stand still.
        write_ms, read_ms, status_ms: median and longest of the whole time.
        expected_pause: what was said of it before.
        late: parts that the cutover had to catch up with, in words.
    """

    store: str
    rows: int
    writers: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    by_new_model: int = 0
    checked: int = 0
    lost: int = 0
    undead: int = 0
    stale: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    pause_ms: float = 0.0
    expected_pause: str = ""
    write_ms: tuple[float, float] = (0.0, 0.0)
    read_ms: tuple[float, float] = (0.0, 0.0)
    status_ms: tuple[float, float] = (0.0, 0.0)
    late: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def run(
    application: Application, work: Path, rows: int, *, seed: int = 0, idle: float = 0.002, part_rows: int = 0
) -> Load:
    """Upgrade a gallery of so many rows beside writers and a reader.

    Args:
        idle: seconds that a writer rests between two writes, on average.
        part_rows: rows of a part, where the store lets that be chosen.

    Raises:
        RuntimeError: a writer or reader met an error that the upgrade must not cause.
    """
    ids = list(range(rows))
    application.create(ids, old_vectors(ids, [0] * rows))
    folder = work / f"{application.uri.partition(':')[0]}-adapter"
    adapter().save_pretrained(folder)
    writers = [
        Writer(application, one, ids[one::WRITERS], (one + 1) * 10_000_000, seed, idle)
        for one in range(WRITERS)
    ]
    for one in writers:
        one.thread.start()
    found = Load(application.name, rows, WRITERS)
    try:
        window = _upgraded(application, folder, found, writers, part_rows)
        _until_all_have_seen_it(writers)
    finally:
        for one in writers:
            one.ended.set()
        for one in writers:
            one.thread.join()
    _raise_first([one.error for one in writers])
    _count(found, writers, window, application.pauses)
    _compare(found, writers, application.rows())
    return found


def _until_all_have_seen_it(writers: list[Writer]) -> None:
    """Let each go on until it has written vectors of the new model."""
    time.sleep(AFTERWARDS_SECONDS)
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if all(one.error or one.counts["by the new model"] for one in writers):
            return
        time.sleep(0.05)


def _upgraded(
    application: Application, folder: Path, found: Load, writers: list[Writer], part_rows: int
) -> tuple[float, float]:
    """Plan, apply, verify, cut over; returns when the cutover began and ended."""
    made = plan(opened(application, part_rows), strategy="gallery", adapter=folder, old=OLD, changed_rows=1.0)
    upgrade = Upgrade.create(made, store=opened(application, part_rows))
    looking = Upgrade.open(opened(application, part_rows))
    with Poller(looking.status, 0.02) as status, Poller(lambda: application.read(1), 0.002) as reader:
        for step in (upgrade.apply, upgrade.verify):
            started = time.perf_counter()
            step()
            found.seconds[step.__name__] = round(time.perf_counter() - started, 3)
        found.expected_pause = str(upgrade.pause() or "")
        began = time.perf_counter()
        ends = [one.rest() for one in writers] if application.pauses else []
        resting = time.perf_counter()
        try:
            upgrade.cutover()
        finally:
            ended = time.perf_counter()
            for end in ends:
                end()
        found.seconds["cutover"] = round(ended - resting, 3)
    _raise_first([status.error, reader.error])
    found.read_ms, found.status_ms = _middle_and_most(reader.waits), _middle_and_most(status.waits)
    found.late = upgrade.status().history[-1].note
    return (resting if application.pauses else began), ended


def opened(application: Application, part_rows: int) -> Store:
    """The store as an operator opens it."""
    store = open_store(application.uri)
    if part_rows and hasattr(store, "part_rows"):
        store.part_rows = part_rows
    return store


def _raise_first(errors: list[BaseException | None]) -> None:
    for error in errors:
        if error is not None:
            raise RuntimeError(f"beside the upgrade: {type(error).__name__}: {error}") from error


def _middle_and_most(waits: list[tuple[float, float]]) -> tuple[float, float]:
    """Milliseconds."""
    took = [seconds * 1000 for _, seconds in waits] or [0.0]
    return round(statistics.median(took), 2), round(max(took), 2)


def _count(found: Load, writers: list[Writer], window: tuple[float, float], pauses: bool) -> None:
    counts = sum((one.counts for one in writers), Counter[str]())
    found.inserted, found.updated, found.deleted = counts["insert"], counts["update"], counts["delete"]
    found.by_new_model = counts["by the new model"]
    waits = [wait for one in writers for wait in one.waits]
    found.write_ms = _middle_and_most(waits)
    beside = [wait for wait in waits if wait[0] < window[1] and sum(wait) > window[0]]
    held_up = (window[1] - window[0]) * 1000 if pauses else _middle_and_most(beside)[1]
    found.pause_ms = round(held_up, 1)


def _compare(found: Load, writers: list[Writer], live: dict[int, np.ndarray | None]) -> None:
    """Every row that the application knows of, with what is in the store."""
    known = {one: row for writer in writers for one, row in writer.rows.items()}
    there = [one for one, row in known.items() if not row.deleted]
    found.checked = len(there)
    found.lost = sum(one not in live for one in there)
    found.undead = sum(one not in known or known[one].deleted for one in live)
    ids = [one for one in there if one in live]
    for start in range(0, len(ids), 4096):
        found.stale += _stale(ids[start : start + 4096], known, live)


def _stale(ids: list[int], known: dict[int, Written], live: dict[int, np.ndarray | None]) -> int:
    mapped = adapter().transform(old_vectors(ids, [known[one].version for one in ids]))
    wrong = 0
    for one, vector in zip(ids, mapped, strict=True):
        expected, now = -vector if known[one].by_new_model else vector, live[one]
        wrong += now is None or now.shape != expected.shape or bool(np.abs(now - expected).max() > TOLERANCE)
    return wrong
