"""Look at a store before anything is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from crossfade.errors import CrossfadeError, DimensionMismatch, SpaceMismatch, StoreError, UnknownSpace
from crossfade.spaces import Space
from crossfade.stores import Description, Rows, Store, open_store
from crossfade.upgrade.journal import Journal
from crossfade.upgrade.states import State
from crossfade.upgrade.wording import Facts, store_facts
from crossfade.vectors.checks import KeyLog, find_invalid
from crossfade.vectors.ids import first_few, id_keys, normalize_ids
from crossfade.vectors.metadata import settle_space

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that stands in the way of an upgrade.

    Attributes:
        kind: ``space``, ``ids``, ``duplicates``, ``invalid``, ``null``, ``empty``, ``read-only``, ...
        message: what was found.
        remedy: what to do.
        count: rows concerned.
        blocks: whether no upgrade can start before it is solved.
    """

    kind: str
    message: str
    remedy: str
    count: int = 0
    blocks: bool = True

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Scan:
    """What a pass over all rows found: counts of unusable vectors by fault, and the first ids of each."""

    rows: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Any]] = field(default_factory=dict)
    duplicates: dict[Any, int] = field(default_factory=dict)
    null_ids: int = 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a store, and what would stop an upgrade.

    Attributes:
        found: the store.
        space: of its vectors, if it is recorded or was given.
        problems: in the order in which they should be solved.
        upgrade: id and state of the upgrade that is under way, if any.
    """

    found: Description
    space: Space | None
    problems: tuple[Problem, ...] = ()
    upgrade: tuple[str, str] | None = None

    @property
    def ready(self) -> bool:
        """Whether an upgrade can be planned."""
        return not any(problem.blocks for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        problems = [
            {name: getattr(one, name) for name in ("kind", "message", "remedy", "count", "blocks")}
            for one in self.problems
        ]
        space = self.space.to_dict() if self.space else None
        upgrade = dict(zip(("id", "state"), self.upgrade, strict=True)) if self.upgrade else None
        found = self.found.to_dict()
        return {"store": found, "space": space, "problems": problems, "ready": self.ready, "upgrade": upgrade}

    def summary(self) -> Facts:
        """For people."""
        space = str(self.space) if self.space else "not recorded"
        facts = [*store_facts(self.found), ("space", space)]
        if self.upgrade:
            facts.append(("upgrade", f"{self.upgrade[0]}, {self.upgrade[1]}"))
        facts += [("problem" if one.blocks else "remark", str(one)) for one in self.problems]
        return [*facts, ("ready", "yes" if self.ready else "no: solve the problems first")]


def inspect_store(store: str | Store, *, space: Space | str | None = None) -> Inspection:
    """Look at a store: rows, dimension, space, index, unusable vectors, duplicate ids. Reads all rows once.

    Args:
        store: address, or an open store.
        space: of its vectors, where none is recorded: a `Space` or text for `Space.parse`.

    Raises:
        StoreError, UsageError, MissingExtra: it cannot be opened.
    """
    opened = open_store(store) if isinstance(store, str) else store
    found = opened.describe()
    settled, problems = _space(found, space)
    obstacles = opened.obstacles()
    problems += _surroundings(found, {one.kind for one in obstacles})
    problems += [Problem(one.kind, one.message, one.remedy, 0, one.blocks) for one in obstacles]
    if found.id_column and found.rows:
        problems += scan_problems(scan_store(opened))
    return Inspection(found, settled, tuple(problems), _current(opened))


def scan_store(store: Store, column: str | None = None) -> Scan:
    """Pass over all rows once: unusable vectors in `column` (the store's own), null and duplicate ids."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[Any]] = {}
    keys = KeyLog()
    rows = null_ids = 0
    for batch in store.scan(column):
        rows += len(batch)
        for row, fault in faults(batch).items():
            counts[fault] += 1
            if len(examples.setdefault(fault, [])) < SHOWN:
                examples[fault].append(batch.ids[row].as_py())
        null_ids += batch.ids.null_count
        keys.add(id_keys(normalize_ids(batch.ids.drop_null(), store.uri)))
    return Scan(rows, dict(counts), examples, _duplicates(store, keys.repeated()), null_ids)


def faults(rows: Rows) -> dict[int, str]:
    """Rows whose vector no search can use: NaN, infinite, zero or null, by row number."""
    found: dict[int, str] = {row: "null" for row in np.flatnonzero(rows.null).tolist()}
    invalid = {row: str(fault) for row, fault in find_invalid(rows.vectors).items() if row not in found}
    return {**found, **invalid}


def _duplicates(store: Store, suspects: np.ndarray) -> dict[Any, int]:
    """Ids that occur more than once; equal keys of strings are confirmed by a second pass."""
    if len(suspects) == 0:
        return {}
    counted: Counter[Any] = Counter()
    for batch in store.scan():
        ids = normalize_ids(batch.ids.drop_null(), store.uri)
        keys = id_keys(ids)
        at = np.minimum(np.searchsorted(suspects, keys), len(suspects) - 1)
        counted.update(ids.take(pa.array(np.flatnonzero(suspects[at] == keys))).to_pylist())
    return {one: count for one, count in counted.items() if count > 1}


def scan_problems(scan: Scan) -> list[Problem]:
    """What a pass found, as problems."""
    problems = []
    if scan.null_ids:
        problems.append(
            Problem("ids", f"{scan.null_ids} rows have no id", "give every row an id", scan.null_ids)
        )
    if scan.duplicates:
        count, rows = len(scan.duplicates), sum(scan.duplicates.values())
        text = (
            f"{count} ids occur more than once, {rows} rows in all; first ids: {first_few(scan.duplicates)}"
        )
        problems.append(Problem("duplicates", text, "keep one row of each", rows))
    if scan.faults:
        problems.append(_invalid(scan))
    return problems


def _invalid(scan: Scan) -> Problem:
    total = sum(scan.faults.values())
    found = ", ".join(f"{count} {fault}" for fault, count in sorted(scan.faults.items()))
    ids: Iterable[Any] = (one for examples in scan.examples.values() for one in examples)
    text = f"{total} of {scan.rows} vectors are unusable ({found}); first ids: {first_few(ids)}"
    remedy = "embed these items again, or plan with --on-invalid skip, which lists them and leaves them out"
    return Problem("invalid", text, remedy, total, blocks=False)


def _space(found: Description, given: Space | str | None) -> tuple[Space | None, list[Problem]]:
    if not found.dimension:
        return None, []
    try:
        return settle_space(found.space, given, found.dimension, found.uri), []
    except (UnknownSpace, SpaceMismatch, DimensionMismatch) as error:
        what, _, remedy = str(error).partition("; ")
        return None, [Problem("space", what, remedy)]


def _surroundings(found: Description, known: set[str]) -> list[Problem]:
    """What the description shows, but for what the store itself knows better."""
    problems = []
    if not found.rows:
        problems.append(Problem("empty", f"{found.uri}: the table has no rows", "write some first"))
    if not found.id_column and "ids" not in known:
        columns = ", ".join(found.payload) or "no other columns"
        text = f"no column 'id' that identifies rows; there are {columns}"
        problems.append(Problem("ids", text, f"name one: {found.uri}?id=NAME"))
    if not found.writable and "read-only" not in known:
        problems.append(
            Problem("read-only", f"{found.uri}: this account may not write there", "run as one that may")
        )
    if found.dimension and found.column_type.startswith(("list", "large_list")):
        text = f"the vectors are of type {found.column_type}, whose lengths may differ and which has no index"
        problems.append(Problem("type", text, "all were of one length as far as read", blocks=False))
    return problems


def _current(store: Store) -> tuple[str, str] | None:
    """The upgrade that is under way on this column."""
    if not store.journal.exists():
        return None
    try:
        entries = Journal(store.journal).entries()
    except (CrossfadeError, StoreError):
        return None
    open_ones = [entry for entry in entries if entry.state != State.RETIRED]
    return (open_ones[0].id, open_ones[0].state.value) if open_ones else None
