"""Carries a plan out and kills itself: ``kill_apply.py PLAN HOOK COUNT [PAUSE]``.

HOOK names what is counted; at the COUNT-th time the process ends as kill -9 ends it. ``never`` runs to
the end of the cutover; ``hold`` stops inside `apply` with the lease held, until it is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from crossfade.stores import lance_parts, lancedb
from crossfade.upgrade import Upgrade
from crossfade.upgrade.journal import Journal

HOOKS: dict[str, tuple[Any, str]] = {
    "part written": (lance_parts, "bring_to_disk"),
    "receipt": (Journal, "record"),
    "state": (Journal, "move"),
    "published": (lancedb.LanceDB, "_merge"),
    "column": (lancedb.LanceDB, "_add_column"),
    "renamed": (lancedb, "rename"),
    "index": (lancedb.LanceDB, "build_index"),
    "shelved": (lancedb.lance_index.IndexShelf, "take"),
    "shelved file": (lancedb.lance_index.IndexShelf, "_write"),
    "put back": (lancedb.lance_index.IndexShelf, "put_back"),
}


class Countdown:
    """Ends the process when it reaches zero."""

    def __init__(self, count: int) -> None:
        self.left = count

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def counted(honest: Callable[..., Any], countdown: Countdown) -> Callable[..., Any]:
    """Counts before and after each call."""

    def call(*args: Any, **options: Any) -> Any:
        countdown.tick()
        made = honest(*args, **options)
        countdown.tick()
        return made

    return call


def main(plan: str, hook: str, count: str, pause: str = "0") -> None:
    countdown = Countdown(int(count))
    if hook in HOOKS:
        owner, name = HOOKS[hook]
        setattr(owner, name, counted(getattr(owner, name), countdown))

    def progress(done: int, total: int) -> None:
        time.sleep(float(pause))
        if hook == "batch":
            countdown.tick()
        if hook == "hold":
            print("held", flush=True)
            time.sleep(600)

    print("started", flush=True)
    upgrade = Upgrade.create(plan)
    while True:
        state = upgrade.status().state.value
        if state in ("planned", "transforming"):
            upgrade.apply(progress)
        elif state == "built":
            upgrade.verify(samples=50)
        elif state == "verified":
            upgrade.cutover(progress)
        else:
            print(state, flush=True)
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
