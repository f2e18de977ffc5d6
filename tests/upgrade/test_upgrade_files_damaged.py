"""A new file that was cut short, garbled or deleted: `verify` fails and says so, `apply` mends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import pyarrow.parquet as pq
import pytest
from upgrade_kit import OLD, NewEncoder, adapter, old_vectors, rows

from crossfade.errors import VerificationFailed
from crossfade.upgrade import State, Upgrade, plan

COUNT = 240
Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 50),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "sizes that cannot be": lambda path: path.write_bytes(path.read_bytes()[:4] + b"\x7f" * 4000),
}
REMEDY = (
    "nothing was switched: run crossfade apply again, which writes what is missing, or crossfade rollback"
)


def _parquet(folder: Path) -> str:
    pq.write_table(rows(range(COUNT), old_vectors(range(COUNT))), folder / "items.parquet", row_group_size=50)
    return f"parquet://{folder}/items.parquet#vector"


def _faiss(folder: Path) -> str:
    index = faiss.IndexFlatIP(old_vectors([0]).shape[1])
    index.add(old_vectors(range(COUNT)))
    faiss.write_index(index, str(folder / "items.faiss"))
    return f"faiss://{folder}/items.faiss#vector"


def _lifted(uri: str) -> Upgrade:
    return Upgrade.create(replace(plan(uri, strategy="gallery", adapter=adapter("forward"), old=OLD)))


def _embedded(uri: str) -> Upgrade:
    named: dict[str, Any] = {"encoders": {"items": "python:upgrade_kit:NewEncoder"}, "items": "text"}
    return Upgrade.create(plan(uri, strategy="backfill", old=OLD, encoder=NewEncoder(), **named))


def _new_file(folder: Path) -> Path:
    [found] = [one for one in folder.rglob("vector__next.*") if one.suffix in (".parquet", ".faiss")]
    return found


def _refused(upgrade: Upgrade) -> str:
    with pytest.raises(VerificationFailed) as caught:
        upgrade.verify()
    assert upgrade.status().state is State.BUILT
    message = str(caught.value)
    assert message.startswith(f"{upgrade.store.uri}: checksums: ")
    assert message.endswith(f"; {REMEDY}")
    return message.removeprefix(f"{upgrade.store.uri}: checksums: ").removesuffix(f"; {REMEDY}")


@pytest.mark.parametrize(("make", "begin"), [(_parquet, _lifted), (_parquet, _embedded), (_faiss, _lifted)])
def test_it_is_found_and_mended(tmp_path: Path, make: Any, begin: Any) -> None:
    uri = make(tmp_path)
    upgrade = begin(uri)
    upgrade.apply()
    assert upgrade.verify().passed
    new = _new_file(tmp_path)
    whole = new.read_bytes()
    for damage in DAMAGES.values():
        damage(new)
        assert _refused(Upgrade.open(uri)) == f"file {new.name} has other content than was written"
        upgrade.apply()
        assert new.read_bytes() == whole
    new.unlink()
    assert _refused(Upgrade.open(uri)) == f"file {new.name} is gone"
    upgrade.apply()
    assert new.read_bytes() == whole
    assert upgrade.verify().passed
    assert upgrade.cutover().state is State.CUT_OVER


@pytest.mark.parametrize("make", [_parquet, _faiss])
@pytest.mark.parametrize("damage", ["zeros", "sizes that cannot be"])
def test_a_disk_that_gives_back_something_else_is_found(tmp_path: Path, make: Any, damage: str) -> None:
    """The file looks as it did when it was written."""
    uri = make(tmp_path)
    upgrade = _lifted(uri)
    upgrade.apply()
    new = _new_file(tmp_path)
    _quietly(DAMAGES[damage], new)
    assert _refused(Upgrade.open(uri)).startswith(
        f"file {new.name} cannot be read: {new}: cannot be read as "
    )


def test_pages_of_embedded_vectors_that_cannot_be_decoded_are_found(tmp_path: Path) -> None:
    """Their parts still lie in files of their own, and are as they were written."""
    uri = _parquet(tmp_path)
    upgrade = _embedded(uri)
    upgrade.apply()
    new = _new_file(tmp_path)
    whole = new.read_bytes()
    start = pq.ParquetFile(new).metadata.row_group(2).column(1).data_page_offset

    def garble(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:start] + b"\xff" * 200 + content[start + 200 :])

    _quietly(garble, new)
    with pytest.raises(VerificationFailed, match=rf"vectors: {new}: cannot be read as Parquet: .*; {REMEDY}"):
        Upgrade.open(uri).verify()
    assert upgrade.status().state is State.BUILT
    upgrade.apply()
    assert new.read_bytes() == whole


def test_a_part_of_embedded_vectors_is_embedded_again(tmp_path: Path) -> None:
    uri, again = _parquet(tmp_path), NewEncoder()
    upgrade = _embedded(uri)
    upgrade.apply()
    [part] = tmp_path.rglob("*.npy")
    whole = part.read_bytes()
    _quietly(DAMAGES["zeros"], part)
    assert _refused(Upgrade.open(uri)) == f"file {part.name} has other content than was written"
    upgrade.apply(encoder=again)
    assert len(again.embedded) == COUNT
    assert part.read_bytes() == whole
    assert upgrade.verify().passed


def _quietly(damage: Damage, path: Path) -> None:
    """Damage a file that keeps its size and its times."""
    before, size = path.stat(), path.stat().st_size
    damage(path)
    os.truncate(path, size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
