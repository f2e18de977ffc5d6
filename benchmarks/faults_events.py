"""Points in Crossfade's code at which a fault can strike: every call that it makes, before and after.

A fault that strikes at a random time hits a long computation nearly always, and the few microseconds
between two writes nearly never. So the points of an undisturbed run are recorded, one is drawn among the
different ones, and then one of the times that it is passed.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import crossfade

ROOT = str(Path(crossfade.__file__).parent) + "/"
Point = tuple[str, int, str]
"""File, line and kind of an event: call, return, c_call, c_return."""


class Watch:
    """Calls `passed` with every point that this process passes within the block, in whichever thread."""

    def __init__(self, passed: Callable[[Point], None]) -> None:
        self._passed = passed

    def __enter__(self) -> Watch:
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _event(self, frame: FrameType, kind: str, _: Any) -> None:
        here: FrameType | None = frame
        if not frame.f_code.co_filename.startswith(ROOT):
            here = frame.f_back if kind in ("call", "return") else None
            if here is None or not here.f_code.co_filename.startswith(ROOT):
                return
        assert here is not None
        self._passed((here.f_code.co_filename.removeprefix(ROOT), here.f_lineno, kind))


class Points:
    """How often each point was passed in an undisturbed run."""

    def __init__(self) -> None:
        self._counts: Counter[Point] = Counter()

    def watch(self) -> Watch:
        """Record what is passed in a block."""
        return Watch(self._add)

    def _add(self, point: Point) -> None:
        self._counts[point] += 1

    def __len__(self) -> int:
        return len(self._counts)

    def draw(self, generator: random.Random) -> tuple[Point, int]:
        """A point, and which of the times that it is passed."""
        point = generator.choice(sorted(self._counts))
        return point, generator.randint(1, self._counts[point])


class Trigger(Watch):
    """Calls `strike` once, when `point` is passed for the `time`-th time within the block."""

    def __init__(self, point: Point, time: int, strike: Callable[[], None]) -> None:
        super().__init__(self._count)
        self._point, self._left, self._strike = point, time, strike
        self.struck = False

    def _count(self, point: Point) -> None:
        if point != self._point or self.struck:
            return
        self._left -= 1
        if self._left == 0:
            self.struck = True
            self._strike()
