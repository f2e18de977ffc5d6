"""``crossfade evaluate --backfill-curve``: how rows come into one ranking is chosen on items of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Models, Run, write

from crossfade.vectors import Vectors


def held_out(models: Models, folder: Path, count: int = 450) -> tuple[Path, Path]:
    """Other items of the same kind: rows of the gallery, shaken, under other ids."""
    random = np.random.default_rng(1)
    rows, ids = random.integers(len(models.old), size=count), [f"other {row}" for row in range(count)]
    shaken = [
        Vectors(ids, one.matrix[rows] + 0.3 * random.normal(size=(count, one.space.dimension)), one.space)
        for one in (models.old, models.new)
    ]
    return write(folder / "h_old.parquet", shaken[0]), write(folder / "h_new.parquet", shaken[1])


def test_held_out_items_choose_and_the_report_says_so(
    run: Run, files: tuple[Path, Path], models: Models, tmp_path: Path
) -> None:
    others = held_out(models, tmp_path)
    common = ("evaluate", "--old", files[0], "--new", files[1], "--label", "label", "--method", "ridge")
    asked = ("--backfill-curve", "--held-out-old", others[0], "--held-out-new", others[1])
    done = run(*common, *asked, "--out", tmp_path / "e")
    assert done.code == 0, done.err
    assert "450 held-out items" in done.out
    (curve,) = json.loads((tmp_path / "e" / "report.json").read_text())["evaluation"]["curves"]
    assert curve["held_out"].startswith("450 held-out items")
    assert len(curve["ways"]) in (0, len(curve["shares"]))
    assert "450 held-out items" in (tmp_path / "e" / "report.md").read_text()
    plain = run(*common, "--backfill-curve", "--out", tmp_path / "p")
    assert "240 items that are neither queries nor in the gallery are too few" in plain.out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--held-out-old", "OLD", "--held-out-new", "NEW"), "ask for it, too (--backfill-curve)"),
        (("--held-out-old", "OLD", "--backfill-curve"), "belong together; give both or none"),
        (
            ("--held-out-old", "NEW", "--held-out-new", "OLD", "--backfill-curve"),
            "held-out items, old model",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(
    run: Run, files: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    names = {"OLD": files[0], "NEW": files[1]}
    given = [names.get(one, one) for one in arguments]
    done = run("evaluate", "--old", files[0], "--new", files[1], "--out", tmp_path / "e", *given)
    assert done.code == 2
    assert len(done.error_lines) == 1
    assert message in done.error_lines[0]
    assert not (tmp_path / "e").exists()
