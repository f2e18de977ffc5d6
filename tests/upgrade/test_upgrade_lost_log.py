"""A crash that takes the journal's log along: the status still says that readers may have been moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from upgrade_kit import Kit

from crossfade.errors import StoreError
from crossfade.upgrade import State, Upgrade


@pytest.mark.parametrize(
    ("step", "moves", "state"),
    [
        ("cutover", "switch_pausing", State.CUT_OVER),
        ("rollback", "switch_back", State.ROLLED_BACK),
        ("retire", "drop_old", State.RETIRED),
    ],
)
def test_what_was_begun_is_known_without_the_log(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, step: str, moves: str, state: State
) -> None:
    upgrade = kit.upgrade()
    for earlier in ("apply", "verify", "cutover")[: 2 if step == "cutover" else 3]:
        getattr(upgrade, earlier)()
    honest = getattr(upgrade.store, moves)

    def die(*values: Any, **options: Any) -> None:
        honest(*values, **options)
        raise StoreError("the machine stopped")

    monkeypatch.setattr(upgrade.store, moves, die)
    confirmed = {"confirm": True} if step == "retire" else {}
    with pytest.raises(StoreError, match="machine stopped"):
        getattr(upgrade, step)(**confirmed)
    path = upgrade._journal.path
    kept = path.read_bytes()
    upgrade._journal.close()
    _without_log(path, kept)
    found = Upgrade.open(kit.uri)
    status = found.status()
    assert status.interrupted == step
    assert status.state is not state
    assert getattr(found, step)(**confirmed).state is state
    kit.expect_old() if step == "rollback" else kit.expect_new()


def _without_log(path: Path, kept: bytes) -> None:
    """The journal as it is without its log."""
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.write_bytes(kept)
