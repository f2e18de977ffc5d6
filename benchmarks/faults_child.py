"""An operator in a process of its own, who can be killed or stopped at any point of the work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faults_events import Point, Trigger
from faults_galleries import Gallery
from faults_world import carry_on

from crossfade.errors import CrossfadeError
from crossfade.upgrade import State

_PRELOADED = (
    "faiss", "psycopg", "qdrant_client", "chromadb", "pymilvus", "pyarrow.parquet", "faults_child",
)  # fmt: skip
"""Lance is not among them: it must not be forked."""
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Order:
    """What the operator does, and where a signal strikes: at a point, for the `time`-th time.

    Without a point nothing strikes but what others send.
    """

    gallery: Gallery
    plan: Path
    goal: State
    signal: int = signal.SIGKILL
    point: Point | None = None
    time: int = 0


class Operator:
    """Starts a process that carries out an order."""

    def __init__(self, order: Order) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOADED))
        self._mine, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(order, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self._hear("started")

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """Kill -9."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def go_on(self) -> None:
        """After it was stopped."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def stopped(self) -> bool:
        """Wait until it is stopped, or has ended."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                return False
            if state in "TZX":
                return state == "T"
            time.sleep(0.005)
        raise TimeoutError(f"process {self.pid} neither stopped nor ended")

    def end(self) -> str:
        """Wait for the end: killed, finished, or the name of an error that was foreseen.

        Raises:
            RuntimeError: an error that was not foreseen.
        """
        self.process.join(PATIENCE_SECONDS)
        if self.process.is_alive():
            self.kill()
            raise TimeoutError(f"process {self.pid} did not end")
        if self.process.exitcode == -signal.SIGKILL:
            return "killed"
        outcome = self._mine.recv() if self._mine.poll() else f"exit code {self.process.exitcode}"
        if outcome.startswith("unforeseen"):
            raise RuntimeError(outcome)
        return str(outcome)

    def _hear(self, word: str) -> None:
        if not self._mine.poll(PATIENCE_SECONDS):
            raise TimeoutError("the operator's process did not start")
        heard = self._mine.recv()
        assert heard == word, heard


def attempt(gallery: Gallery, plan: Path, goal: State) -> str:
    """Carry on, and say how that ended.

    Raises:
        Exception: that Crossfade did not raise on purpose.
    """
    try:
        carry_on(gallery, plan, goal)
    except CrossfadeError as error:
        return type(error).__name__
    return "finished"


def _work(order: Order, pipe: Connection) -> None:
    def strike() -> None:
        os.kill(os.getpid(), order.signal)

    pipe.send("started")
    trigger: Any = Trigger(order.point or ("", 0, ""), order.time, strike)
    try:
        with trigger:
            outcome = attempt(order.gallery, order.plan, order.goal)
    except BaseException as error:
        outcome = f"unforeseen: {type(error).__name__}: {error}"
    with suppress(OSError):
        pipe.send(outcome)
