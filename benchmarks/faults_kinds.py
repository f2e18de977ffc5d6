"""What can go wrong, one class each: it strikes at a random point, and is mended afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults_child import Operator, Order, attempt
from faults_collections import CollectionGallery
from faults_events import Trigger
from faults_galleries import Gallery
from faults_servers import PgGallery, QdrantGallery
from faults_world import GOALS, World

from crossfade.errors import CrossfadeError, UpgradeError, UpgradeLocked
from crossfade.upgrade import State, Upgrade
from crossfade.upgrade.journal import Journal

MOST_STRIKES = 3
STATUS_SECONDS = 5
HOURS = (-72.0, -1.0, -0.05, 0.05, 1.0, 72.0)


@dataclass
class Run:
    """One upgrade that is disturbed in one step.

    Attributes:
        outcomes: how each disturbed attempt ended.
        problems: what must not be.
    """

    world: World
    gallery: Gallery
    plan: Path
    step: str
    generator: random.Random
    outcomes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def goal(self) -> State:
        """The state that the step leads to."""
        return GOALS[self.step]

    def struck(self, strike: Callable[[], None]) -> None:
        """Carry on in this process, with a strike at a random point."""
        point, number = self.world.points[self.step].draw(self.generator)
        trigger = Trigger(point, number, strike)
        try:
            with trigger:
                outcome = attempt(self.gallery, self.plan, self.goal)
        except Exception as error:
            outcome = "traceback"
            self.problems.append(f"{type(error).__name__} at {point}: {error}")
        self.outcomes.append(outcome if trigger.struck else "missed")

    def operator(self, number: int, **options: Any) -> Operator:
        """Another process that carries on; by default with a signal at a random point."""
        point, times = self.world.points[self.step].draw(self.generator)
        return Operator(Order(self.gallery, self.plan, self.goal, number, point, times, **options))

    def ended(self, operator: Operator) -> str:
        """How another process ended."""
        try:
            return operator.end()
        except RuntimeError as error:
            self.problems.append(str(error))
            return "traceback"


class Fault(ABC):
    """Something that goes wrong."""

    name: str

    def fits(self, world: World) -> bool:
        """Whether it can happen to this store."""
        return True

    @contextmanager
    def copy(self, world: World, generator: random.Random) -> Iterator[tuple[Gallery, Path]]:
        """The gallery that is disturbed."""
        with world.copy() as made:
            yield made

    @abstractmethod
    def disturb(self, run: Run) -> None:
        """Let the step run into it, once or more often."""


class Kill(Fault):
    """Kill -9, up to three times in a row: at a point of the code, or after a time."""

    name = "kill -9"

    def disturb(self, run: Run) -> None:
        for _ in range(run.generator.randint(1, MOST_STRIKES)):
            if run.generator.random() < 0.6:
                outcome = run.ended(run.operator(signal.SIGKILL))
            else:
                operator = Operator(Order(run.gallery, run.plan, run.goal))
                time.sleep(run.generator.uniform(0, run.world.seconds[run.step]))
                operator.kill()
                outcome = run.ended(operator)
            run.outcomes.append("missed" if outcome == "finished" else outcome)


class ConnectionLoss(Fault):
    """The connection is cut, before a request, between request and answer, or by the server."""

    name = "connection loss"

    def fits(self, world: World) -> bool:
        return isinstance(world.template, (PgGallery, QdrantGallery, CollectionGallery))

    def disturb(self, run: Run) -> None:
        gallery = run.gallery
        assert isinstance(gallery, (PgGallery, QdrantGallery, CollectionGallery))
        proxy = gallery.server.proxy
        ways: list[Callable[[], None]] = [
            proxy.cut,
            lambda: proxy.cut(closed=run.generator.uniform(0.05, 0.5)),
            proxy.lose_answers,
        ]
        if isinstance(gallery, PgGallery):
            server, database = gallery.server, gallery.database
            ways.append(lambda: server.end_backends(database))
        for _ in range(run.generator.randint(1, MOST_STRIKES)):
            run.struck(run.generator.choice(ways))
            proxy.heal()
            if isinstance(gallery, CollectionGallery):
                gallery.wait()


class Restart(Fault):
    """The server stops without finishing anything, and comes back at once or a little later."""

    name = "server restart"

    def fits(self, world: World) -> bool:
        return isinstance(world.template, (PgGallery, CollectionGallery))

    def disturb(self, run: Run) -> None:
        assert isinstance(run.gallery, (PgGallery, CollectionGallery))
        server, later = run.gallery.server, run.generator.random() < 0.5

        def strike() -> None:
            server.stop()
            if not later:
                server.start()

        run.struck(strike)
        server.start()
        if isinstance(run.gallery, CollectionGallery):
            run.gallery.wait()


class FullDisk(Fault):
    """A small disk that something else fills up: the table's own, or that of the journal."""

    name = "full disk"
    SIZE = 48 << 20

    def __init__(self, work: Path) -> None:
        self._disk, self._filler = work / "disk", work / "disk" / "filler"
        self._mounted = False

    def fits(self, world: World) -> bool:
        if not self._mounted:
            self._disk.mkdir(exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "tmpfs", str(self._disk)]
            with suppress(OSError):
                self._mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return self._mounted

    def close(self) -> None:
        """Unmount the disk."""
        if self._mounted:
            subprocess.run(["umount", "-l", str(self._disk)], check=True)
            self._mounted = False

    @contextmanager
    def copy(self, world: World, generator: random.Random) -> Iterator[tuple[Gallery, Path]]:
        template, tablespace = world.template, isinstance(world.template, PgGallery)
        if tablespace and generator.random() < 0.5:
            assert isinstance(template, PgGallery)
            with self._tablespace(template) as name:
                gallery = template.copy_to(world.folder(), name)
                with world.copy(gallery=gallery) as made:
                    yield made
            return
        with world.copy(self._disk / "copy") as made:
            yield made

    @contextmanager
    def _tablespace(self, template: PgGallery) -> Iterator[str]:
        place = self._disk / "space"
        place.mkdir()
        shutil.chown(place, template.server.user)
        with template.server.connect("postgres") as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        try:
            yield "small"
        finally:
            with template.server.connect("postgres") as connection:
                connection.execute("DROP TABLESPACE small")
            shutil.rmtree(place)

    def disturb(self, run: Run) -> None:
        def strike() -> None:
            left = run.generator.choice([0, 0, 4096, 1 << 14, 1 << 16])
            with self._filler.open("wb", buffering=0) as file, suppress(OSError):
                while shutil.disk_usage(self._disk).free > left:
                    file.write(bytes(min(1 << 16, shutil.disk_usage(self._disk).free - left)))

        run.struck(strike)
        self._filler.unlink(missing_ok=True)


class ClockJump(Fault):
    """The clock jumps by up to three days, while others look whether the upgrade is free, or after a kill."""

    name = "clock jump"

    def disturb(self, run: Run) -> None:
        hours = run.generator.choice(HOURS)
        if run.generator.random() < 0.5:
            with clock() as jump:
                run.struck(lambda: self._look(run, jump, hours))
            return
        run.outcomes.append(run.ended(run.operator(signal.SIGKILL)))
        with clock() as jump:
            jump(hours)
            started = time.monotonic()
            outcome = attempt(run.gallery, run.plan, run.goal)
            if outcome != "finished":
                run.problems.append(
                    f"{hours:+} h after a kill: {outcome} after {time.monotonic() - started:.0f} s"
                )

    @staticmethod
    def _look(run: Run, jump: Callable[[float], None], hours: float) -> None:
        """A live holder keeps its lease, whatever the clock says."""
        path = run.gallery.journal()
        if not path.exists():
            return jump(hours)
        before = Journal(path).holder()
        jump(hours)
        if before is None or Journal(path).holder() is None:
            return None
        try:
            with Journal(path).lease("another"):
                run.problems.append(f"a live holder's lease was taken when the clock jumped by {hours:+} h")
        except UpgradeLocked:
            pass
        except CrossfadeError as error:
            if "locked" not in str(error):  # stopped within a transaction
                raise
        return None


@contextmanager
def clock() -> Iterator[Callable[[float], None]]:
    """Yields what sets this process's clock by so many hours.

    gRPC hands points in time to its core, which asks the machine's own clock; it is not deceived.
    """
    honest, offset = time.time, [0.0]

    def jump(hours: float) -> None:
        offset[0] = hours * 3600

    def told() -> float:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        return honest() + (0.0 if caller.startswith("grpc.") else offset[0])

    time.time = told
    try:
        yield jump
    finally:
        time.time = honest


class TornJournal(Fault):
    """After a kill the journal's log is not what was written: cut off, garbled, followed by dirt."""

    name = "torn journal"

    def disturb(self, run: Run) -> None:
        run.outcomes.append(run.ended(run.operator(signal.SIGKILL)))
        path = run.gallery.journal()
        log = path.with_name(path.name + "-wal")
        if not log.exists() or not log.stat().st_size:
            run.outcomes.append("no log")
            return
        content = bytearray(log.read_bytes())
        last = max(32, len(content) - 4096 - 24)
        match run.generator.randint(1, 4):
            case 1:
                content = content[: run.generator.randrange(last, len(content))]
            case 2:
                for place in run.generator.sample(range(last, len(content)), 64):
                    content[place] ^= 1 + run.generator.randrange(255)
            case 3:
                content += run.generator.randbytes(run.generator.randrange(1, 9000))
            case 4:
                content = content[: run.generator.randrange(32, len(content))]
        log.write_bytes(content)
        if run.generator.random() < 0.5:
            path.with_name(path.name + "-shm").unlink(missing_ok=True)
        run.outcomes.append("torn")


class TwoOperators(Fault):
    """A second operator comes while the first stands still; then the first goes on, or is dead."""

    name = "two operators"

    def disturb(self, run: Run) -> None:
        first = run.operator(signal.SIGSTOP)
        if not first.stopped():
            run.outcomes.append("missed" if run.ended(first) == "finished" else "error")
            return
        try:
            self._second(run, first)
        finally:
            first.kill() if run.generator.random() < 0.5 else first.go_on()
            run.outcomes.append(f"first {run.ended(first)}")

    @staticmethod
    def _second(run: Run, first: Operator) -> None:
        path = run.gallery.journal()
        held = Journal(path).holder() if path.exists() and _has_tables(path) else None
        if held is not None and held["pid"] != first.pid:
            run.problems.append(f"process {first.pid} is at work, and {held['pid']} is named")
        before = None
        if held is not None:
            started = time.monotonic()
            before = _state(run)
            if time.monotonic() - started > STATUS_SECONDS:
                run.problems.append(f"status took {time.monotonic() - started:.1f} s")
        outcome = attempt(run.gallery, run.plan, run.goal)
        if before not in (None, run.goal) and outcome == "finished":
            run.problems.append(f"a second operator was let in, from {before}")
        run.outcomes.append(f"second {outcome}")


def _state(run: Run) -> State:
    """As anybody may ask for it; while the upgrade is entered into the journal there is none of it yet."""
    try:
        return Upgrade.open(run.gallery.open()).status().state
    except UpgradeError:
        return State.PLANNED


def _has_tables(path: Path) -> bool:
    with suppress(sqlite3.Error), sqlite3.connect(path) as connection:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0])
    return False
