"""One upgrade, from its plan to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from crossfade.adapters import Adapter
from crossfade.encoders import Encoder, open_encoder
from crossfade.errors import Interrupted, UpgradeError, VerificationFailed
from crossfade.stores import Part, Produce, Receipt, Store, open_store
from crossfade.stores.records import Pause, Write
from crossfade.upgrade import checking
from crossfade.upgrade.building import Builder, Progress, cores_for_others
from crossfade.upgrade.journal import Entry, Journal
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.states import APPLY, CUTOVER, RETIRE, ROLLBACK, VERIFY, State, Step, require
from crossfade.upgrade.status import Status, read_status
from crossfade.upgrade.strategies import strategy
from crossfade.upgrade.verifying import Check, ColumnVerifier, Verification, samples_for, verify_untouched
from crossfade.upgrade.wording import size

RISK = 0.001
"""Share of wrong rows that `verify` rules out where recomputing a row costs next to nothing."""
EMBEDDED_SAMPLES = 200
_BUSY = (State.TRANSFORMING, State.BUILT, State.VERIFIED, State.CUT_OVER)


class Upgrade:
    """One upgrade of one column of vectors. Every step may be killed and called again.

    Make it with `create` or `open`.

    Attributes:
        plan: what it does.
        store: what it is done to.
    """

    def __init__(self, store: Store, journal: Journal, plan: Plan) -> None:
        self.store, self.plan = store, plan
        self._journal = journal
        self._strategy = strategy(plan.strategy)

    @classmethod
    def create(cls, plan: Plan | str | Path, *, store: str | Store | None = None) -> Upgrade:
        """Enter a plan into the journal of its store; the same plan again opens it.

        Args:
            plan: the plan, or its file.
            store: address with credentials, where the plan's alone does not open the store.

        Raises:
            UpgradeError: another upgrade of this column is under way.
            UnreadableFile: the file is no plan.
            StoreError: the store cannot be opened.
        """
        made = plan if isinstance(plan, Plan) else Plan.load(plan)
        opened = store if isinstance(store, Store) else open_store(store or made.store)
        journal = Journal(opened.journal, create=True)
        entries = journal.entries()
        if not any(entry.id == made.id for entry in entries):
            with journal.lease("create"):
                for entry in entries:
                    _make_room(journal, entry, made.store)
                journal.add(made.id, made.to_json())
        return cls(opened, journal, made)

    @classmethod
    def open(cls, store: str | Store) -> Upgrade:
        """The latest upgrade of the column at this address.

        Raises:
            StoreError: there is none.
        """
        opened = open_store(store) if isinstance(store, str) else store
        journal = Journal(opened.journal)
        entries = journal.entries()
        if not entries:
            raise UpgradeError(
                f"{opened.uri}: no upgrade was begun; run crossfade plan, then crossfade apply"
            )
        return cls(opened, journal, Plan.from_json(entries[0].plan, str(opened.journal)))

    # --- steps --------------------------------------------------------------------------------

    def status(self) -> Status:
        """Where it stands; can be asked at any time, also while another process is at work."""
        return read_status(self._journal, self.plan)

    def skipped(self) -> list[tuple[str, str]]:
        """Ids and reasons of the rows that were left without a new vector."""
        return self._journal.skipped(self.plan.id)

    def apply(self, progress: Progress | None = None, *, encoder: Encoder | None = None) -> Status:
        """Do what the plan says, up to vectors that are built and not yet in use.

        It resumes where it was interrupted; applying again what is built does no harm.

        Args:
            progress: called with rows done and rows in all.
            encoder: embeds raw items, for a backfill; the plan's own unless given.

        Raises:
            StoreChanged: the store or the adapter is not what the plan was made for.
            UpgradeLocked: another process is at work.
            OutOfSpace: the disk is full, or would be; what is written is kept.
            InvalidVectors: rows that cannot be given a new vector.
            Interrupted: Ctrl-C; what is written is kept.
        """
        if self._strategy.name == "keep":
            raise UpgradeError(f"upgrade {self.plan.id} keeps the old model; there is nothing to apply")
        with self._step(APPLY) as state:
            adapter = checking.open_adapter(self.plan)
            self._check_store(state)
            if state not in (State.BUILT, State.VERIFIED) or self._pending() or self._damaged():
                self._transform(state, self._maker(adapter, encoder), progress)
        return self.status()

    def verify(self, samples: int | None = None, *, encoder: Encoder | None = None) -> Verification:
        """Check what was written: counts, ids, checksums, recomputed rows, searches.

        Args:
            samples: rows to recompute; enough to rule out a thousandth of wrong rows unless given.
            encoder: embeds raw items, for a backfill; the plan's own unless given.

        Raises:
            VerificationFailed: what is wrong; cutover stays closed.
        """
        with self._step(VERIFY):
            started = time.perf_counter()
            checks = self._checks(checking.open_adapter(self.plan), encoder, samples)
            found = Verification(tuple(checks), time.perf_counter() - started)
            if not found.passed:
                self._journal.move(self.plan.id, State.BUILT, verification=found.to_dict(), verified=False)
                failed = next(check for check in checks if not check.passed)
                raise VerificationFailed(
                    f"{self.store.uri}: {failed.name}: {failed.detail}; nothing was switched: "
                    "run crossfade apply again, which writes what is missing, or crossfade rollback"
                )
            self._journal.move(self.plan.id, State.VERIFIED, verification=found.to_dict(), verified=True)
        return found

    def pause(self) -> Pause | None:
        """What the cutover will ask of those who write; None if they need not know of it."""
        measured = self._journal.fact(self.plan.id, "rows_per_second", self.plan.estimates.rows_per_second)
        return self.store.pause(self.plan.staging, measured) if self._writes_column and measured else None

    def cutover(self, progress: Progress | None = None, *, encoder: Encoder | None = None) -> Status:
        """Catch up with rows that others wrote, then put the new vectors in use, at once for all readers.

        Args:
            progress, encoder: as for `apply`, for the rows that are caught up with.

        Raises:
            IllegalTransition: it is not verified.
        """
        with self._step(CUTOVER) as state:
            if state is State.ROLLED_BACK and not self._journal.fact(self.plan.id, "verified", False):
                raise UpgradeError(
                    f"upgrade {self.plan.id} was rolled back before it was verified; "
                    "run crossfade apply and crossfade verify first"
                )
            note = self._switch(progress, encoder) if self._writes_column else ""
            self._move(State.CUT_OVER, note, remarks=[], served=True, switching=False)
        return self.status()

    def rollback(self) -> Status:
        """Put the old vectors back in use, at once for all readers; the new ones are kept."""
        with self._step(ROLLBACK) as state:
            in_use = self._writes_column and state is not State.PLANNED
            remarks = self._switch_back() if in_use and self.store.switched(self.plan.staging) else []
            self._move(State.ROLLED_BACK, remarks=remarks, served=False)
        return self.status()

    def retire(self, confirm: bool = False) -> Status:
        """End the upgrade: delete the vectors that are not in use, the old ones after a cutover.

        Raises:
            UpgradeError: without `confirm`; it says what would be deleted.
        """
        with self._step(RETIRE) as state:
            if not confirm:
                raise UpgradeError(
                    f"retire {self._would_delete(state)}, and there is no way back; "
                    "say so with --confirm (confirm=True)"
                )
            if self._writes_column:
                self._begin(RETIRE)
                drop = self.store.drop_new if state is State.ROLLED_BACK else self.store.drop_old
                drop(self.plan.staging)
            self._move(State.RETIRED)
        return self.status()

    # --- what the steps are made of -------------------------------------------------------------

    @contextmanager
    def _step(self, step: Step) -> Iterator[State]:
        """Be the only writer, from a state that the step may start from."""
        with self._journal.lease(step.name), self.store.alone(step.name):
            before, state = self._journal.state(self.plan.id), self._settled(step)
            if state is before or state not in step.through:  # else: it was done, and only not recorded
                require(step, state, self.plan.id)
            yield state

    def _settled(self, step: Step) -> State:
        """The state, after a switch that a crash kept from being recorded; a cutover goes on by itself."""
        state = self._journal.state(self.plan.id)
        resumes = step is CUTOVER and self._journal.fact(self.plan.id, "switching", False)
        if not self._writes_column or resumes or state in (State.PLANNED, State.RETIRED):
            return state
        switched = self.store.switched(self.plan.staging)
        if switched and state in (State.VERIFIED, State.ROLLED_BACK):
            note = "found switched after an interruption"
            self._move(State.CUT_OVER, note, served=True, switching=False)
        elif not switched and state is State.CUT_OVER and self.store.space() == self.plan.new:
            self._move(State.RETIRED, "found without old vectors after an interruption")
        elif not switched and state is State.CUT_OVER:
            self._move(State.ROLLED_BACK, "found switched back after an interruption", served=False)
        return self._journal.state(self.plan.id)

    def _begin(self, step: Step) -> None:
        """Note that readers may be moved, or vectors deleted, from now on; `_move` notes the end of it."""
        self._journal.set(self.plan.id, begun=step.name)
        self._journal.fold()

    def _move(self, target: State, note: str = "", **facts: Any) -> None:
        self._journal.move(self.plan.id, target, note, begun="", **facts)

    def _check_store(self, state: State) -> None:
        begun = state is not State.PLANNED or (self._writes_column and self.store.begun(self.plan.staging))
        checking.require_unchanged(self.plan, self.store.describe(), begun=begun)
        if self._writes_column and self.store.free_bytes() is not None:
            pending = sum(part.rows for part in self._pending())
            checking.require_space(self.plan, self.store, pending)

    def _transform(self, state: State, produce: Produce | None, progress: Progress | None) -> None:
        resumed = "resumed" if state is State.TRANSFORMING else ""
        self._journal.move(self.plan.id, State.TRANSFORMING, resumed, verified=False)
        try:
            if produce is not None:
                self._build(produce, progress)
                self._index()
        except KeyboardInterrupt:
            raise self._interrupted() from None
        self._journal.move(self.plan.id, State.BUILT)

    def _build(self, produce: Produce, progress: Progress | None) -> None:
        """Write what is pending, and note how fast that went."""
        before, started = self._written_rows(), time.perf_counter()
        with nullcontext() if self._strategy.embeds else cores_for_others():
            self._builder(produce, progress).build()
        if (rows := self._written_rows() - before) > 0:
            self._journal.set(self.plan.id, rows_per_second=rows / (time.perf_counter() - started))

    def _written_rows(self) -> int:
        return sum(one.rows for one in self._receipts.values())

    def _index(self) -> None:
        like = self.store.describe().index
        if like is not None and not self._journal.fact(self.plan.id, "indexed", False):
            self.store.build_index(self.plan.staging, like)
            self._journal.set(self.plan.id, indexed=True)

    def _maker(self, adapter: Adapter | None, encoder: Encoder | None) -> Produce | None:
        """What makes new vectors, if the strategy writes any."""
        if not self._writes_column:
            return None
        return self._strategy.producer(self.plan, adapter, encoder or self._planned_encoder())

    def _planned_encoder(self) -> Encoder | None:
        named = self.plan.encoders.get("items", "")
        return open_encoder(named, space=self.plan.new) if named and self._strategy.embeds else None

    def _builder(self, produce: Produce, progress: Progress | None) -> Builder:
        embeds, lifts = self._strategy.embeds, self._strategy.lifts
        return Builder(self.store, self._journal, self.plan, produce, embeds, lifts, progress)

    def _checks(self, adapter: Adapter | None, encoder: Encoder | None, samples: int | None) -> list[Check]:
        if not self._writes_column:
            return verify_untouched(self.store, self.plan)
        embeds = self._strategy.embeds
        recomputes = not embeds or encoder is not None or bool(self.plan.encoders.get("items"))
        produce = self._maker(adapter, encoder) if recomputes else None
        count = samples or (EMBEDDED_SAMPLES if embeds else samples_for(RISK))
        return ColumnVerifier(self.store, self.plan, self._receipts, produce, count).checks()

    def _switch(self, progress: Progress | None, encoder: Encoder | None) -> str:
        """Switch, writing what others added until nothing is missing any more."""
        self._journal.set(self.plan.id, switching=True, begun=CUTOVER.name)
        self._journal.fold()
        late = rounds = 0
        ready = None if self._strategy.embeds else self._maker(checking.open_adapter(self.plan), None)

        def write(pending: list[Part]) -> None:
            nonlocal late
            produce = ready or self._maker(checking.open_adapter(self.plan), encoder)
            assert produce is not None
            self._builder(produce, progress).write(pending)
            late += sum(part.rows for part in pending)

        while pending := self._switch_once(write, strict=rounds < self.store.strict_rounds):
            write(pending)
            rounds += 1
        return f"caught up with {late} rows in parts written meanwhile" if late else ""

    def _switch_once(self, write: Write, *, strict: bool) -> list[Part]:
        """Returns what is still to be written; nobody waits while an encoder is at work."""
        self._journal.require_lease()
        if self._strategy.embeds:
            return self.store.switch(self.plan.staging, self._receipts, strict=strict)
        return self.store.switch_pausing(self.plan.staging, self._receipts, write, strict=strict)

    def _switch_back(self) -> list[str]:
        for part in self._pending():
            written = Receipt(part.key, part.source, part.rows, 0, "", {})
            self._journal.record(self.plan.id, written)
        self._begin(ROLLBACK)
        self.store.switch_back(self.plan.staging)
        missing = self.store.count_null(self.store.column)
        if not missing:
            return []
        return [
            f"{missing} rows have no old vector, since they were written while the new ones were in use: "
            f"search does not find them until they are embedded with {self.plan.old.model}"
        ]

    def _would_delete(self, state: State) -> str:
        if not self._writes_column:
            return "ends the upgrade and deletes nothing" + " (kept vectors stay)" * (
                self._strategy.writes == "cache"
            )
        old = state is State.CUT_OVER
        space = self.plan.old if old else self.plan.new
        bytes_ = self.store.describe().rows * space.dimension * 4
        text = f"deletes the {'old' if old else 'new'} vectors ({space}, about {size(bytes_)})"
        return self.store.in_words(text, self.plan.staging)

    def _interrupted(self) -> Interrupted:
        status = self.status()
        return Interrupted(
            f"interrupted after {status.rows_done:,} of {status.rows_total:,} rows; they are kept and "
            "nothing was switched: run the same command again to go on"
        )

    def _pending(self) -> list[Part]:
        return self.store.pending(self.plan.staging, self._receipts) if self._writes_column else []

    def _damaged(self) -> bool:
        return self._writes_column and self.store.check_whole(self.plan.staging) is not None

    @property
    def _receipts(self) -> dict[str, Receipt]:
        return self._journal.receipts(self.plan.id)

    @property
    def _writes_column(self) -> bool:
        return self._strategy.writes == "column"


def _make_room(journal: Journal, entry: Entry, store: str) -> None:
    """A plan that was never begun gives way; vectors beside the old ones must be dealt with first."""
    if entry.state is State.PLANNED:
        journal.remove(entry.id)
        return
    left_nothing = strategy(Plan.from_json(entry.plan).strategy).writes != "column"
    if entry.state is State.RETIRED or (entry.state is State.ROLLED_BACK and left_nothing):
        return
    raise UpgradeError(
        f"{store}: upgrade {entry.id} is {entry.state}; end it first: crossfade retire --confirm "
        "(after crossfade rollback, if its vectors are not to stay)"
    )


def apply(
    plan: Plan | str | Path, *, encoder: Encoder | None = None, progress: Progress | None = None
) -> Upgrade:
    """Apply a plan, up to vectors that are built and not yet in use; see `Upgrade.apply`."""
    upgrade = Upgrade.create(plan)
    upgrade.apply(progress, encoder=encoder)
    return upgrade
