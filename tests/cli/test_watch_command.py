"""``crossfade watch``: exit codes, JSON and metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import OLD, Models, Run, write

from crossfade.vectors import Vectors


@pytest.fixture
def plan(run: Run, store: str, files: tuple[Path, Path], tmp_path: Path) -> Path:
    pairs = ("--old", files[0], "--new", files[1])
    run("fit", *pairs, "--method", "ridge", "--direction", "backward", "--out", tmp_path / "back")
    made = tmp_path / "plan.json"
    done = run("plan", store, "--strategy", "query", "--adapter", tmp_path / "back", "--out", made)
    assert done.code == 0, done.err
    return made


def test_fine_is_0_drift_is_1(
    run: Run, plan: Path, store: str, files: tuple[Path, Path], models: Models, tmp_path: Path
) -> None:
    kept = run("watch", plan, "--keep", "--old", files[0], "--new", files[1])
    assert kept.code == 0, kept.err
    assert "kept 200 items and 200 queries" in kept.out
    recent = ("--old-queries", files[0], "--new-queries", files[1])
    fine = run("watch", store, *recent, "--metrics", tmp_path / "watch.prom", "--json")
    assert fine.code == 0, fine.err
    assert json.loads(fine.out)["drift"] is False
    assert 'strategy="query"} 0.0' in (tmp_path / "watch.prom").read_text()
    shuffled = np.random.default_rng(0).permutation(len(models.old))
    wrong = Vectors(models.old.ids, models.old.matrix[shuffled], OLD, models.old.columns)
    gone = run(
        "watch", plan, "--old-queries", write(tmp_path / "x.parquet", wrong), "--new-queries", files[1]
    )
    assert gone.code == 1
    assert "DECAY" in gone.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to look at; give recent queries"),
        (("--keep",), "give --old FILE and --new FILE"),
        (("--new-queries", "NEW", "--old", "OLD"), "--old and --new are for --keep"),
        (("--new-queries", "NEW"), "has no sample to compare with"),
        (("--keep", "--old", "OLD", "--new", "NEW", "--new-queries", "NEW"), "--old-queries is missing"),
    ],
)
def test_bad_input_is_one_line(
    run: Run, plan: Path, files: tuple[Path, Path], arguments: tuple[str, ...], message: str
) -> None:
    named = {"OLD": files[0], "NEW": files[1]}
    done = run("watch", plan, *(named.get(one, one) for one in arguments))
    assert done.code == 2
    assert len(done.error_lines) == 1
    assert message in done.error_lines[0]


def test_metrics_that_cannot_be_written_are_said(
    run: Run, plan: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    run("watch", plan, "--keep", "--old", files[0], "--new", files[1])
    done = run("watch", plan, "--new-queries", files[1], "--metrics", tmp_path / "none" / "watch.prom")
    assert done.code == 2
    assert "the metrics cannot be written" in done.error_lines[0]
