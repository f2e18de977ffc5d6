"""One disturbed upgrade after the other, and what must be true after each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from faults_collections import ChromaGallery, MilvusGallery
from faults_galleries import FaissGallery, Gallery, LanceGallery, ParquetGallery
from faults_kinds import (
    ClockJump,
    ConnectionLoss,
    Fault,
    FullDisk,
    Kill,
    Restart,
    Run,
    TornJournal,
    TwoOperators,
)
from faults_processes import ChromaProcess, MilvusProcess
from faults_servers import PgGallery, Postgres, Qdrant, QdrantGallery
from faults_world import GOALS, World, carry_on, close, opened

from crossfade.errors import IllegalTransition
from crossfade.upgrade import State, Upgrade
from crossfade.upgrade import journal as journals

STORES = ("lancedb", "pgvector", "parquet", "faiss", "qdrant", "chroma", "milvus")
EARLIER = {
    "apply": (),
    "verify": ("apply",),
    "cutover": ("verify",),
    "rollback": ("cutover",),
    "forward": ("cutover", "rollback"),
    "retire": ("cutover",),
}
"""What is done before the step that is disturbed."""
OFTEN = ("apply", "apply", "verify", "cutover", "cutover", "rollback", "forward", "retire")
"""Steps are drawn from these: the longest and the most delicate more often."""


@dataclass(frozen=True)
class Result:
    """What became of one run.

    Attributes:
        number: of the run; with the seed it says everything about it.
        outcomes: how the disturbed attempts ended.
        rolled_back_first: whether the way back was taken before the way on.
        problems: what must not be; empty if all is well.
    """

    number: int
    store: str
    fault: str
    step: str
    outcomes: tuple[str, ...]
    state: str
    rolled_back_first: bool
    problems: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """JSON-ready values."""
        return asdict(self)


class Harness:
    """All stores and all faults.

    Args:
        work: folder for everything; its path should be short.
        stores: names of those that are wanted.
    """

    def __init__(self, work: Path, stores: Sequence[str] = STORES) -> None:
        journals.WAIT_SECONDS = 2.0
        self._work = work
        self._disk = FullDisk(work)
        self._ends: list[Callable[[], None]] = [self._disk.close]
        self.faults: tuple[Fault, ...] = (
            Kill(), ConnectionLoss(), Restart(), self._disk, ClockJump(), TornJournal(), TwoOperators(),
        )  # fmt: skip
        try:
            self.worlds = [World(name, self._template(name), work) for name in stores]
        except BaseException:
            self.close()
            raise

    def _template(self, name: str) -> Gallery:
        folder = self._work / name
        if name == "pgvector":
            postgres = Postgres(self._work)
            self._ends.append(postgres.close)
            return PgGallery(folder, postgres, "template_gallery")
        if name == "qdrant":
            qdrant = Qdrant(self._work)
            self._ends.append(qdrant.close)
            return QdrantGallery(folder, qdrant)
        if name == "chroma":
            chroma = ChromaProcess(self._work)
            self._ends.append(chroma.close)
            return ChromaGallery(folder, chroma)
        if name == "milvus":
            milvus = MilvusProcess(self._work)
            self._ends.append(milvus.close)
            return MilvusGallery(folder, milvus)
        kinds: dict[str, type[Gallery]] = {
            "lancedb": LanceGallery,
            "parquet": ParquetGallery,
            "faiss": FaissGallery,
        }
        return kinds[name](folder)

    def close(self) -> None:
        """Stop the servers, unmount the disk."""
        for end in self._ends:
            end()

    def cells(self) -> list[tuple[World, Fault]]:
        """Every fault with every store that it can happen to; those that follow each other differ in both."""
        fitting = [[(world, fault) for world in self.worlds if fault.fits(world)] for fault in self.faults]
        return [
            ours[(turn + place) % len(ours)]
            for turn in range(len(self.worlds))
            for place, ours in enumerate(fitting)
            if turn < len(ours)
        ]

    def runs(self, count: int, seed: int, only: int | None = None) -> Iterator[Result]:
        """So many runs, all kinds equally often; each is drawn from the seed and its own number."""
        cells = self.cells()
        for number in range(count):
            if only in (None, number):
                yield self.run(*cells[number % len(cells)], number, seed)

    def run(self, world: World, fault: Fault, number: int, seed: int) -> Result:
        """One run."""
        generator = random.Random(f"{seed} {number}")
        step, back, started = generator.choice(OFTEN), generator.random() < 0.5, time.perf_counter()
        with fault.copy(world, generator) as (gallery, path):
            for one in EARLIER[step]:
                close(carry_on(gallery, path, GOALS[one]))
            run = Run(world, gallery, path, step, generator)
            state = "unknown"
            try:
                fault.disturb(run)
                state = str(_examine(run))
                _finish(run, back)
            except Exception as error:
                run.problems.append(f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - started
        outcomes, problems = tuple(run.outcomes), tuple(run.problems)
        return Result(
            number, world.name, fault.name, step, outcomes, state, back, problems, round(seconds, 2)
        )


def _examine(run: Run) -> State:
    """Right after the fault: readers see one whole gallery, and the status can be read.

    Where a store says that an instant of the switch has no gallery, the next command has to end it.
    """
    if isinstance(run.gallery, ChromaGallery) and not run.gallery.named():
        run.outcomes.append("no name until the next command")
        run.gallery.open()
    _expect(run, "after the fault", run.world.old, run.world.new)
    return opened(run.gallery, run.plan).status().state


def _finish(run: Run, back: bool) -> None:
    """Back to the old vectors from wherever it stands, on to the new ones, and to the end."""
    gallery, path, world = run.gallery, run.plan, run.world
    if back and _rolled_back(opened(gallery, path)):
        _expect(run, "after the rollback", world.old)
    elif run.goal is State.RETIRED:
        carry_on(gallery, path, State.RETIRED)
    if opened(gallery, path).status().state is not State.RETIRED:
        carry_on(gallery, path, State.CUT_OVER)
        _expect(run, "after going on", world.new)
        carry_on(gallery, path, State.ROLLED_BACK)
        _expect(run, "after rolling back", world.old)
        carry_on(gallery, path, State.CUT_OVER)
    carry_on(gallery, path, State.RETIRED)
    _expect(run, "at the end", world.new)
    if left := sorted(gallery.traces() ^ world.left):
        run.problems.append(f"left behind, or missing: {', '.join(left)}")


def _rolled_back(upgrade: Upgrade) -> bool:
    """Roll back, unless it has been retired, or turns out to have been when its lost end is found."""
    if upgrade.status().state in (State.ROLLED_BACK, State.RETIRED):
        return False
    try:
        upgrade.rollback()
    except IllegalTransition:
        if upgrade.status().state is not State.RETIRED:
            raise
        return False
    return True


def _expect(run: Run, when: str, *galleries: dict[str, str]) -> None:
    """What the application reads is one of these, bit for bit."""
    found = run.gallery.live()
    if found not in galleries:
        known = {"old": run.world.old, "new": run.world.new}
        what = ", ".join(
            f"{name} is {next((one for one, bits in known.items() if bits.get(name) == bits_), 'neither')}"
            for name, bits_ in found.items()
        )
        run.problems.append(f"{when}: {what}")
