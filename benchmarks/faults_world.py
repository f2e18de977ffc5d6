"""One store, the upgrade of a gallery in it, and what comes of that when nothing disturbs it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from faults_events import Points
from faults_galleries import OLD, Bits, Gallery, adapter

from crossfade.upgrade import Plan, State, Upgrade, plan

GOALS = {
    "apply": State.BUILT,
    "verify": State.VERIFIED,
    "cutover": State.CUT_OVER,
    "rollback": State.ROLLED_BACK,
    "forward": State.CUT_OVER,
    "retire": State.RETIRED,
}
"""The steps of an upgrade in their order, and the state that each leads to."""
SAMPLES = 40


class World:
    """A store to disturb.

    Args:
        template: the gallery, not made yet.
        work: folder for copies of it.

    Attributes:
        old, new: what the application reads before a cutover, and after one.
        points: where a fault can strike, by step.
        seconds: that a step takes, by step.
        left: what is in the store's place after `retire`.
    """

    def __init__(self, name: str, template: Gallery, work: Path) -> None:
        self.name, self._template, self._work = name, template, work
        self._numbers = itertools.count()
        self.points = {step: Points() for step in GOALS}
        self.seconds: dict[str, float] = {}
        template.create()
        folder = work / f"{name}-adapter"
        adapter().save_pretrained(folder)
        self._plan = replace(plan(template.open(), strategy="gallery", adapter=folder, old=OLD), batch_rows=8)
        self.old: Bits = template.live()
        self.new: Bits = {}
        self.left: set[str] = set()
        self._undisturbed()

    def _undisturbed(self) -> None:
        with self.copy() as (gallery, path):
            for step, goal in GOALS.items():
                started = time.perf_counter()
                with self.points[step].watch():
                    carry_on(gallery, path, goal)
                self.seconds[step] = time.perf_counter() - started
                if step == "cutover":
                    self.new = gallery.live()
                expected = self.old if goal in (State.BUILT, State.VERIFIED, State.ROLLED_BACK) else self.new
                if gallery.live() != expected:
                    raise RuntimeError(f"{self.name}: {step} does the same thing differently when repeated")
            self.left = gallery.traces()

    @contextmanager
    def copy(
        self, folder: Path | None = None, gallery: Gallery | None = None
    ) -> Iterator[tuple[Gallery, Path]]:
        """A copy of the gallery that nobody has upgraded, and a plan for it; both are deleted at the end."""
        made = gallery or self._template.copy(folder or self.folder())
        path = self.folder().with_suffix(".json")
        try:
            store = made.open()
            replace(self._plan, store=store.uri, found=store.describe()).save(path)
            yield made, path
        finally:
            made.remove()
            path.unlink(missing_ok=True)

    def folder(self) -> Path:
        """A name that is still free."""
        return self._work / f"{self.name}{next(self._numbers)}"

    @property
    def template(self) -> Gallery:
        """The gallery that is copied."""
        return self._template


def opened(gallery: Gallery, path: Path) -> Upgrade:
    """The upgrade as an operator finds it."""
    return Upgrade.create(Plan.load(path), store=gallery.open())


def carry_on(gallery: Gallery, path: Path, goal: State) -> Upgrade:
    """Go on from wherever the upgrade stands, until it has reached `goal`."""
    upgrade = opened(gallery, path)
    while True:
        status = upgrade.status()
        state = status.state
        if status.interrupted:
            _repeat(upgrade, status.interrupted)
        elif state is goal:
            break
        elif goal is State.ROLLED_BACK:
            upgrade.rollback()
        elif goal is State.RETIRED:
            upgrade.retire(confirm=True)
        elif state in (State.PLANNED, State.TRANSFORMING):
            upgrade.apply()
        elif state is State.BUILT:
            upgrade.verify()
        elif state is State.ROLLED_BACK and not _was_verified(upgrade):
            upgrade.apply()
        elif goal is State.CUT_OVER and state in (State.VERIFIED, State.ROLLED_BACK):
            upgrade.cutover()
        else:  # it has gone further than that
            break
    return upgrade


def _repeat(upgrade: Upgrade, step: str) -> None:
    """What the status tells to do."""
    if step == "retire":
        upgrade.retire(confirm=True)
    else:
        getattr(upgrade, step)()


def _was_verified(upgrade: Upgrade) -> bool:
    return any(one.target == State.VERIFIED.value for one in upgrade.status().history)


def close(upgrade: Upgrade) -> None:
    """As the end of a process does; SQLite then folds its log into the journal."""
    upgrade._journal.close()
