"""Write the new vectors: part by part, resumable after every part."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from crossfade.stores import Part, PartGone, Produce, Produced, Receipt, Rows, Staged, Store
from crossfade.stores.files import FileStore
from crossfade.upgrade.checkpoints import Checkpoints
from crossfade.upgrade.journal import Journal
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.producing import Producer

Progress = Callable[[int, int], None]
ROUNDS = 5
NOTE_SECONDS = 1.0
"""How often a pass that counts only once it is whole says how far it is."""


@dataclass
class Builder:
    """Writes what is pending and records a receipt for each part.

    Attributes:
        produce: makes the vectors of a batch.
        embeds: whether that costs an encoder's time, so that batches are kept, too.
        lifts: whether they are made from the old vectors, so that these must be usable.
        progress: called with rows done and rows in all.
    """

    store: Store
    journal: Journal
    plan: Plan
    produce: Produce
    embeds: bool
    lifts: bool
    progress: Progress | None = None
    _done: int = 0
    _total: int = 0
    _producer: Producer = field(init=False)
    _make: Produce = field(init=False)
    _checkpoints: Checkpoints | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._producer = Producer(
            self.produce, self.plan.on_invalid, self.lifts, self.plan.new.dimension, self.plan.store
        )
        self._make = self._producer
        if self.embeds:
            folder = self.store.neighbourhood / self.plan.id / "batches"
            self._make = self._checkpoints = Checkpoints(self._producer, folder)

    @property
    def receipts(self) -> dict[str, Receipt]:
        """What is on disk."""
        return self.journal.receipts(self.plan.id)

    def build(self) -> None:
        """Write every part and make the vectors readable beside the old ones.

        Others may write faster than this catches up: what they add in the last round is left to the
        cutover.
        """
        if isinstance(self.store, FileStore) and self._file() is None:
            self.store.digest_parts(self.plan.staging)
        pending = self.store.pending(self.plan.staging, self.receipts)
        for _ in range(ROUNDS):
            self._count(pending)
            self.write(pending)
            pending = self.store.publish(self.plan.staging, self.receipts)
            if not pending:
                return

    def write(self, parts: list[Part]) -> None:
        """Write these parts, all of them before any is recorded where they go into one file at once."""
        once = self._file()
        if once is not None and parts:
            self._write_once(once, sum(part.rows for part in parts))
            return
        for part in parts:
            with suppress(PartGone):  # whoever asked for these parts asks again
                self._write_part(part)

    def _write_part(self, part: Part) -> None:
        self._producer.skipped.clear()
        if self._checkpoints:
            self._checkpoints.begin(part)
        receipt = self.store.write_part(part, self.plan.staging, self._advance, rows=self.plan.batch_rows)
        self.journal.record(self.plan.id, receipt, self._producer.skipped)
        if self._checkpoints:
            self._checkpoints.finish()

    def _file(self) -> FileStore | None:
        """The store, if it writes vectors that are cheap to make again once, and so faster."""
        return file_written_once(self.store, self.plan.staging, embeds=self.embeds, lifts=self.lifts)

    def _write_once(self, store: FileStore, wanted: int) -> None:
        skipped: dict[str, list[tuple[str, str]]] = {}
        noted, started, made_rows = 0.0, time.monotonic(), 0

        def begin(part: Part) -> None:
            self.journal.require_lease()
            self._producer.skipped = skipped[part.key] = []

        def make(rows: Rows) -> Produced:
            nonlocal noted, made_rows
            made, now = self._advance(rows), time.monotonic()
            made_rows += len(rows)
            if now - noted >= NOTE_SECONDS:
                noted = now
                self.journal.note_pass(self.plan.id, made_rows, wanted, now - started)
            return made

        rows = self.plan.batch_rows
        for receipt in store.write_once(self.plan.staging, self.receipts, make, begin, rows=rows):
            self.journal.record(self.plan.id, receipt, skipped[receipt.part])
        self.journal.end_pass(self.plan.id)

    def _advance(self, rows: Rows) -> Produced:
        made: Produced = self._make(rows)
        self._done += len(rows)
        if self.progress:
            self.progress(min(self._done, self._total), self._total)
        return made

    def _count(self, pending: list[Part]) -> None:
        self._total = self.store.rows_in_parts(self.plan.staging)
        self._done = self._total - sum(part.rows for part in pending)
        self.journal.set(self.plan.id, rows_total=self._total)
        if self.progress:
            self.progress(self._done, self._total)


@contextmanager
def cores_for_others() -> Iterator[None]:
    """Let BLAS have half of the cores, in the whole process, while reading and writing want the others.

    Its threads wait for work by spinning: with as many as there are cores they take from the rest more
    than they give.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(max(1, (os.cpu_count() or 1) // 2), user_api="blas"):
        yield


def file_written_once(store: Store, staged: Staged, *, embeds: bool, lifts: bool) -> FileStore | None:
    """The store, if it can write the vectors of a strategy into the new file while they are made.

    Args:
        embeds: whether they cost an encoder's time, so that each finished part is kept.
        lifts: whether they are made from the old vectors.
    """
    cheap = lifts and not embeds
    return store if cheap and isinstance(store, FileStore) and store.writes_once(staged) else None
