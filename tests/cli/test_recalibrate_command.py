"""``crossfade recalibrate`` on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Models, Run, write


@pytest.fixture
def adapter(run: Run, files: tuple[Path, Path], tmp_path: Path) -> Path:
    done = run("fit", "--old", files[0], "--new", files[1], "--method", "ridge", "--out", tmp_path / "lift")
    assert done.code == 0, done.err
    return tmp_path / "lift"


def test_thresholds_are_printed_with_their_error(run: Run, files: tuple[Path, Path], adapter: Path) -> None:
    common = ("recalibrate", "--old", files[0], "--new", files[1], "--threshold", 0.6, "--threshold", 3)
    done = run(*common, "--adapter", adapter, "--method", "quantile", "--method", "isotonic")
    assert done.code == 0, done.err
    assert "200 queries, 200 items" in done.out
    assert "3, isotonic: outside of the sample" in done.out
    made = json.loads(run(*common, "--json").out)
    first, second = made["thresholds"]
    assert (first["old"], first["method"], second["new"]) == (0.6, "quantile", None)
    assert first["error"]["low"] <= first["error"]["value"] <= first["error"]["high"]
    assert 0 < first["agreement"]["value"] < 1


def test_queries_of_their_own(run: Run, files: tuple[Path, Path], models: Models, tmp_path: Path) -> None:
    queries = (write(tmp_path / "q_old.parquet", models.old), write(tmp_path / "q_new.parquet", models.new))
    asked = ("--old-queries", queries[0], "--new-queries", queries[1])
    done = run("recalibrate", "--old", files[0], "--new", files[1], *asked, "--threshold", 0.5, "--json")
    assert json.loads(done.out)["queries"] == 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weight", 0.5), "name their adapter, too"),
        (("--method", "spline"), "'spline' is not one of quantile, isotonic"),
        (("--threshold", "nan"), "thresholds must be numbers"),
    ],
)
def test_bad_input_is_one_line(
    run: Run, files: tuple[Path, Path], arguments: tuple[object, ...], message: str
) -> None:
    done = run("recalibrate", "--old", files[0], "--new", files[1], "--threshold", 0.5, *arguments)
    assert done.code == 2
    assert len(done.error_lines) == 1
    assert message in done.error_lines[0]


def test_a_gallery_of_one_model_alone_needs_queries_that_can_search_it(
    run: Run, files: tuple[Path, Path]
) -> None:
    done = run("recalibrate", "--old", files[0], "--threshold", 0.5)
    assert done.code == 2
    assert "queries are needed under the new model" in done.error_lines[0]
