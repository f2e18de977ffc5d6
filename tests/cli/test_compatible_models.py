"""``crossfade evaluate --compatible``: labels, captions, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import NEW, OLD, Models, Run, write

from crossfade.spaces import Space
from crossfade.vectors import Vectors

IMAGES = 60


def sharp(models: Models) -> Vectors:
    """In the old space and in another order: every item at the mean of its class."""
    labels = models.old.columns["label"].to_numpy()
    means = np.stack([models.old.matrix[labels == one].mean(axis=0) for one in labels])
    order = np.random.default_rng(0).permutation(len(means))
    return Vectors(models.old.ids, means, OLD).take(order)


def test_labelled_items_search_the_old_gallery_with_a_compatible_model(
    files: tuple[Path, Path], models: Models, store: str, tmp_path: Path, run: Run
) -> None:
    own, out = write(tmp_path / "xbt.parquet", sharp(models)), tmp_path / "e"
    common = ("evaluate", "--old", files[0], "--new", files[1], "--label", "label", "--method", "procrustes")
    done = run(*common, "--compatible", f"xbt={own}", "--out", out)
    assert done.code == 0, done.err
    report = json.loads((out / "report.json").read_text())["evaluation"]
    rows = {row["key"]: row for row in report["tasks"][0]["rows"]}
    assert {"native:xbt", "native-old:xbt", "native-new:xbt", "interpolate:xbt"} <= set(rows)
    assert rows["native:xbt"]["metrics"]["CMC@1"]["value"] > rows["old/old"]["metrics"]["CMC@1"]["value"]
    assert "M(new→old) > M(old→old)" in done.out
    assert report["compatible"] == {"xbt": OLD.to_dict()}
    plan = tmp_path / "plan.json"
    chosen = ("plan", store, "--evaluation", out, "--row", "native:xbt", "--out", plan, "--json")
    made = json.loads(run(*chosen).out)
    assert (made["strategy"], made["compatible"], made["adapter"]) == ("native", True, None)


@pytest.fixture
def captioned(tmp_path: Path) -> dict[str, Path]:
    """Sixty images with two captions each; the compatible model knows exactly which belong together."""
    rng = np.random.default_rng(1)
    items = rng.standard_normal((IMAGES, OLD.dimension))
    owner = np.repeat(np.arange(IMAGES), 2)
    names = [f"picture {one}" for one in range(IMAGES)]
    columns = {"image": [names[one] for one in owner], "caption": [f"caption {row}" for row in range(120)]}

    def blurred(matrix: np.ndarray, noise: float, dimension: int) -> np.ndarray:
        drawn = rng.standard_normal((len(matrix), dimension))
        return matrix + noise * drawn if dimension == matrix.shape[1] else drawn

    found: dict[str, Path] = {}
    for name, space, noise in (("old", OLD, 1.0), ("new", NEW, 1.0), ("xbt", Space("xbt", 12), 0.1)):
        texts = Vectors(np.arange(120), blurred(items[owner], noise, space.dimension), space, columns)
        images = Vectors(names, blurred(items, noise, space.dimension), space)
        found[f"{name}-texts"] = write(tmp_path / f"{name}.texts.parquet", texts)
        found[f"{name}-images"] = write(tmp_path / f"{name}.images.parquet", images)
    return found


def _captions(captioned: dict[str, Path], compatible: str, out: Path) -> tuple[Any, ...]:
    return (
        *("evaluate", "--old", captioned["old-images"], "--new", captioned["new-images"]),
        *("--old-queries", captioned["old-texts"], "--new-queries", captioned["new-texts"]),
        *("--captions", "image,caption", "--method", "procrustes", "--pairs", 50),
        *("--compatible", compatible, "--out", out, "--json"),
    )


def test_captions_are_evaluated_in_both_directions(
    captioned: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    claim = f"xbt={captioned['xbt-texts']},{captioned['xbt-images']}"
    done = run(*_captions(captioned, claim, tmp_path / "e"))
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert [task["name"] for task in result["tasks"]] == ["text→image", "image→text"]
    for task in result["tasks"]:
        rows = {row["key"]: row for row in task["rows"]}
        assert rows["native-new:xbt"]["metrics"]["Recall@1"]["value"] > 0.95
        old = rows["old/old"]["metrics"]["Recall@1"]["value"]
        assert rows["native:xbt"]["metrics"]["Recall@1"]["value"] > old
    claims = [reason for reason in result["verdict"]["reasons"] if reason.startswith("M(new→old)")]
    assert [claim.partition(", ")[2][:10] for claim in claims] == ["text→image", "image→text"]


def test_captions_need_both_files(captioned: dict[str, Path], tmp_path: Path, run: Run) -> None:
    done = run(*_captions(captioned, f"xbt={captioned['xbt-texts']}", tmp_path / "e"))
    assert done.code == 2
    assert "give NAME=CAPTIONS,IMAGES" in done.error_lines[0]
    assert not (tmp_path / "e").exists()


def test_what_does_not_fit_is_refused(
    files: tuple[Path, Path], models: Models, tmp_path: Path, run: Run
) -> None:
    own = sharp(models)
    whole = write(tmp_path / "own.parquet", own)
    part = write(tmp_path / "part.parquet", own.take(np.arange(100)))
    numbered = write(tmp_path / "numbers.parquet", Vectors(np.arange(len(own)), own.matrix, OLD))
    short = write(tmp_path / "short.parquet", Vectors(own.ids, own.matrix[:, :8], Space("short", 8)))
    common = ("evaluate", "--old", files[0], "--new", files[1], "--label", "label", "--method", "procrustes")
    refused = {
        (str(whole),): "is not of the form NAME=QUERIES",
        ("xbt=",): "is not of the form NAME=QUERIES",
        (f"xbt={whole},{whole}",): "one file holds both",
        (f"xbt={part}",): "of 160 ids, which are string",
        (f"xbt={numbered}",): "lacks 160 of 160 ids, which are string (its own are int64)",
        (f"xbt={short}",): "its queries have 8 dimensions",
        (f"xbt={whole}", f"xbt={whole}"): "every model needs a name of its own, got xbt, xbt",
        (f"ridge={whole}",): "cannot name a compatible model",
    }
    for given, message in refused.items():
        options = [word for one in given for word in ("--compatible", one)]
        done = run(*common, *options, "--out", tmp_path / "e")
        assert done.code == 2
        assert message in done.error_lines[0]
        assert not (tmp_path / "e").exists()
