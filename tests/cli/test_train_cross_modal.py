"""``crossfade train xbt-text``: from texts or vectors to a φ that the other commands take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import NEW, OLD, ROWS, Models, Run, write

from crossfade.adapters import load_adapter
from crossfade.vectors import Vectors

QUICK = ("--set", "hidden=16", "--set", "epochs=2", "--set", "batch_rows=64")
HERE = "python:tests.cli.encoders"
ENCODERS = ("--new", f"{HERE}:NEW_ENCODER", "--old", f"{HERE}:OLD_ENCODER")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """90 distinct texts, one of them twice, and an empty line."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*("x" * length for length in range(1, 91)), "", "xxx"]) + "\n")
    return path


def test_texts_through_both_encoders(texts: Path, tmp_path: Path, run: Run) -> None:
    done = run("train", "xbt-text", *ENCODERS, "--texts", texts, "--out", tmp_path / "phi", *QUICK, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert len(report["epochs"]) == 2
    assert (report["texts"]["new"]["rows"], report["texts"]["old"]["duplicate"]) == (90, 1)
    assert report["texts"]["new"]["truncated"] is None
    adapter = load_adapter(tmp_path / "phi")
    assert (adapter.name, adapter.source, adapter.target) == ("projection", NEW, OLD)
    again = run("train", "xbt-text", *ENCODERS, "--texts", texts, "--out", tmp_path / "phi", *QUICK)
    assert "phi is there already; name another --out" in again.error_lines[0]
    cached = ("--cache", tmp_path / "phi.vectors", "--out", tmp_path / "second")
    done = run("train", "xbt-text", *ENCODERS, "--texts", texts, *cached, *QUICK)
    assert "projection trained on 90 texts, sigma 1," in done.out
    assert "old  92 texts read, 1 empty, 1 repeated, not counted longer than the context" in done.out
    assert len(list((tmp_path / "phi.vectors").glob("*.parquet"))) == 2


def test_vectors_images_and_what_follows(
    files: tuple[Path, Path], models: Models, tmp_path: Path, run: Run
) -> None:
    old, new = files
    images = Vectors(np.arange(100), models.new.matrix[:100] + 1, NEW)
    shown = write(tmp_path / "images.parquet", images)
    common = ("--new", new, "--old", old, "--images", shown, "--out", tmp_path / "phi", *QUICK)
    done = run("train", "xbt-text", *common, "--set", "sigma=auto", "--set", "depth=0")
    assert done.code == 0, done.err
    assert f"projection trained on {ROWS} texts, sigma " in done.out
    assert "(chosen)" in done.out
    evaluation = ("--label", "label", "--adapter", tmp_path / "phi", "--method", "procrustes")
    done = run("evaluate", "--old", old, "--new", new, *evaluation, "--out", tmp_path / "e")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "e" / "report.json").read_text())["evaluation"]
    assert "query:projection" in {row["key"] for row in report["tasks"][0]["rows"]}


def test_a_recipe_and_its_settings(files: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    old, new = files
    recipe = tmp_path / "text.yaml"
    recipe.write_text("method: projection\noptions:\n  hidden: 8\n  sigma: 0.5\n")
    common = ("--new", new, "--old", old, "--recipe", recipe, *QUICK[2:])
    done = run("train", "xbt-text", *common, "--out", tmp_path / "phi", "--set", "depth=2")
    assert done.code == 0, done.err
    parameters = load_adapter(tmp_path / "phi").get_params()
    assert (parameters["hidden"], parameters["sigma"], parameters["depth"]) == (8, 0.5, 2)
    recipe.write_text("method: fct\n")
    done = run("train", "xbt-text", *common, "--out", tmp_path / "x")
    assert "is a recipe for 'fct'; this command trains projection" in done.error_lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*ENCODERS[:2], "--old", ENCODERS[1]), "embed into the same space, new-model (16-d, cosine)"),
        (ENCODERS, "need texts to embed; name them with --texts"),
        ((*ENCODERS, "--texts", "nowhere.txt"), "nowhere.txt"),
        ((*ENCODERS, "--new-space", "other"), "--new-space names the space of vectors; 'python:"),
        ((*ENCODERS[:2], "--old", "nonsense"), "'nonsense' names no encoder"),
        ((*ENCODERS, "--set", "sigm=1"), "projection has no option 'sigm'; did you mean 'sigma'?"),
        ((*ENCODERS, "--set", "sigma=auto"), "need texts"),
        (("--new", "new.parquet", *ENCODERS[2:]), "new.parquet: no such file"),
    ],
)
def test_mistakes_are_one_line(options: tuple[str, ...], message: str, tmp_path: Path, run: Run) -> None:
    done = run("train", "xbt-text", *options, "--out", tmp_path / "phi")
    assert done.code == 2
    assert message in done.error_lines[0]
    assert list(tmp_path.iterdir()) == []
