"""The demo tells the whole story, and tells it truly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.demo.material import Embedded, Model, Scenes, pairs_of, tasks_of
from crossfade.upgrade import Upgrade

SCENES = 500


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A small demo in a process that has no torch: its folder, its JSON and what it told."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from crossfade.cli import main\n"
        f"main(['demo', '--out', {str(folder)!r}, '--scenes', '{SCENES}', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return folder, json.loads(done.stdout), done.stderr


def test_it_measures_everything_and_follows_its_verdict(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, result, _ = demo
    tasks = {task["name"]: task for task in result["evaluation"]["tasks"]}
    assert set(tasks) == {"text→image", "image→text"}
    strategies = {row["strategy"] for row in tasks["text→image"]["rows"]}
    assert strategies == {
        "keep",
        "naive",
        "query",
        "gallery",
        "interpolate",
        "cascade",
        "lifted-cascade",
        "backfill",
    }
    assert result["plan"]["strategy"] == result["verdict"]["strategy"]
    rows = {row["key"]: row["metrics"].get("Recall@1") for row in tasks["text→image"]["rows"]}
    assert rows["new/new"]["low"] > rows["old/old"]["high"], "the new model must be clearly better"


def test_it_ends_cut_over_after_a_rollback(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, result, _ = demo
    upgrade = Upgrade.open(result["store"])
    states = [transition.target for transition in upgrade.status().history]
    assert states[-3:] == ["cut_over", "rolled_back", "cut_over"]


def test_the_report_shows_searches_before_and_after_with_pictures(
    demo: tuple[Path, dict[str, Any], str],
) -> None:
    folder, result, _ = demo
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") > 10
    assert "before: old/old" in page
    assert f"after: {result['plan']['strategy']}" in page
    searches = json.loads((folder / "report.json").read_text(encoding="utf-8"))["samples"]
    right = [
        [any(hit["relevant"] for hit in column["hits"]) for column in one["columns"]] for one in searches
    ]
    assert np.sum(right, axis=0)[1] >= np.sum(right, axis=0)[0]


def test_a_naive_swap_is_refused_and_said_to_be_noise(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, _, told = demo
    assert "refused:" in told
    assert "chance" in told


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    command = [sys.executable, "-m", "crossfade", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_pairs_and_gallery_share_no_scene() -> None:
    gallery, sample = Scenes.make("gallery", 200), Scenes.make("pairs", 200)
    assert not set(gallery.table["key"].to_pylist()) & set(sample.table["key"].to_pylist())


def test_every_caption_of_a_scene_counts_as_right() -> None:
    scenes, model = Scenes.make("gallery", 50), Model.load("old")
    embedded = Embedded.by(model, scenes)
    _, to_text = tasks_of(scenes, embedded, embedded)
    captions = scenes.table["captions"].to_pylist()
    assert to_text.ground_truth.grades(slice(0, 1))[0].sum() == len(set(captions[0]))
    assert len(pairs_of(embedded, embedded)) == 50 + len(scenes.texts)
