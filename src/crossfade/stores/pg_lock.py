"""One upgrade of a column at a time, on whichever machine it runs: an advisory lock of the server.

The lock belongs to a connection that does nothing else, outside of any transaction, so that neither VACUUM
nor an index build waits for it. The server gives it back as soon as it sees the connection end: at once if
the process dies, after about a minute if its machine does.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from crossfade.errors import UpgradeLocked
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import psycopg

PATIENCE_SECONDS = 1.0
_LIMITS = {
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_SETTING = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"
_HOLDER = """
SELECT a.pid, a.application_name, a.client_addr::text FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = %s
"""


@contextmanager
def alone(server: Server, oid: int, column: str, action: str) -> Iterator[None]:
    """Hold the lock on a column's upgrades for the length of the block.

    Within it, `Server.locking` changes nothing unless the lock is still held, or free to be taken again
    after its connection was lost.

    Raises:
        UpgradeLocked: another process holds it; it names that process.
    """
    lock = _Lock(server, lock_key(oid, column), action)
    lock.take()
    try:
        with server.guarded(lock.check):
            yield
    finally:
        lock.release()


def lock_key(oid: int, column: str) -> int:
    """A signed 64-bit number that stands for the column, also after a switch."""
    digest = hashlib.sha256(f"crossfade {oid} {column}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class _Lock:
    """The lock, and the connection that it belongs to."""

    def __init__(self, server: Server, key: int, action: str) -> None:
        self._server, self._key = server, key
        # As it is shown to others; the server keeps 63 bytes.
        self._name = f"crossfade {action}, process {os.getpid()} on {socket.gethostname()}"[:63]
        self._connection: Any = None

    def take(self) -> None:
        self._connection = self._server.connect()
        with self._server.errors():
            for name, value in {**_LIMITS, "application_name": self._name}.items():
                self._connection.execute(_SETTING, [value, name])
            if self._locked():
                return
            found = self._connection.execute(_HOLDER, [self._key]).fetchone()
        self.release()
        raise UpgradeLocked(_locked_by(self._server.what, found))

    def _locked(self) -> bool:
        """Whether the lock is ours; the server needs a moment to see that a process has died."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._connection.execute("SELECT pg_try_advisory_lock(%s)", [self._key]).fetchone()[0]:
            if time.monotonic() > until:
                return False
            time.sleep(PATIENCE_SECONDS / 20)
        return True

    def check(self) -> None:
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            self.release()
            self.take()

    def release(self) -> None:
        self._connection.close()


def _locked_by(what: str, found: tuple[int, str, str | None] | None) -> str:
    if found is None:
        return f"{what}: another process was working on this upgrade; run the same command again"
    pid, name, address = found
    return (
        f"{what}: another process is working on this upgrade: {name}, connected from "
        f"{address or 'the machine of the server'} as backend {pid}; wait until it has finished, or end it: "
        "what it did is kept"
    )
