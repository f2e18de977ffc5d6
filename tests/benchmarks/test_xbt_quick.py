"""benchmarks/xbt.py in its quick size: every stage, on generated scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from xbt import Bench, main, read_upgrade
from xbt_upgrade import variants


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    main(["scenes", "--quick", "--work", str(folder), "--out", str(folder / "out"), "--device", "cpu"])
    return folder


def test_the_quick_size_runs_every_stage_once(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = quick / "scenes-quick" / "stages"
    before = {path.name: path.stat().st_mtime_ns for path in stages.iterdir()}
    assert {
        "generate.json",
        "train-old.json",
        "phi-text.json",
        "tune-xbt.json",
        "tune-direct-40.json",
    } <= set(before)
    first = json.loads((quick / "out" / "quick-xbt-scenes.json").read_text())
    again = ["scenes", "--quick", "--work", str(quick), "--out", str(quick / "again"), "--device", "cpu"]
    main(again)
    assert {path.name: path.stat().st_mtime_ns for path in stages.iterdir()} == before
    second = json.loads((quick / "again" / "quick-xbt-scenes.json").read_text())
    for one in (first, second):
        del one["tests"]["scenes"]["evaluation"]["seconds"]
    assert second == first
    capsys.readouterr()


def test_stage_2_of_the_benchmark_sees_no_old_model(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade, clip = read_upgrade("scenes", (), quick=True)
    bench = Bench(upgrade, quick, quick / "scenes-quick", clip=clip, device="cpu")

    def refuse(role: str) -> None:
        assert role == "new", "the old model was loaded"

    load = bench._load
    monkeypatch.setattr(bench, "_load", lambda role: (refuse(role), load(role))[1])
    other = replace(variants(upgrade)[0], key="once-more")
    bench._tune(other)
    assert (quick / "scenes-quick" / "tuned" / "once-more" / "config.json").exists()
