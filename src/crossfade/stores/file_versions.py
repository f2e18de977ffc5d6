"""The versions of a file of vectors: the one in use under its own name, others in a folder beside it.

Readers open a file by its name, so the switch exchanges two names. The version that leaves the name
is kept, whoever wrote it last: nothing that another program wrote is ever overwritten.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from crossfade.spaces import Space
from crossfade.stores.durable import exchange, read_json, restore_exchange, write_json
from crossfade.stores.file_content import identity, quick_identity
from crossfade.stores.records import Staged
from crossfade.vectors.writing import full_disk_as_error, sync

DRAFT = ".new"


class Versions:
    """Versions of the vectors `column` of the file at `live`.

    Everything is under `.crossfade/FILE.COLUMN` beside the file: other versions by the names that
    their vectors have, and `spaces.json`, which says what space each is in.
    """

    def __init__(self, live: Path, column: str) -> None:
        self.live = live
        self.neighbourhood = live.parent / ".crossfade"
        self.folder = self.neighbourhood / file_name(f"{live.name}.{column}")
        self._facts = self.folder / "spaces.json"
        self._swap, self._spare = self.folder / "swap", self.folder / "spare"
        self._marker = self.folder / "swap.json"

    def place(self, name: str) -> Path:
        """File of the vectors called `name`, while they are not in use."""
        return self.folder / f"{file_name(name)}{self.live.suffix}"

    # --- spaces -------------------------------------------------------------------------------

    def record(self, space: Space) -> None:
        """Note the space of the vectors in use when no upgrade is under way."""
        write_json(self._facts, {**self._read(), "space": space.to_dict()})

    def begin(self, staged: Staged) -> None:
        """Note an upgrade whose vectors are about to lie beside those in use."""
        spaces = {"old": staged.old.to_dict(), "new": staged.new.to_dict()}
        names = {"name": staged.name, "previous": staged.previous}
        facts = {**self._read(), "staged": {**names, **spaces}}
        if facts != self._read():
            write_json(self._facts, {"space": spaces["old"], **facts})

    def end(self, staged: Staged) -> None:
        """Note that only the vectors in use are left."""
        in_use = staged.new if self.switched(staged) else staged.old
        if self._facts.exists():
            write_json(self._facts, {"space": in_use.to_dict()})

    def space(self, name: str | None = None) -> Space | None:
        """Space of the vectors in use, or of those called `name`."""
        facts = self._read()
        staged = facts.get("staged")
        if staged is None:
            found = facts.get("space") if name is None else None
        elif name is None:
            found = staged["new"] if self._is_switched(staged["previous"]) else staged["old"]
        else:
            found = {staged["name"]: staged["new"], staged["previous"]: staged["old"]}.get(name)
        return Space.from_dict(found) if found else None

    def _read(self) -> dict[str, Any]:
        return read_json(self._facts) or {}

    # --- switching ----------------------------------------------------------------------------

    def switched(self, staged: Staged) -> bool:
        """Whether the new vectors are in use."""
        return self._is_switched(staged.previous)

    def _is_switched(self, previous: str) -> bool:
        if self.place(previous).exists():
            return True
        marker = read_json(self._marker)
        if marker is None or not (self._swap.exists() or self._spare.exists()):
            return self.place(previous).exists()
        return self._swapped(marker) is bool(marker["out"] == previous)

    def _swapped(self, marker: dict[str, str]) -> bool:
        """Whether an exchange that is not tidied up yet has taken place."""
        try:
            return quick_identity(self._swap) != marker["identity"]
        except FileNotFoundError:
            return self._spare.exists()

    def exchange(self, incoming: str, outgoing: str, expected: str | None = None) -> bool:
        """Put the vectors called `incoming` in use and keep those in use as `outgoing`.

        Args:
            expected: identity that the file in use must have at the moment of the exchange.

        Returns:
            False, with everything as before, if it was another.
        """
        self.settle()
        source = self.place(incoming)
        marker = {"identity": identity(source), "in": incoming, "out": outgoing}
        write_json(self._marker, marker)
        source.replace(self._swap)
        exchange(self._swap, self.live, self._spare)
        met = expected is None or quick_identity(self._swap) == expected
        if not met:
            exchange(self._swap, self.live, self._spare)
        sync(self.live.parent)
        self.settle()
        return met

    def settle(self) -> None:
        """Finish what a crash during an exchange left half done."""
        marker = read_json(self._marker)
        if marker is None:
            return
        restore_exchange(self._swap, self._spare)
        if self._swap.exists():
            self._swap.replace(self.place(marker["out" if self._swapped(marker) else "in"]))
            sync(self.folder)
        self._marker.unlink()

    # --- tidying ------------------------------------------------------------------------------

    @contextmanager
    def draft(self, target: Path, what: str, rows: int) -> Iterator[Path]:
        """A file that becomes `target` once it is whole and on disk; one that fails is deleted.

        Raises:
            OutOfSpace: the disk is full; it names `what` and `rows`.
        """
        draft = target.with_suffix(DRAFT)
        try:
            with full_disk_as_error(what, rows):
                yield draft
                shutil.copymode(self.live, draft)
                sync(draft)
                draft.replace(target)
                sync(target.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        """Delete drafts that a killed process left; nobody else may be at work."""
        for draft in self.folder.glob(f"*{DRAFT}"):
            draft.unlink(missing_ok=True)

    def drop(self, *names: str) -> None:
        """Delete versions, and folders that are then empty."""
        for name in names:
            self.place(name).unlink(missing_ok=True)
        for folder in (self.folder, self.neighbourhood):
            with suppress(OSError):
                folder.rmdir()


def file_name(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe=" ")


def remove_folder(folder: Path) -> None:
    """Delete a folder of an upgrade, and the one above it if it is then empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()
