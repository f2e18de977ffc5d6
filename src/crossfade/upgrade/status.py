"""Where an upgrade stands, read from the journal alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from crossfade.upgrade.journal import Journal, Transition
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.states import NEXT, RETIRE, State
from crossfade.upgrade.wording import UNFOUND, Facts, duration


@dataclass(frozen=True, slots=True)
class Status:
    """Where an upgrade stands.

    Attributes:
        id, store, strategy: of the plan.
        state: see `State`.
        rows_done, rows_total: rows whose new vectors are on disk, and all; 0 if nothing is written.
        rows_underway: rows that were made in a pass which counts only once it is whole, as that of a file
            does; 0 where there is none.
        rows_per_second, seconds_left: of that pass.
        skipped: rows that were left without a new vector.
        holder: the process at work (host, pid, action), if any.
        history: transitions, oldest first.
        interrupted: a step that was begun and has not ended, though nobody is at work: readers may see
            either gallery until it, or another one, is run.
        remarks: what a person should know.
        next: what to do next.
    """

    id: str
    store: str
    strategy: str
    state: State
    rows_done: int = 0
    rows_total: int = 0
    rows_underway: int = 0
    rows_per_second: float = 0.0
    seconds_left: float = 0.0
    skipped: int = 0
    holder: dict[str, Any] | None = None
    history: tuple[Transition, ...] = ()
    interrupted: str = ""
    remarks: tuple[str, ...] = ()
    next: str = ""

    def summary(self) -> Facts:
        """For people."""
        facts = [
            ("upgrade", self.id),
            ("store", self.store),
            ("strategy", self.strategy),
            ("state", self.state.value),
        ]
        if self.rows_total:
            share = self.rows_done / self.rows_total
            facts.append(("rows", f"{self.rows_done:,} of {self.rows_total:,} ({share:.0%})"))
        if self.rows_underway:
            speed, left = f"{self.rows_per_second:,.0f} rows/s", duration(self.seconds_left)
            facts.append(
                (
                    "under way",
                    f"{self.rows_underway:,} rows at {speed}, {left} left; they count when all are there",
                )
            )
        if self.skipped:
            facts.append(("skipped", f"{self.skipped:,} rows without a new vector: {UNFOUND}"))
        if self.holder:
            facts.append(
                (
                    "at work",
                    f"{self.holder['action']}, process {self.holder['pid']} on {self.holder['host']}",
                )
            )
        facts += [("remark", remark) for remark in self.remarks]
        return [*facts, ("next", self.next)]

    def log(self) -> Facts:
        """The history for people: (state, when and why) pairs, oldest first."""
        return [(one.target, " ".join(filter(None, (_when(one.at), one.note)))) for one in self.history]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        history = [
            {"at": _when(one.at), "from": one.source, "to": one.target, "note": one.note}
            for one in self.history
        ]
        plain = (
            "id",
            "store",
            "strategy",
            "rows_done",
            "rows_total",
            "rows_underway",
            "rows_per_second",
            "seconds_left",
            "skipped",
            "holder",
            "interrupted",
            "next",
        )
        values = {name: getattr(self, name) for name in plain}
        return {**values, "state": self.state.value, "remarks": list(self.remarks), "history": history}


def read_status(journal: Journal, plan: Plan) -> Status:
    """Where the upgrade of `plan` stands; never waits for the process at work."""
    holder, receipts, state = journal.holder(), journal.receipts(plan.id), journal.state(plan.id)
    interrupted = "" if holder else journal.fact(plan.id, "begun", "")
    done = sum(receipt.rows for receipt in receipts.values())
    keeps = plan.strategy == "keep"
    made, wanted, seconds = journal.underway(plan.id)
    speed = made / seconds if seconds else 0.0
    return Status(
        id=plan.id,
        store=plan.store,
        strategy=plan.strategy,
        state=state,
        rows_done=done,
        rows_total=max(done, int(journal.fact(plan.id, "rows_total", plan.estimates.rows))),
        rows_underway=made,
        rows_per_second=speed,
        seconds_left=max(0, wanted - made) / speed if speed else 0.0,
        skipped=len(journal.skipped(plan.id)),
        holder=holder,
        history=tuple(journal.history(plan.id)),
        interrupted=interrupted,
        remarks=tuple(journal.fact(plan.id, "remarks", [])),
        next="nothing: the plan keeps the old model" if keeps else _next(state, interrupted),
    )


def _next(state: State, interrupted: str) -> str:
    if not interrupted:
        return NEXT[state]
    confirmed = " --confirm" if interrupted == RETIRE.name else ""
    return f"crossfade {interrupted}{confirmed} again: it was interrupted"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
