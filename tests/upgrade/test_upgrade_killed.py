"""Kill -9 anywhere, any number of times, ends in the same bytes as an undisturbed run."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from upgrade_kit import OLD, Kit, NewEncoder, adapter

from crossfade.errors import UpgradeLocked
from crossfade.upgrade import State, Upgrade
from crossfade.upgrade import plan as make_plan

SCRIPT = Path(__file__).with_name("kill_apply.py")
SEED = 20
PARTS, ROWS = 40, 1600
POINTS = [
    ("batch", 1), ("batch", 40), ("batch", 20), ("part written", 1), ("part written", 2),
    ("part written", 5), ("receipt", 1), ("receipt", 2), ("receipt", 5), ("state", 1), ("state", 2),
    ("column", 2), ("published", 1), ("published", 2), ("index", 1), ("shelved file", 1), ("shelved file", 2),
    ("shelved", 2), ("index", 2), ("state", 4), ("put back", 1), ("put back", 2), ("renamed", 1),
    ("renamed", 2),
]  # fmt: skip
RANDOM_KILLS = 10


def start(plan: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, str(SCRIPT), str(plan), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    line = process.stdout.readline().strip() if ready else ""
    assert line == word, (line, process.stderr and process.stderr.read())


def killed(process: subprocess.Popen[str]) -> bool:
    """Whether it ended by SIGKILL, and not by an error of its own."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def final_bytes(kit: Kit) -> dict[str, object]:
    """Everything that a reader can see of the table, bit for bit, and the parts' checksums."""
    table = kit.dataset.to_table().combine_chunks()
    columns = {
        name: [buffer.to_pybytes() if buffer else None for buffer in table.column(name).chunk(0).buffers()]
        for name in table.schema.names
    }
    receipts = Upgrade.open(kit.uri)._receipts.values()
    parts = {one.part: (one.rows, one.nulls, one.checksum) for one in receipts}
    schema = [(field.name, field.type, dict(field.metadata or {})) for field in table.schema]
    return {"schema": schema, "columns": columns, "parts": parts}


class Galleries:
    """The same gallery of many parts, again and again, and what an undisturbed run makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        template = Kit(folder / "template").create(ROWS, PARTS)
        template.table.delete("id % 50 = 3")
        template.dataset.create_index(
            "vector", "IVF_FLAT", metric="cosine", num_partitions=2, name="vector_idx"
        )
        made = make_plan(template.uri, strategy="gallery", adapter=adapter("forward"), old=OLD)
        self.plan = replace(made, batch_rows=16)
        undisturbed, path = self.copy("undisturbed")
        assert not killed(start(path, "never", 1))
        self.expected = final_bytes(undisturbed)

    def copy(self, name: str) -> tuple[Kit, Path]:
        """A copy of the gallery, and the plan for it."""
        kit, path = Kit(self.folder / name), self.folder / f"{name}.json"
        shutil.copytree(self.folder / "template", kit.folder)
        replace(self.plan, store=kit.uri).save(path)
        return kit, path


@pytest.fixture(scope="module")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> Galleries:
    return Galleries(tmp_path_factory.mktemp("killed"))


def test_killed_at_every_kind_of_point(galleries: Galleries) -> None:
    """Before and after each thing that reaches the disk, one run after the other on the same table."""
    kit, path = galleries.copy("points")
    kills = [(hook, count) for hook, count in POINTS if killed(start(path, hook, count))]
    assert kills == POINTS
    assert not killed(start(path, "never", 1))
    assert final_bytes(kit) == galleries.expected


def test_killed_after_random_delays(galleries: Galleries) -> None:
    """A run that is slowed down to seconds, killed again and again before it can end."""
    kit, path = galleries.copy("delays")
    delays, kills = random.Random(SEED), 0
    while kills < RANDOM_KILLS:
        process = start(path, "nothing", 1, 0.01)
        wait_for(process, "started")
        with suppress(subprocess.TimeoutExpired):
            process.wait(delays.uniform(0.01, 0.35))
        process.kill()
        assert killed(process), "the run must be slow enough to be killed this often"
        kills += 1
    assert not killed(start(path, "never", 1))
    assert final_bytes(kit) == galleries.expected


def test_two_at_once(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create()
    path = tmp_path / "plan.json"
    plan = kit.plan()
    plan.save(path)
    first = start(path, "hold", 1)
    try:
        wait_for(first, "started")
        wait_for(first, "held")
        second = Upgrade.create(plan)
        message = rf"another process is working on this upgrade: apply by process {first.pid} on .*; wait"
        with pytest.raises(UpgradeLocked, match=message):
            second.apply()
        began = time.perf_counter()
        status = second.status()
        assert time.perf_counter() - began < 5  # it would wait 30 s for a lock
        assert status.holder is not None
        assert status.holder["pid"] == first.pid
        assert status.state is State.TRANSFORMING
        kit.expect_old()
    finally:
        first.kill()
        first.communicate()
    assert second.status().holder is None
    second.apply()
    assert second.verify().passed


def test_ctrl_c_leaves_it_resumable(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create()
    path = tmp_path / "plan.json"
    kit.plan().save(path)
    process = start(path, "hold", 1)
    wait_for(process, "started")
    wait_for(process, "held")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Interrupted: interrupted after 0 of 240 rows; they are kept" in errors.splitlines()[-1]
    upgrade = Upgrade.open(kit.uri)
    assert upgrade.status().holder is None
    upgrade.apply()
    assert upgrade.verify().passed


def test_a_killed_backfill_embeds_no_finished_batch_again(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create(240, 1)
    plan = kit.plan(
        "backfill", items="text", encoder=NewEncoder(), encoders={"items": "python:upgrade_kit:NewEncoder"}
    )
    path = tmp_path / "plan.json"
    plan.save(path)
    assert killed(start(path, "batch", 9))
    assert len(list(kit.folder.rglob("*.npz"))) == 8
    encoder = NewEncoder()
    Upgrade.open(kit.uri).apply(encoder=encoder)
    assert len(encoder.embedded) == 240 - 8 * 16
    kit.expect_new("vector__next")
