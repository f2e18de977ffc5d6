"""One writer at a time: a lease that dies with its holder.

No clock decides whether a holder lives, since clocks jump. A process of this machine is asked for by its
number. One that cannot be asked (of another machine, or of another container) is watched: its lease is a
number that it raises every few seconds, and it is taken for dead when the number stands still for a minute.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from crossfade.errors import StoreError, UpgradeLocked

SILENCE = 60.0
"""Seconds without a sign of life after which a holder that cannot be asked is taken for dead."""
HEARTBEAT = 10.0
WATCH = 0.5
_HELD: set[str] = set()
"""Tokens that this process holds; one that could not be given back, on a full disk, is not among them."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as it is recorded.

    Attributes:
        token: of whoever took it.
        who: the process: host, place, pid, start, action.
        beat: raised by every sign of life.
    """

    token: str
    who: dict[str, Any]
    beat: int


class Record(Protocol):
    """Where a lease is recorded, for all who might want it."""

    def held(self) -> Held | None:
        """The lease as it is now."""

    def take(self, token: str, who: dict[str, Any], instead: Held | None) -> bool:
        """Record a new holder, unless somebody else than `instead` is recorded by then."""

    def renew(self, token: str) -> bool:
        """Raise the number of a token's lease; False if it is somebody else's by now."""

    def release(self, token: str) -> None:
        """Remove the lease of a token."""


def process_start(pid: int) -> str:
    """When a process started, so that a recycled process id is not taken for its first owner."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def place() -> str:
    """Where process ids mean the same: a run of a machine, and the container in it.

    Names of hosts do not tell: containers share one, and many machines are called localhost.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def holder(action: str) -> dict[str, Any]:
    """This process, as others are told about it."""
    pid, host = os.getpid(), socket.gethostname()
    return {"host": host, "place": place(), "pid": pid, "start": process_start(pid), "action": action}


def is_dead(held: Held) -> bool | None:
    """Whether the holder has ended; None where it cannot be asked."""
    who = held.who
    if who["place"] != place():
        return None
    if who["pid"] == os.getpid() and who["start"] == process_start(os.getpid()):
        return held.token not in _HELD
    try:
        os.kill(who["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(who["start"] != process_start(who["pid"]))


class Lease:
    """Holds the right to write to an upgrade, and gives signs of life from a thread.

    Args:
        record: where leases are recorded.
        action: what it is held for.

    Raises:
        UpgradeLocked: on entry, if another process holds it.
    """

    def __init__(self, record: Record, action: str) -> None:
        self.token = uuid.uuid4().hex
        self._record, self._action = record, action
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="crossfade-lease", daemon=True)

    def __enter__(self) -> Lease:
        held = self._record.held()
        if held is not None and not self._is_over(held):
            raise UpgradeLocked(locked_by(held.who))
        if not self._record.take(self.token, holder(self._action), held):
            now = self._record.held()
            raise UpgradeLocked(locked_by(now.who if now else holder(self._action)))
        _HELD.add(self.token)
        self._thread.start()
        return self

    def _is_over(self, held: Held) -> bool:
        dead = is_dead(held)
        return self._falls_silent(held) if dead is None else dead

    def _falls_silent(self, held: Held) -> bool:
        """Watch a holder that cannot be asked, until it gives a sign of life or has given none for long."""
        until = time.monotonic() + SILENCE
        while time.monotonic() < until:
            time.sleep(WATCH)
            now = self._record.held()
            if now != held:
                return now is None
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        _HELD.discard(self.token)
        with suppress(
            StoreError
        ):  # a full disk must not hide what happened; nobody waits for a token not held
            self._record.release(self.token)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            if not self._record.renew(self.token):
                return


def locked_by(who: dict[str, Any]) -> str:
    """The message for those who come second."""
    return (
        f"another process is working on this upgrade: {who['action']} by process {who['pid']} on "
        f"{who['host']}; wait until it has finished (crossfade status), or end it: what it did is kept"
    )
