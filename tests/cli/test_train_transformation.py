"""Train h from files of vectors, measure it with a backfill curve, and plan with what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import NEW, ROWS, Models, Run, write

from crossfade.adapters import load_adapter
from crossfade.spaces import Space
from crossfade.vectors import Vectors, open_vectors
from crossfade.vectors.columns import to_column

SIDE = Space("side-model", 6)
QUICK = ("--set", "inner=32", "--set", "epochs=4", "--set", "warm_up_epochs=1", "--set", "batch_rows=64")


@pytest.fixture
def side(files: tuple[Path, Path], models: Models, tmp_path: Path) -> Path:
    """Side-information of the same items in another order."""
    values = np.random.default_rng(9).standard_normal((ROWS, 6)).astype(np.float32)
    order = np.random.default_rng(2).permutation(ROWS)
    return write(
        tmp_path / "side.parquet", Vectors(models.old.ids.take(pa.array(order)), values[order], SIDE)
    )


def train(run: Run, method: str, files: tuple[Path, Path], out: Path, *more: object) -> dict[str, object]:
    done = run("train", method, "--old", files[0], "--new", files[1], "--out", out, *QUICK, "--json", *more)
    assert done.code == 0, done.err
    found: dict[str, object] = json.loads(done.out)
    return found


def test_fct_with_side_information_and_without(
    files: tuple[Path, Path], side: Path, tmp_path: Path, run: Run
) -> None:
    result = train(run, "fct", files, tmp_path / "h", "--side", side)
    adapter = load_adapter(tmp_path / "h")
    assert (adapter.side, adapter.target) == (SIDE, NEW)
    assert len(result["epochs"]) == 4  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*.checkpoint"))
    done = run("train", "fct", "--old", files[0], "--new", files[1], "--out", tmp_path / "h")
    assert "h is there already; name another --out" in done.error_lines[0]
    train(run, "fct", files, tmp_path / "alone")
    assert load_adapter(tmp_path / "alone").side is None
    done = run("train", "fct", "--old", files[0], "--new", files[1], "--out", tmp_path / "x", *QUICK)
    assert "fct trained on 400 pairs" in done.out


def test_fastfill_is_measured_with_a_curve_and_planned_by_it(
    files: tuple[Path, Path], side: Path, tmp_path: Path, run: Run
) -> None:
    train(run, "fastfill", files, tmp_path / "h", "--side", side, "--label", "label")
    common = ("--old", files[0], "--new", files[1], "--label", "label", "--method", "ridge")
    done = run(
        "evaluate",
        *common,
        "--side",
        side,
        "--adapter",
        tmp_path / "h",
        "--backfill-curve",
        "--out",
        tmp_path / "e",
    )
    assert done.code == 0, done.err
    assert "Area − random" in done.out
    report = json.loads((tmp_path / "e" / "report.json").read_text())["evaluation"]
    (curve,) = report["curves"]
    assert {order["name"] for order in curve["orders"]} == {
        "random",
        "uncertainty",
        "distance to class mean",
        "oracle",
    }
    rows = {row["key"] for row in report["tasks"][0]["rows"]}
    assert {"gallery:ridge", "gallery:fastfill"} <= rows
    assert "Partial backfill" in (tmp_path / "e" / "report.html").read_text()
    assert "### Partial backfill" in (tmp_path / "e" / "report.md").read_text()


def test_partial_is_planned_from_the_measured_curve(
    files: tuple[Path, Path], store: str, tmp_path: Path, run: Run
) -> None:
    common = ("--old", files[0], "--new", files[1], "--label", "label", "--method", "ridge")
    assert run("evaluate", *common, "--backfill-curve", "--out", tmp_path / "e").code == 0
    folder, _, place = store.removeprefix("lancedb://").partition("#")
    lancedb.connect(folder).open_table(place.split(".")[0]).add_columns({"text": "cast(id as string)"})
    options = ("--strategy", "partial", "--evaluation", tmp_path / "e", "--items", "text")
    done = run("plan", store, *options, "--budget", 0.1, "--out", tmp_path / "plan.json")
    assert done.code == 0, done.err
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["chosen"]["count"] == round(0.1 * plan["found"]["rows"])
    assert plan["quality"][0]["row"] == "partial:ridge@0.1"
    assert Path(plan["chosen"]["path"]).is_file()


def test_transform_reads_side_information_from_a_column(
    files: tuple[Path, Path], side: Path, models: Models, tmp_path: Path, run: Run
) -> None:
    train(run, "fct", files, tmp_path / "h", "--side", side)
    psi = {one: vector for one, vector in zip(*_read(side), strict=True)}
    ids = models.old.ids.to_pylist()
    column = np.stack([psi[one] for one in ids])
    table = pq.read_table(files[0]).append_column("psi", to_column(column))
    pq.write_table(table, tmp_path / "both.parquet")
    common = ("transform", "--adapter", tmp_path / "h", "--output", tmp_path / "lifted.parquet")
    named = (
        *common,
        "--input",
        tmp_path / "both.parquet",
        "--vector-column",
        "vector",
        "--space",
        "old-model",
    )
    done = run(*named)
    assert "needs the side-information of every item" in done.error_lines[0]
    done = run(*named, "--side", "psi")
    assert done.code == 0, done.err
    lifted = open_vectors(str(tmp_path / "lifted.parquet")).read()
    expected = load_adapter(tmp_path / "h").transform(models.old.matrix, column)
    np.testing.assert_allclose(lifted.matrix, expected, atol=1e-6)


def _read(path: Path) -> tuple[list[object], np.ndarray]:
    found = open_vectors(str(path)).read()
    return found.ids.to_pylist(), found.matrix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "iner=3"), "fct has no option 'iner'; did you mean 'inner'?"),
        (("--set", "inner=0"), "inner must be at least 1, got 0"),
        (("--set", "inner"), "write NAME=VALUE"),
        (("--side", "nowhere.parquet"), "nowhere.parquet: no such file"),
    ],
)
def test_mistakes_are_one_line(
    options: tuple[str, ...], message: str, files: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    done = run("train", "fct", "--old", files[0], "--new", files[1], "--out", tmp_path / "h", *options)
    assert done.code == 2
    assert message in done.error_lines[0]
    assert not (tmp_path / "h").exists()


def test_a_recipe_for_another_method_is_refused(files: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: fastfill\noptions:\n  inner: 32\n")
    common = ("--old", files[0], "--new", files[1], "--out", tmp_path / "h", "--recipe", recipe)
    done = run("train", "fct", *common)
    assert "is a recipe for 'fastfill'; this command trains fct" in done.error_lines[0]
    done = run("train", "fastfill", *common, "--set", "epochs=1", "--set", "warm_up_epochs=0")
    assert done.code == 0, done.err
    assert load_adapter(tmp_path / "h").get_params()["inner"] == 32
