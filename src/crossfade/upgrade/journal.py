"""The journal of a store's upgrades: an SQLite database beside the table.

It holds plans, states, and a receipt for every part that is on disk. Each step is one transaction
that is flushed to disk before the next begins, so a process may end anywhere. Readers never wait
for the writer.
"""

from __future__ import annotations

import json
import sqlite3
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfade.errors import IllegalTransition, OutOfSpace, StoreError, UpgradeLocked
from crossfade.stores import Receipt
from crossfade.upgrade.lease import Held, Lease, is_dead, locked_by
from crossfade.upgrade.states import State, may_follow
from crossfade.vectors.writing import disk_is_full

VERSION = 2
WAIT_SECONDS = 30.0
_TABLES = """
DROP TABLE IF EXISTS lease;
CREATE TABLE IF NOT EXISTS upgrade
  (number INTEGER PRIMARY KEY, id TEXT UNIQUE, plan TEXT, state TEXT, at REAL);
CREATE TABLE IF NOT EXISTS transition (upgrade TEXT, at REAL, source TEXT, target TEXT, note TEXT);
CREATE TABLE IF NOT EXISTS part (upgrade TEXT, key TEXT, receipt TEXT, at REAL, PRIMARY KEY (upgrade, key));
CREATE TABLE IF NOT EXISTS skipped (upgrade TEXT, part TEXT, id TEXT, reason TEXT);
CREATE TABLE IF NOT EXISTS fact (upgrade TEXT, name TEXT, value TEXT, PRIMARY KEY (upgrade, name));
CREATE TABLE IF NOT EXISTS lease
  (number INTEGER PRIMARY KEY CHECK (number = 1), token TEXT, holder TEXT, beat INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of the log: when (seconds since 1970), from where to where, and why."""

    at: float
    source: str
    target: str
    note: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An upgrade as the journal knows it."""

    id: str
    plan: str
    state: State


class Journal:
    """Opens the journal at `path`, making it if `create`.

    Raises:
        StoreError: it is missing, damaged, or written by a newer version.
        OutOfSpace: the disk is full.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._token: str | None = None
        if not create and not path.exists():
            raise StoreError(
                f"{path}: no upgrade has been planned here; run crossfade plan, then crossfade apply"
            )
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect()
            weakref.finalize(self, self._connection.close)
            self._prepare()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout = {int(WAIT_SECONDS * 1000)}")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StoreError(f"{self.path}: written by a newer version of Crossfade; install that one")
        if version == VERSION:
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        with self._transaction():
            if self._connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
                return
            for statement in filter(str.strip, _TABLES.split(";")):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # --- upgrades -----------------------------------------------------------------------------

    def add(self, upgrade: str, plan: str) -> None:
        """Enter a new upgrade, in the state planned."""
        with self._transaction():
            now = time.time()
            self._connection.execute(
                "INSERT INTO upgrade (id, plan, state, at) VALUES (?, ?, ?, ?)",
                (upgrade, plan, State.PLANNED.value, now),
            )
            self._log(upgrade, now, "", State.PLANNED.value, "")

    def remove(self, upgrade: str) -> None:
        """Forget an upgrade that was planned and never begun."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM upgrade WHERE id = ? AND state = ?", (upgrade, State.PLANNED.value)
            )

    def entries(self) -> list[Entry]:
        """All upgrades of this column, the latest first."""
        rows = self._all("SELECT id, plan, state FROM upgrade ORDER BY number DESC")
        return [Entry(upgrade, plan, State(state)) for upgrade, plan, state in rows]

    def state(self, upgrade: str) -> State:
        """Where an upgrade stands."""
        return State(self._all("SELECT state FROM upgrade WHERE id = ?", upgrade)[0][0])

    def move(self, upgrade: str, target: State, note: str = "", **facts: Any) -> None:
        """Enter a state, together with `facts`, in one transaction.

        Raises:
            IllegalTransition: no step leads there.
        """
        with self._transaction():
            source = self.state(upgrade)
            if not may_follow(source, target):
                raise IllegalTransition(f"upgrade {upgrade}: no step leads from {source} to {target}")
            now = time.time()
            self._connection.execute(
                "UPDATE upgrade SET state = ?, at = ? WHERE id = ?", (target.value, now, upgrade)
            )
            if source != target or note:
                self._log(upgrade, now, source.value, target.value, note)
            self._set_facts(upgrade, facts)

    def history(self, upgrade: str) -> list[Transition]:
        """The log of an upgrade, oldest first."""
        rows = self._all(
            "SELECT at, source, target, note FROM transition WHERE upgrade = ? ORDER BY rowid", upgrade
        )
        return [Transition(*row) for row in rows]

    def _log(self, upgrade: str, at: float, source: str, target: str, note: str) -> None:
        self._connection.execute(
            "INSERT INTO transition VALUES (?, ?, ?, ?, ?)", (upgrade, at, source, target, note)
        )

    # --- parts --------------------------------------------------------------------------------

    def record(self, upgrade: str, receipt: Receipt, skipped: Sequence[tuple[str, str]] = ()) -> None:
        """A part is on disk; `skipped` are the ids and reasons of rows left without a vector."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM skipped WHERE upgrade = ? AND part = ?", (upgrade, receipt.part)
            )
            self._connection.execute(
                "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?)",
                (upgrade, receipt.part, json.dumps(receipt.to_dict()), time.time()),
            )
            self._connection.executemany(
                "INSERT INTO skipped VALUES (?, ?, ?, ?)",
                [(upgrade, receipt.part, row, reason) for row, reason in skipped],
            )

    def receipts(self, upgrade: str) -> dict[str, Receipt]:
        """Every part that is on disk."""
        rows = self._all("SELECT key, receipt FROM part WHERE upgrade = ?", upgrade)
        return {key: Receipt(**json.loads(receipt)) for key, receipt in rows}

    def skipped(self, upgrade: str) -> list[tuple[str, str]]:
        """Ids and reasons of the rows that were left without a vector."""
        return self._all("SELECT id, reason FROM skipped WHERE upgrade = ? ORDER BY rowid", upgrade)

    # --- facts --------------------------------------------------------------------------------

    def set(self, upgrade: str, **facts: Any) -> None:
        """Note JSON-ready values under their names."""
        with self._transaction():
            self._set_facts(upgrade, facts)

    def fold(self) -> None:
        """Fold the log into the file, so that what is noted by now outlives whatever becomes of the log.

        Where a process stands still in the middle of reading, that waits for a while, and is then left.
        """
        with self._errors():
            self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()

    def fact(self, upgrade: str, name: str, default: Any = None) -> Any:
        """A value noted before."""
        rows = self._all("SELECT value FROM fact WHERE upgrade = ? AND name = ?", upgrade, name)
        return json.loads(rows[0][0]) if rows else default

    def note_pass(self, upgrade: str, made: int, rows: int, seconds: float) -> None:
        """How far a pass has come that counts only once it is whole; nothing waits for the disk."""
        with self._errors():
            self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            self.set(upgrade, underway=[self._token, made, rows, seconds])
        finally:
            self._connection.execute("PRAGMA synchronous = FULL")

    def end_pass(self, upgrade: str) -> None:
        """The pass is whole; one that ends otherwise is void with the lease."""
        self.set(upgrade, underway=None)

    def underway(self, upgrade: str) -> tuple[int, int, float]:
        """Rows made, rows in all and seconds of a pass that whoever holds the lease is in; else zeros."""
        noted, held = self.fact(upgrade, "underway"), self._held()
        if noted is None or held is None or held.token != noted[0] or is_dead(held):
            return 0, 0, 0.0
        return int(noted[1]), int(noted[2]), float(noted[3])

    def _set_facts(self, upgrade: str, facts: Mapping[str, Any]) -> None:
        rows = [(upgrade, name, json.dumps(value)) for name, value in facts.items()]
        self._connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", rows)

    # --- the lease ----------------------------------------------------------------------------

    @contextmanager
    def lease(self, action: str) -> Iterator[None]:
        """Be the only writer for the length of the block.

        Raises:
            UpgradeLocked: another process is.
        """
        with Lease(_Record(self), action) as lease:
            self._token = lease.token
            try:
                yield
            finally:
                self._token = None

    def require_lease(self) -> None:
        """Refuse to go on without the lease, which a process that stood still for long may have lost.

        Raises:
            UpgradeLocked: it is lost, or somebody else's.
        """
        if self._token is None:
            return
        held = self._held()
        if held is not None and held.token == self._token:
            return
        if held is None:
            raise UpgradeLocked("the lease on this upgrade was lost; run the same command again")
        raise UpgradeLocked(locked_by(held.who))

    def holder(self) -> dict[str, Any] | None:
        """Who is writing now, if anybody is; one that cannot be asked whether it lives is named, too."""
        held = self._held()
        return None if held is None or is_dead(held) else held.who

    def _held(self) -> Held | None:
        rows = self._all("SELECT token, holder, beat FROM lease")
        return Held(rows[0][0], json.loads(rows[0][1]), rows[0][2]) if rows else None

    # --- transactions -------------------------------------------------------------------------

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with self._errors():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and only while the lease is still ours."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self.require_lease()
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if disk_is_full(error, self.path.parent):
                raise OutOfSpace(
                    f"{self.path}: no space left on the disk; what was recorded is kept: "
                    "free some space and run the same command again"
                ) from None
            raise StoreError(f"{self.path}: the journal cannot be used: {error}") from error


class _Record:
    """The lease of a journal; every call is one transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def held(self) -> Held | None:
        """A plain read, which waits for nobody."""
        return self._journal._held()

    def take(self, token: str, who: dict[str, Any], instead: Held | None) -> bool:
        with self._journal._transaction():
            if (now := self._journal._held()) is not None and now != instead:
                return False
            values = (token, json.dumps(who))
            self._journal._connection.execute("INSERT OR REPLACE INTO lease VALUES (1, ?, ?, 0)", values)
            return True

    def renew(self, token: str) -> bool:
        """Through a connection of its own: it is called from another thread."""
        connection = self._journal._connect()
        try:
            query = "UPDATE lease SET beat = beat + 1 WHERE token = ?"
            return connection.execute(query, (token,)).rowcount == 1
        except sqlite3.Error:
            return True  # a busy or full disk; the next beat tries again
        finally:
            connection.close()

    def release(self, token: str) -> None:
        with self._journal._errors():
            self._journal._connection.execute("DELETE FROM lease WHERE token = ?", (token,))
