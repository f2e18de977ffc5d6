"""One writer at a time: a lease that dies with its holder."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from crossfade.errors import StoreError, UpgradeLocked

SECONDS = 60.0
HEARTBEAT = 10.0
_HELD: set[str] = set()
"""Tokens that this process holds; one that could not be given back, on a full disk, is not among them."""


def process_start(pid: int) -> str:
    """When a process started, so that a recycled process id is not taken for its first owner."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def holder(action: str) -> dict[str, Any]:
    """This process, as others are told about it."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "start": process_start(pid), "action": action}


def is_dead(who: dict[str, Any], token: str) -> bool:
    """Whether the holder is known to have ended: only its own host can tell."""
    if who["host"] != socket.gethostname():
        return False
    if who["pid"] == os.getpid() and who["start"] == process_start(os.getpid()):
        return token not in _HELD
    try:
        os.kill(who["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(who["start"] != process_start(who["pid"]))


class Lease:
    """Holds the right to write to an upgrade, and renews it from a thread.

    Args:
        take: stores token, holder and expiry unless a live holder is there; returns that holder.
        renew: extends the lease of a token; False if it is somebody else's by now.
        release: gives the lease of a token back.
        action: what it is held for.

    Raises:
        UpgradeLocked: on entry, if another process holds it.
    """

    def __init__(
        self,
        take: Callable[[str, str, float], str | None],
        renew: Callable[[str, float], bool],
        release: Callable[[str], None],
        action: str,
    ) -> None:
        self.token = uuid.uuid4().hex
        self._take, self._renew, self._release, self._action = take, renew, release, action
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="crossfade-lease", daemon=True)

    def __enter__(self) -> Lease:
        other = self._take(self.token, json.dumps(holder(self._action)), time.time() + SECONDS)
        if other is not None:
            raise UpgradeLocked(locked_by(json.loads(other)))
        _HELD.add(self.token)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        _HELD.discard(self.token)
        with suppress(
            StoreError
        ):  # a full disk must not hide what happened; nobody waits for a token not held
            self._release(self.token)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            if not self._renew(self.token, time.time() + SECONDS):
                return


def locked_by(who: dict[str, Any]) -> str:
    """The message for those who come second."""
    return (
        f"another process is working on this upgrade: {who['action']} by process {who['pid']} on "
        f"{who['host']}; wait until it has finished (crossfade status), or end it: what it did is kept"
    )
