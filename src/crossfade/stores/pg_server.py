"""Connections to a PostgreSQL server: lent and given back, with its errors made ours."""

from __future__ import annotations

import random
import re
import selectors
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from crossfade.errors import OutOfSpace, StoreError
from crossfade.stores.pg_sql import Query, psycopg, text

Value = TypeVar("Value")
LOCK_TIMEOUT_MS = 50
"""How long a change of the table's columns waits in the lock queue, where it holds up everybody behind it."""
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.3
IDLE_SECONDS = 1.0
_PASSWORD = re.compile(r"(password=)[^\s&]+", re.IGNORECASE)
_SETTINGS = "SET statement_timeout = 0; SET jit = off; SET DateStyle = ISO; SET TimeZone = 'UTC'"


class Server:
    """Lends connections; a broken one is replaced at the next call.

    Args:
        conninfo: for libpq, with credentials.
        what: the store, without credentials, for messages.
    """

    def __init__(self, conninfo: str, what: str) -> None:
        self._conninfo, self.what = conninfo, what
        self._idle: list[tuple[Any, float]] = []
        self._held = threading.local()
        self._guard: Callable[[], object] | None = None
        weakref.finalize(self, _close, self._idle)

    @contextmanager
    def connection(self, passing: Any = ()) -> Iterator[Any]:
        """A connection in autocommit mode for the length of the block; inside `hold`, the one that is held.

        What psycopg raises becomes one of our errors, except for `passing`.
        """
        held = getattr(self._held, "connection", None)
        if held is not None:
            yield held
            return
        with self.errors(passing):
            connection = self._borrow()
            try:
                yield connection
            finally:
                self._give_back(connection)

    @contextmanager
    def hold(self, connection: Any) -> Iterator[None]:
        """Let everything in this thread go through one connection, and so into its transaction."""
        self._held.connection = connection
        try:
            yield
        finally:
            self._held.connection = None

    def connect(self) -> Any:
        """A connection in autocommit mode that nobody else is lent; the caller closes it."""
        with self.errors():
            return self._connect()

    @contextmanager
    def guarded(self, guard: Callable[[], object]) -> Iterator[None]:
        """Let `locking` change nothing in this block when `guard` fails."""
        self._guard = guard
        try:
            yield
        finally:
            self._guard = None

    @property
    def holds(self) -> bool:
        """Whether this thread works inside `hold`."""
        return getattr(self._held, "connection", None) is not None

    def all(self, query: Query, values: Any = None, *, binary: bool = False) -> list[Any]:
        """Every row of a query."""
        with self.connection() as connection:
            found: list[Any] = connection.execute(query, values, binary=binary).fetchall()
            return found

    def one(self, query: Query, values: Any = None) -> Any:
        """The first row of a query, or None."""
        found = self.all(query, values)
        return found[0] if found else None

    def locking(self, table: Query, mode: str, work: Callable[[Any], Value]) -> Value:
        """Run `work` in a transaction that holds a lock on the table; tried again where the lock is not free.

        Each attempt waits for `LOCK_TIMEOUT_MS` at most, so that nobody queues up behind it for longer. A
        lock that readers and writers do not notice is taken first: an autovacuum gives way to it, after
        about a second, and keeps away.

        Raises:
            StoreError: others held the table all the time; it names them.
        """
        until, pause = time.monotonic() + PATIENCE_SECONDS, PAUSE_SECONDS / 10
        try:
            with self.connection(passing=_BUSY) as connection, connection.transaction():
                self.lock(connection, table, "SHARE UPDATE EXCLUSIVE", int(PATIENCE_SECONDS * 1000))
                while True:
                    try:
                        with connection.transaction():
                            self.lock(connection, table, mode)
                            if self._guard is not None:
                                self._guard()
                            return work(connection)
                    except _BUSY:
                        if time.monotonic() > until:
                            raise
                    time.sleep(random.uniform(pause / 2, pause))
                    pause = min(2 * pause, PAUSE_SECONDS)
        except _BUSY:
            raise StoreError(self._locked_by(table)) from None

    @staticmethod
    def lock(connection: Any, table: Query, mode: str, timeout: int = LOCK_TIMEOUT_MS) -> None:
        """Lock the table for the rest of the transaction, or give up after so many milliseconds."""
        connection.execute(f"SET LOCAL lock_timeout = {timeout}")
        connection.execute(text("LOCK TABLE {table} IN " + mode + " MODE", table=table))

    def _locked_by(self, table: Query) -> str:
        name = table.as_string(None)
        rows = self.all(
            "SELECT DISTINCT a.pid, concat_ws(' ', a.backend_type, a.state), now() - a.xact_start "
            "FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE l.relation = %s::regclass AND l.granted AND a.pid <> pg_backend_pid()",
            [name],
        )
        holders = ", ".join(f"process {pid} ({state}, for {age})" for pid, state, age in rows[:5])
        return (
            f"{self.what}: for {PATIENCE_SECONDS:.0f} s no moment came in which table {name} could be locked "
            f"for {LOCK_TIMEOUT_MS} ms; held by {holders or 'others that have gone by now'}; nothing was "
            "changed: end these transactions, or run the same command again at a quieter time"
        )

    def _borrow(self) -> Any:
        while self._idle:
            connection, since = self._idle.pop()
            fresh = time.monotonic() - since < IDLE_SECONDS and not _has_news(connection)
            if fresh or _alive(connection):
                return connection
            connection.close()
        return self._connect()

    def _connect(self) -> Any:
        connection = psycopg.connect(
            self._conninfo, autocommit=True, prepare_threshold=None, fallback_application_name="crossfade"
        )
        connection.execute(_SETTINGS)
        return connection

    def _give_back(self, connection: Any) -> None:
        idle = psycopg.pq.TransactionStatus.IDLE
        if connection.closed or connection.info.transaction_status != idle:
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))

    @contextmanager
    def errors(self, passing: Any = ()) -> Iterator[None]:
        """What psycopg raises becomes one of our errors, except for `passing`."""
        try:
            yield
        except passing:
            raise
        except psycopg.errors.DiskFull:
            raise OutOfSpace(
                f"{self.what}: no space left on the server's disk; nothing that readers see was changed: "
                "free some space and run the same command again"
            ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise StoreError(
                f"{self.what}: {_message(error)}; connect as the owner of the table, "
                "or as a member of the role that owns it"
            ) from None
        except _LOST as error:
            raise StoreError(
                f"{self.what}: no connection, or it was lost ({_message(error)}); what was written is kept: "
                "check the address and the server, then run the same command again"
            ) from None
        except psycopg.Error as error:
            raise StoreError(f"{self.what}: {_message(error)}") from error


_BUSY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_LOST = (psycopg.OperationalError, psycopg.InterfaceError)


def _has_news(connection: Any) -> bool:
    """Whether the server has said something unasked: mostly that it ended the connection."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(0))


def _alive(connection: Any) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def _close(idle: list[tuple[Any, float]]) -> None:
    while idle:
        idle.pop()[0].close()


def _message(error: BaseException) -> str:
    """The first line of what the server says, without passwords."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _PASSWORD.sub(r"\1***", first)
