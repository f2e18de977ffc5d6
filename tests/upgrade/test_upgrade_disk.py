"""A disk that fills up in the middle of `apply`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upgrade_kit import Kit

from crossfade.errors import OutOfSpace
from crossfade.upgrade import State

MESSAGE = r"no space left on the disk; .*free some space and run the same command again"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    kit = Kit(small_disk / "db").create(2000, 10)
    upgrade = kit.upgrade()
    filler = small_disk / "filler"

    def fill(done: int, total: int) -> None:
        if done >= 700 and not filler.exists():
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 4096)
                except OSError:
                    return

    before = kit.dataset.version
    with pytest.raises(OutOfSpace, match=MESSAGE):
        upgrade.apply(fill)
    assert kit.dataset.version == before
    kit.expect_old()
    filler.unlink()
    status = upgrade.status()
    assert status.state is State.TRANSFORMING
    assert 600 <= status.rows_done < 2000
    upgrade.apply()
    assert upgrade.verify().passed
    upgrade.cutover()
    kit.expect_new()


@pytest.mark.parametrize("kind", ["LanceError(IO): No space left on device (os error 28)", 28])
def test_a_full_disk_while_writing_a_part(kit: Kit, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    from lance.file import LanceFileWriter

    honest, left = LanceFileWriter.write_batch, iter(range(6))

    def full(self: Any, batch: Any) -> None:
        if next(left, None) is None:
            raise OSError(kind, "No space left on device") if kind == 28 else OSError(kind)
        honest(self, batch)

    upgrade = kit.upgrade()
    with monkeypatch.context() as patched:
        patched.setattr(LanceFileWriter, "write_batch", full)
        with pytest.raises(OutOfSpace, match=MESSAGE):
            upgrade.apply()
    assert upgrade.status().rows_done == 60
    kit.expect_old()
    upgrade.apply()
    assert upgrade.verify().passed


def test_a_full_disk_while_committing(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    import lance

    upgrade = kit.upgrade()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("LanceError(IO): No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(lance.LanceDataset, "commit", full)
        with pytest.raises(OutOfSpace, match=MESSAGE):
            upgrade.apply()
    kit.expect_old()
    assert upgrade.status().rows_done == 240
    upgrade.apply()
    assert upgrade.verify().passed
