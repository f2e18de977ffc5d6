"""The main job through the command line, on files and a store that a test can judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import NEW, ROWS, Models, Run, write

from crossfade.cli import main
from crossfade.vectors import Vectors, open_vectors


@pytest.fixture
def adapter(files: tuple[Path, Path], tmp_path: Path, run: Run) -> Path:
    """A forward ridge map."""
    folder = tmp_path / "adapter"
    done = run("fit", "--old", files[0], "--new", files[1], "--method", "ridge", "--out", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def plan(store: str, adapter: Path, tmp_path: Path, run: Run) -> Path:
    """A plan that lifts the gallery."""
    path = tmp_path / "plan.json"
    done = run("plan", store, "--strategy", "gallery", "--adapter", adapter, "--out", path)
    assert done.code == 0, done.err
    return path


def test_fit_auto_reports_every_method(files: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    done = run("fit", "--old", files[0], "--new", files[1], "--out", tmp_path / "a", "--json")
    result = json.loads(done.out)
    tried = {score["method"] for score in result["tried"]} | {one["method"] for one in result["skipped"]}
    assert {"procrustes", "ridge", "low-rank", "local-experts", "residual-mlp"} <= tried
    assert result["target"] == NEW.to_dict()
    assert (tmp_path / "a" / "model.safetensors").is_file()


def test_transform_lifts_a_file_into_the_new_space(
    files: tuple[Path, Path], adapter: Path, models: Models, tmp_path: Path, run: Run
) -> None:
    lifted = tmp_path / "lifted.parquet"
    done = run("transform", "--adapter", adapter, "--input", files[0], "--output", lifted, "--json")
    assert json.loads(done.out)["written"] == ROWS
    read = open_vectors(lifted).read()
    assert read.space == NEW
    assert read.ids.equals(models.old.ids)
    truth = models.new.matrix / np.linalg.norm(models.new.matrix, axis=1, keepdims=True)
    assert (read.matrix * truth).sum(axis=1).mean() > 0.7


def test_evaluate_writes_report_adapters_and_verdict(
    files: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "evaluation"
    done = run("evaluate", "--old", files[0], "--new", files[1], "--label", "label", "--out", out, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    rows = {row["key"] for row in result["tasks"][0]["rows"]}
    assert {"old/old", "new/old", "new/new", "query:ridge", "gallery:ridge"} <= rows
    assert result["verdict"]["strategy"] != "naive"
    assert {"report.html", "report.md", "report.json"} <= {path.name for path in out.iterdir()}
    assert (out / "adapters" / "gallery-ridge" / "model.safetensors").is_file()


def test_plan_follows_the_evaluation(files: tuple[Path, Path], store: str, tmp_path: Path, run: Run) -> None:
    out, path = tmp_path / "evaluation", tmp_path / "plan.json"
    run("evaluate", "--old", files[0], "--new", files[1], "--label", "label", "--no-raw-items", "--out", out)
    verdict = json.loads((out / "report.json").read_text())["evaluation"]["verdict"]
    done = run("plan", store, "--evaluation", out, "--out", path, "--json")
    assert done.code == 0, done.err
    planned = json.loads(done.out)
    assert planned["strategy"] == verdict["strategy"]
    assert planned["verdict"] == verdict["sentence"]
    assert planned == json.loads(path.read_text())


def test_upgrade_from_apply_to_retire(plan: Path, store: str, run: Run) -> None:
    states = []
    for command in (("apply",), ("verify",), ("cutover",), ("rollback",), ("cutover",)):
        done = run(*command, plan, "--json")
        assert done.code == 0, done.err
        states.append(json.loads(run("status", store, "--json").out)["state"])
    assert states == ["built", "verified", "cut_over", "rolled_back", "cut_over"]
    refused = run("retire", plan)
    assert refused.code == 2
    assert "--confirm" in refused.err
    assert run("retire", plan, "--confirm").code == 0
    assert json.loads(run("status", plan, "--json").out)["state"] == "retired"
    assert open_vectors(store).space == NEW


def test_inspect_names_space_rows_and_readiness(store: str, run: Run) -> None:
    found = json.loads(run("inspect", store, "--json").out)
    assert found["ready"] is True
    assert found["store"]["rows"] == ROWS
    assert found["space"]["model"] == "old-model"


def test_search_answers_through_the_strategy_in_force(plan: Path, store: str, run: Run) -> None:
    for command in ("apply", "verify", "cutover"):
        assert run(command, plan).code == 0
    done = run("search", store, "--text", "3", "--new", "python:tests.cli.encoders:NEW_ENCODER", "--json")
    found = json.loads(done.out)
    assert found["mode"] == "gallery"
    assert len(found["results"]) == 10


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "inspect",
        "fit",
        "transform",
        "evaluate",
        "plan",
        "apply",
        "status",
        "verify",
        "cutover",
        "rollback",
        "retire",
        "search",
    ],
)
def test_every_command_has_help_and_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_inspect_reads_a_file_and_lists_what_no_search_can_use(
    models: Models, tmp_path: Path, run: Run
) -> None:
    matrix = models.old.matrix.copy()
    matrix[7] = np.nan
    path = write(tmp_path / "some.parquet", Vectors(models.old.ids, matrix, models.old.space))
    found = json.loads(run("inspect", path, "--json").out)
    assert found["rows"] == ROWS
    assert "1 NaN" in found["unusable"]
    assert found["first unusable"] == "item 7 (NaN)"
    assert "old-model" in run("inspect", path).out
