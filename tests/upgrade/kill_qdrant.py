"""Carries plans out on a Qdrant server behind a socket, and dies: ``kill_qdrant.py SOCKET``.

Reads lines ``PLAN COUNT``. For each, a process of its own goes from wherever the upgrade stands to its
end, unless it is ended, as kill -9 ends it, at the COUNT-th moment before or after something is written
to the server, the ledger or the journal. ``killed`` or ``done`` is printed, ``failed`` for anything else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from faults_network import QdrantRemote

from crossfade.stores import collection_store, qdrant, qdrant_vectors
from crossfade.stores.ledger import Ledger
from crossfade.upgrade import Upgrade
from crossfade.upgrade.journal import Journal

WRITES = ("create_vector_name", "update_collection", "update_vectors", "delete_vector_name")
HOOKS: tuple[tuple[Any, str], ...] = (
    (Journal, "record"),
    (Journal, "move"),
    (Ledger, "put"),
    (collection_store, "write_json"),
    (qdrant_vectors, "write_json"),
)
PART_ROWS = 60
PRELOADED = ("qdrant_client.models", "crossfade.upgrade.strategies.gallery", "crossfade.adapters.ridge")
"""What each process would load for itself."""


class Countdown:
    """Ends the process when it reaches zero."""

    def __init__(self, count: int) -> None:
        self._left = count

    def around(self, honest: Callable[..., Any]) -> Callable[..., Any]:
        """Counts before and after each call."""

        def call(*values: Any, **options: Any) -> Any:
            self._tick()
            made = honest(*values, **options)
            self._tick()
            return made

        return call

    def _tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Remote:
    """The server, reached through a socket."""

    def __init__(self, socket: Path, countdown: Countdown) -> None:
        self._remote, self._countdown = QdrantRemote(socket), countdown

    def __getattr__(self, name: str) -> Any:
        honest = getattr(self._remote, name)
        return self._countdown.around(honest) if name in WRITES else honest


def carry_out(plan: str, countdown: Countdown, socket: Path) -> None:
    """From wherever the upgrade stands to its end."""
    remote = Remote(socket, countdown)
    setattr(qdrant, "client_for", lambda place: remote)  # noqa: B010
    for owner, name in HOOKS:
        setattr(owner, name, countdown.around(getattr(owner, name)))
    upgrade = Upgrade.create(plan)
    steps: dict[str, Callable[[], Any]] = {
        "planned": upgrade.apply,
        "transforming": upgrade.apply,
        "built": lambda: upgrade.verify(samples=50),
        "verified": upgrade.cutover,
        "cut_over": lambda: upgrade.retire(confirm=True),
    }
    while (state := upgrade.status().state.value) != "retired":
        steps[state]()


def main(socket: Path) -> None:
    """Answer every line."""
    collection_store.CollectionStore.part_rows = PART_ROWS
    for module in PRELOADED:
        import_module(module)
    for line in sys.stdin:
        plan, _, count = line.strip().rpartition(" ")
        child = os.fork()
        if not child:
            carry_out(plan, Countdown(int(count)), socket)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        ended = {0: "done", signal.SIGKILL: "killed"}.get(status, "failed")
        print(ended, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
