"""Lifts of files, which are written once: killed, interrupted, on a full disk, damaged, under writers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upgrade_kit import OLD, NewEncoder, adapter, new_vectors, old_vectors, rows

from crossfade.errors import Interrupted, OutOfSpace, VerificationFailed
from crossfade.stores.files import FileStore
from crossfade.upgrade import Plan, State, Upgrade, plan

COUNT = 400
PARTS = 4
SCRIPT = Path(__file__).with_name("kill_apply.py")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileStore, "part_rows", COUNT // PARTS)


def _write(path: Path, ids: range | list[int], vectors: np.ndarray | None = None) -> None:
    draft = path.with_suffix(".draft")
    pq.write_table(rows(ids, old_vectors(ids) if vectors is None else vectors), draft, row_group_size=30)
    draft.replace(path)


def _plan(path: Path, strategy: str = "gallery", **options: object) -> Plan:
    made = plan(
        f"{path.suffix[1:]}://{path}#vector",
        strategy=strategy,
        old=OLD,
        **options,  # type: ignore[arg-type]
    )
    return replace(made, batch_rows=25)


def _lift(path: Path) -> Plan:
    return _plan(path, adapter=adapter("forward"))


def _read(path: Path) -> np.ndarray:
    found = pq.read_table(path).sort_by("id")
    return np.array(found.column("vector").to_pylist(), dtype=np.float32)


def _drafts(folder: Path) -> list[Path]:
    return [one for one in folder.rglob("*") if one.suffix in (".new", ".npy")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "items.parquet"
    _write(made, range(COUNT))
    return made


def _run(plan: Path, hook: str, count: int) -> bool:
    """Carry a plan out in a process that kills itself; whether it came to that."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent), *sys.path])
    command = [sys.executable, str(SCRIPT), str(plan), hook, str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def _finish(upgrade: Upgrade) -> None:
    upgrade.apply()
    assert upgrade.verify().passed
    upgrade.cutover()


@pytest.mark.parametrize(
    ("suffix", "kills"),
    [(".parquet", [("batch", 60), ("receipt", 1), ("receipt", 6)]), (".faiss", [("batch", 60)])],
)
def test_killed_in_the_middle_it_ends_in_the_same_bytes(
    tmp_path: Path, suffix: str, kills: list[tuple[str, int]]
) -> None:
    """In the middle of the pass, and between the whole file and the record of its parts."""
    files, upgrades = dict[str, Path](), dict[str, Upgrade]()
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        files[name] = folder / f"items{suffix}"
        if suffix == ".parquet":
            _write(files[name], range(3000))
        else:
            index = faiss.IndexFlatIP(old_vectors([0]).shape[1])
            index.add(old_vectors(range(3000)))
            faiss.write_index(index, str(files[name]))
        made = _lift(files[name])
        made.save(folder / "plan.json")
        upgrades[name] = Upgrade.create(made)
        assert len(upgrades[name].store.parts(made.staging)) == 30
    _finish(upgrades["undisturbed"])
    assert all(_run(tmp_path / "killed" / "plan.json", *kill) for kill in kills)
    done = upgrades["killed"].status().rows_done
    assert done == (300 if len(kills) == 3 else 0)
    _finish(upgrades["killed"])
    assert files["killed"].read_bytes() == files["undisturbed"].read_bytes()
    assert not _drafts(tmp_path)


def test_interrupted_it_starts_over(path: Path) -> None:
    upgrade = Upgrade.create(_lift(path))

    def stop(done: int, total: int) -> None:
        if done >= 150:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"interrupted after 0 of 400 rows"):
        upgrade.apply(stop)
    assert not [one for one in threading.enumerate() if one.name.startswith("crossfade-")]
    assert not _drafts(path.parent)
    assert not list(path.parent.rglob("vector__next*"))
    np.testing.assert_array_equal(_read(path), old_vectors(range(COUNT)))
    counts: list[int] = []
    upgrade.apply(lambda done, total: counts.append(done))
    assert counts[0] == 0
    assert counts[-1] == COUNT
    assert upgrade.verify().passed


def test_a_draft_that_a_killed_process_left_gives_its_space_back(path: Path) -> None:
    upgrade = Upgrade.create(_lift(path))
    upgrade.apply()
    draft = next(path.parent.rglob("vector__next.parquet")).with_suffix(".new")
    draft.write_bytes(b"half a file")
    upgrade.verify()
    assert not draft.exists()


def test_a_file_replaced_between_apply_and_cutover(path: Path) -> None:
    upgrade = Upgrade.create(_lift(path))
    upgrade.apply()
    assert upgrade.verify().passed
    ids = [one for one in range(COUNT) if one != 120]
    vectors = old_vectors(ids)
    vectors[ids.index(390)] *= -1
    _write(path, ids, vectors)
    assert upgrade.cutover().state is State.CUT_OVER
    assert upgrade.status().history[-1].note == "caught up with 199 rows in parts written meanwhile"
    wanted = new_vectors(ids)
    wanted[ids.index(390)] *= -1
    np.testing.assert_allclose(_read(path), wanted, atol=1e-4)
    assert upgrade.rollback().state is State.ROLLED_BACK
    np.testing.assert_array_equal(_read(path), vectors)


def test_a_torn_new_file_is_found_and_written_again(path: Path) -> None:
    upgrade = Upgrade.create(_lift(path))
    upgrade.apply()
    new = next(path.parent.rglob("vector__next.parquet"))
    whole = new.read_bytes()
    spot = whole.index(_read(new)[250].tobytes())
    new.write_bytes(whole[:spot] + bytes([whole[spot] ^ 64]) + whole[spot + 1 :])
    with pytest.raises(VerificationFailed, match=r"checksums: file vector__next.parquet has other content"):
        upgrade.verify()
    assert upgrade.apply().state is State.BUILT
    assert new.read_bytes() == whole
    assert upgrade.verify().passed


@pytest.mark.parametrize(("at", "parts", "batches"), [(300, 3, 1), (50, 0, 3)])
def test_an_embedding_goes_on_from_its_last_batch(path: Path, at: int, parts: int, batches: int) -> None:
    encoder, again = NewEncoder(), NewEncoder()
    chosen = _plan(
        path,
        "backfill",
        items="text",
        encoder=encoder,
        encoders={"items": "python:upgrade_kit:NewEncoder"},
    )
    upgrade = Upgrade.create(chosen)

    def stop(done: int, total: int) -> None:
        if done > at:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=rf"interrupted after {100 * parts} of 400 rows"):
        upgrade.apply(stop, encoder=NewEncoder())
    assert len(list(path.parent.rglob("*.npy"))) == parts
    upgrade.apply(encoder=again)
    assert len(again.embedded) == COUNT - 100 * parts - 25 * batches
    assert upgrade.verify(encoder=again).passed


def test_the_estimate_counts_the_vectors_of_a_lift_once(path: Path) -> None:
    lifted = _lift(path).estimates.bytes_needed
    embedded = _plan(
        path, "backfill", items="text", encoder=NewEncoder(),
        encoders={"items": "python:upgrade_kit:NewEncoder"},
    ).estimates.bytes_needed  # fmt: skip
    vectors = COUNT * new_vectors([0]).shape[1] * 4
    assert vectors < embedded - lifted < 1.1 * vectors


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


def test_a_disk_that_fills_up_in_the_middle(small_disk: Path) -> None:
    path, count = small_disk / "items.parquet", 6000
    _write(path, range(count))
    upgrade = Upgrade.create(replace(_lift(path), batch_rows=100))
    filler = small_disk / "filler"

    def fill(done: int, total: int) -> None:
        if done >= 2000 and not filler.exists():
            free = shutil.disk_usage(small_disk).free
            filler.write_bytes(bytes(max(0, free - 100_000)))

    with pytest.raises(OutOfSpace, match="the disk was full"):
        upgrade.apply(fill)
    assert not _drafts(small_disk)
    assert not list(small_disk.rglob("vector__next*"))
    assert not [one for one in threading.enumerate() if one.name.startswith("crossfade-")]
    assert upgrade.status().state is State.TRANSFORMING
    np.testing.assert_array_equal(_read(path), old_vectors(range(count)))
    filler.unlink()
    upgrade.apply()
    assert upgrade.verify().passed


def test_rows_that_are_skipped_are_listed_with_their_part(path: Path) -> None:
    vectors = old_vectors(range(COUNT))
    vectors[[30, 333]] = np.nan
    _write(path, range(COUNT), vectors)
    upgrade = Upgrade.create(_plan(path, adapter=adapter("forward"), on_invalid="skip"))
    upgrade.apply()
    assert [one for one, _ in upgrade.skipped()] == ["30", "333"]
    assert upgrade.verify().passed
    new = pq.read_table(next(path.parent.rglob("vector__next.parquet")))
    assert new.filter(pa.compute.is_null(new["vector"]))["id"].to_pylist() == [30, 333]
