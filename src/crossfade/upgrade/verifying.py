"""Is what was written what should have been written?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crossfade.spaces import Metric, Space
from crossfade.stores import Hits, Produce, Receipt, Rows, Store
from crossfade.stores.file_content import Unreadable
from crossfade.upgrade.inspection import scan_store
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.producing import select
from crossfade.upgrade.wording import UNFOUND, duration
from crossfade.vectors.ids import first_few

CONFIDENCE = 0.999
TOLERANCE = 1e-3
"""Relative error of a recomputed vector: batches of another size round differently."""
SEARCHES = 10
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked.

    Attributes:
        checks: in order.
        seconds: that it took.
    """

    checks: tuple[Check, ...]
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "passed": self.passed,
            "seconds": self.seconds,
            "checks": [asdict(one) for one in self.checks],
        }

    def summary(self) -> list[tuple[str, str]]:
        """For people: label and value pairs."""
        facts = [(one.name, ("ok: " if one.passed else "FAILED: ") + one.detail) for one in self.checks]
        return [*facts, ("time", duration(self.seconds))]


def verify_untouched(store: Store, plan: Plan) -> list[Check]:
    """Checks of the strategies that leave the gallery as it is."""
    found = store.describe()
    same = (found.dimension, found.column_type) == (plan.found.dimension, plan.found.column_type)
    checks = [
        Check("gallery", same, f"{found.rows:,} vectors of type {found.column_type}"),
        Check("adapter", True, f"{plan.adapter.method if plan.adapter else 'none'}, checksum as planned"),
    ]
    rows = store.sample(SEARCHES, 0, [store.column], [], [one.key for one in store.parts(plan.staging)])[0]
    return [*checks, _searches(store, store.column, rows, plan.old)]


@dataclass(frozen=True)
class ColumnVerifier:
    """Checks the new vectors of a column.

    Attributes:
        produce: recomputes the sampled rows; None if there is no encoder to do so.
        samples: how many rows are recomputed.
    """

    store: Store
    plan: Plan
    receipts: dict[str, Receipt]
    produce: Produce | None
    samples: int
    seed: int = 0

    def checks(self) -> list[Check]:
        """All checks, cheap ones first; what is damaged is not read any further."""
        checks = [self._checksums()]
        try:
            if checks[0].passed:
                return [*checks, *self._rows(), *self._recomputed(), *self._remarks()]
        except Unreadable as error:
            checks.append(Check("vectors", False, str(error)))
        self.store.distrust(self.plan.staging, self.receipts)
        return checks

    def _remarks(self) -> list[Check]:
        return [Check("remark", True, one) for one in self.store.remarks(self.plan.staging)]

    def _checksums(self) -> Check:
        present = {part.key for part in self.store.parts(self.plan.staging)}
        written = [one for key, one in self.receipts.items() if key in present and one.location]
        damaged = self.store.check_whole(self.plan.staging)
        wrong = [damaged] if damaged else [text for one in written if (text := self.store.check_part(one))]
        size = sum(int(one.location["bytes"]) for one in written)
        detail = wrong[0] if wrong else f"{len(written)} parts, {size:,} bytes read again"
        return Check("checksums", not wrong, detail)

    def _rows(self) -> list[Check]:
        for _ in range(ATTEMPTS):  # a store that only tells how many rows it has may seem quiet and not be
            content, late = self.store.describe().content, self._late
            scan = scan_store(self.store, self._new)
            expected = sum(part.rows for part in self.store.parts(self.plan.staging))
            quiet = self.store.describe().content == content
            if scan.rows == expected or not quiet:
                break
        counted = f"{scan.rows:,} rows, {expected:,} in the parts" + ", others wrote meanwhile" * (not quiet)
        checks = [
            Check("rows", scan.rows == expected or not quiet, counted),
            Check("ids", not (scan.duplicates or scan.null_ids), self._ids(scan.duplicates, scan.null_ids)),
        ]
        late = self._late if quiet else late + self._late
        allowed = self.store.left_null(self.plan.staging, self.receipts) + late
        nulls = scan.faults.get("null", 0)
        unusable = sum(count for fault, count in scan.faults.items() if fault != "null")
        detail = f"{unusable} unusable, {nulls} without a vector (at most {allowed} expected)"
        if nulls:
            detail += f"; {UNFOUND}"
        return [*checks, Check("vectors", not unusable and nulls <= allowed, detail)]

    def _ids(self, duplicates: dict[Any, int], nulls: int) -> str:
        if duplicates or nulls:
            return f"{nulls} null, {len(duplicates)} more than once: {first_few(duplicates)}"
        return "each occurs once"

    def _recomputed(self) -> list[Check]:
        checks: list[Check] = []
        for attempt in range(ATTEMPTS):
            content, late = self.store.describe().content, self._late_parts
            ours = [key for key, one in self.receipts.items() if one.location and key not in late]
            if not ours:
                return []
            old, new = self.store.sample(
                self.samples, self.seed + attempt, [self._old, self._new], self.plan.staging.reads, ours
            )
            # At once: recomputing may take long, and others may change the sampled rows meanwhile.
            found = _searches(self.store, self._new, new, self.plan.new)
            recomputed = Check("samples", True, "not recomputed: no encoder was given")
            if self.produce is not None:
                recomputed = self._compare(old, new)
            checks = [recomputed, found]
            if all(one.passed for one in checks):
                break
            if self.store.describe().content == content and self._late_parts == late:
                break  # else: others may have changed rows of these parts after it was asked which are late
        return checks

    def _compare(self, old: Rows, new: Rows) -> Check:
        assert self.produce is not None
        usable = np.flatnonzero(~new.null & ~old.null)
        wrong: list[Any] = []
        for start in range(0, len(usable), self.plan.batch_rows):
            rows = usable[start : start + self.plan.batch_rows]
            expected = self.store.stored(self.produce(select(old, rows)).vectors, self.plan.staging)
            error = np.linalg.norm(expected - new.vectors[rows], axis=1)
            bad = ~(error <= TOLERANCE * np.linalg.norm(expected, axis=1))
            wrong += [new.ids[int(row)].as_py() for row in rows[bad]]
        if wrong:
            return Check(
                "samples",
                False,
                f"{len(wrong)} of {len(usable)} recomputed vectors differ: {first_few(wrong)}",
            )
        return Check("samples", True, f"{len(usable):,} recomputed, all alike: {risk(len(usable))}")

    @property
    def _old(self) -> str:
        return self.store.columns_of(self.plan.staging)[0]

    @property
    def _new(self) -> str:
        return self.store.columns_of(self.plan.staging)[1]

    @property
    def _late_parts(self) -> set[str]:
        """Parts that others have changed since they were written, where these are not known row by row."""
        return set() if self.store.knows_rows else {part.key for part in self._pending}

    @property
    def _late(self) -> int:
        return sum(part.rows for part in self._pending)

    @property
    def _pending(self) -> list[Any]:
        return self.store.pending(self.plan.staging, self.receipts)


def risk(samples: int) -> str:
    """What a sample without a fault says about all rows."""
    if not samples:
        return "nothing can be said"
    share = 1 - (1 - CONFIDENCE) ** (1 / samples)
    return f"with {CONFIDENCE:.1%} confidence fewer than {share:.2%} of rows are wrong"


def samples_for(share: float) -> int:
    """Rows to sample, so that a sample without a fault means fewer than `share` wrong rows."""
    return int(np.ceil(np.log(1 - CONFIDENCE) / np.log(1 - share)))


def _searches(store: Store, column: str, rows: Rows, space: Space) -> Check:
    """Rows must be found by their own vector, unless others score the same or, by dot product, more."""
    usable = np.flatnonzero(~rows.null)[:SEARCHES]
    answers = store.search(rows.vectors[usable], SEARCHES, space, column=column, exact=True)
    missed = [
        own
        for row, hits in zip(usable, answers, strict=True)
        if not _found(own := rows.ids[int(row)].as_py(), hits, space.metric)
    ]
    if missed:
        return Check("searches", False, f"not found by their own vector: {first_few(missed)}")
    return Check("searches", True, f"{len(usable)} rows found by their own vector")


def _found(own: Any, hits: Hits, metric: Metric) -> bool:
    if not len(hits):
        return False
    all_alike = bool(np.isclose(hits.scores[0], hits.scores[-1], rtol=1e-5, atol=1e-6))
    return own in hits.ids.to_pylist() or metric == "dot" or (all_alike and len(hits) == SEARCHES)
