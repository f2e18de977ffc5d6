"""``crossfade plan``: a compatible model, a lifted cascade, a partial backfill with held-out items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import OLD, Run


@pytest.fixture
def lift(run: Run, files: tuple[Path, Path], tmp_path: Path) -> Path:
    done = run("fit", "--old", files[0], "--new", files[1], "--method", "ridge", "--out", tmp_path / "lift")
    assert done.code == 0, done.err
    return tmp_path / "lift"


def test_a_compatible_model_is_named_by_its_space(run: Run, store: str, tmp_path: Path) -> None:
    named = ("--strategy", "native", "--new-space", "bct@1", "--new-dimension", OLD.dimension)
    made = json.loads(run("plan", store, *named, "--out", tmp_path / "plan.json", "--json").out)
    assert (made["strategy"], made["compatible"], made["adapter"]) == ("native", True, None)
    assert made["new"]["model"] == "bct"
    longer = run("plan", store, *named[:-1], OLD.dimension + 1, "--out", tmp_path / "other.json")
    assert longer.code == 2
    assert "its vectors are not as long" in longer.error_lines[0]


def test_a_lifted_cascade_needs_a_depth_and_raw_items(run: Run, store: str, lift: Path) -> None:
    given = ("plan", store, "--strategy", "lifted-cascade", "--adapter", lift)
    assert "name the column that holds them" in run(*given, "--depth", 5).error_lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--held-out-old", "OLD"), "--held-out-old and --held-out-new belong together"),
        (("--held-out-old", "OLD", "--held-out-new", "NEW"), "held-out items are for a partial backfill"),
    ],
)
def test_held_out_items_are_for_a_partial_backfill(
    run: Run, store: str, lift: Path, files: tuple[Path, Path], arguments: tuple[str, ...], message: str
) -> None:
    named = {"OLD": files[0], "NEW": files[1]}
    given = [named.get(one, one) for one in arguments]
    done = run("plan", store, "--strategy", "gallery", "--adapter", lift, *given)
    assert done.code == 2
    assert message in done.error_lines[0]
