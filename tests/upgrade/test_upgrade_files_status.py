"""What `status` says of a lift of a file, which counts only once the file is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from upgrade_kit import OLD, adapter, old_vectors, rows

from crossfade.errors import Interrupted
from crossfade.upgrade import Upgrade, building, plan
from crossfade.upgrade.journal import Journal

COUNT, PER_BATCH = 400, 25


@pytest.fixture
def upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upgrade:
    monkeypatch.setattr(building, "NOTE_SECONDS", 0.0)
    path = tmp_path / "items.parquet"
    pq.write_table(rows(range(COUNT), old_vectors(range(COUNT))), path)
    made = plan(f"parquet://{path}#vector", strategy="gallery", old=OLD, adapter=adapter("forward"))
    return Upgrade.create(replace(made, batch_rows=PER_BATCH))


def _asked_elsewhere(upgrade: Upgrade) -> dict[str, Any]:
    """What another process is told."""
    command = [sys.executable, "-m", "crossfade", "status", upgrade.store.uri, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_rows_on_their_way_are_told_apart_from_rows_on_disk(upgrade: Upgrade) -> None:
    found: list[dict[str, Any]] = []

    def look(done: int, total: int) -> None:
        if done == 200:
            found.append(_asked_elsewhere(upgrade))

    upgrade.apply(look)
    [one] = found
    assert (one["rows_done"], one["rows_total"], one["rows_underway"]) == (0, COUNT, 200 - PER_BATCH)
    assert one["rows_per_second"] > 0
    assert one["seconds_left"] == pytest.approx((COUNT - 200 + PER_BATCH) / one["rows_per_second"])
    assert one["holder"]["pid"] == os.getpid()
    after = _asked_elsewhere(upgrade)
    assert (after["rows_done"], after["rows_underway"], after["seconds_left"]) == (COUNT, 0, 0)


def test_a_person_reads_rows_rate_and_time(upgrade: Upgrade) -> None:
    lines: list[str] = []

    def look(done: int, total: int) -> None:
        if done == COUNT:
            lines.append(dict(Upgrade.open(upgrade.store.uri).status().summary())["under way"])

    upgrade.apply(look)
    assert [one.partition(" rows at ")[0] for one in lines] == ["375"]
    assert lines[0].endswith(" s left; they count when all are there")
    assert "under way" not in dict(upgrade.status().summary())


def test_an_interrupted_pass_has_no_rows(upgrade: Upgrade) -> None:
    def stop(done: int, total: int) -> None:
        if done == 200:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        upgrade.apply(stop)
    assert (upgrade.status().rows_underway, upgrade.status().rows_done) == (0, 0)
    with Journal(upgrade.store.journal).lease("verify"):
        assert upgrade.status().holder is not None
        assert upgrade.status().rows_underway == 0


def test_a_killed_pass_has_no_rows(upgrade: Upgrade, tmp_path: Path) -> None:
    upgrade.plan.save(tmp_path / "plan.json")
    script = Path(__file__).with_name("kill_apply.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), *sys.path])}
    command = [sys.executable, str(script), str(tmp_path / "plan.json"), "batch", "8", "0.2"]
    subprocess.run(command, env=environment, check=False, timeout=120)
    noted = upgrade._journal.fact(upgrade.plan.id, "underway")
    assert noted[1] > 0, "the process noted how far it was before it was killed"
    assert (upgrade.status().rows_underway, upgrade.status().rows_done) == (0, 0)
    upgrade.apply()
    assert upgrade.status().rows_done == COUNT


def test_not_every_batch_is_noted(upgrade: Upgrade, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[int] = []
    now = iter(range(1000, 2000))
    monkeypatch.setattr(building, "NOTE_SECONDS", 4.0)
    monkeypatch.setattr(building.time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(Journal, "note_pass", lambda self, upgrade, made, rows, seconds: notes.append(made))
    upgrade.apply()
    assert notes == [25, 125, 225, 325]
