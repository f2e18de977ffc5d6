"""The recipes of the paper's upgrades, dry: its models' widths, its data's layouts, every stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from published import MODELS, SMALLER, write_data, write_model
from xbt import RECIPES, Bench, main
from xbt_upgrade import Upgrade

from crossfade.errors import UsageError

PAPER = ("clip-b32-to-l14", "clip-b32-to-h14")
TEXTS = 50
SETTINGS = (
    "projection.hidden=16",
    "projection.epochs=1",
    "tuning.batch=4",
    "tuning.precision=float32",
    "tuning.low_rank.rank=2",
    "steps=1",
    "samples=50",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, TEXTS)
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "openai/clip-vit-base-patch32"
    return write_model(name, tmp_path_factory.mktemp("old") / "base", 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_a_published_upgrade_runs(name: str, data: Path, old: Path, tmp_path: Path) -> None:
    stated = Upgrade.read(RECIPES / f"{name}.yaml")
    assert stated.old == "openai/clip-vit-base-patch32"
    new = write_model(stated.new, tmp_path / "new-model", 1)
    settings = [*SETTINGS, f"old={old}", f"new={new}"]
    options = [word for one in settings for word in ("--set", one)]
    places = ["--data", str(data), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    main([name, *places, *options, "--device", "cpu"])
    found = json.loads((tmp_path / "out" / f"xbt-{name}.json").read_text())
    assert list(found["tests"]) == ["flickr30k", "coco", "nocaps"]
    sizes = {test: one["images"] for test, one in found["tests"].items()}
    assert sizes == {"flickr30k": 3, "coco": 3, "nocaps": 3}, "COCO 2014 val is restval, val and test"
    for one in found["tests"].values():
        old_space, new_space = one["evaluation"]["old"], one["evaluation"]["new"]
        assert (old_space["dimension"], new_space["dimension"]) == (64, MODELS[stated.new][3] // SMALLER)
        for task in one["evaluation"]["tasks"]:
            rows = {row["key"]: row for row in task["rows"]}
            assert {"old/old", "native:XBT", "interpolate:Procrustes from texts", "new/new"} <= set(rows)
            assert all(
                np.isfinite(row["metrics"]["Recall@1"]["value"]) for row in rows.values() if row["metrics"]
            )


@pytest.mark.parametrize("name", PAPER)
def test_what_is_known_of_the_paper_is_stated(name: str) -> None:
    upgrade = Upgrade.read(RECIPES / f"{name}.yaml")
    assert upgrade.new in MODELS
    assert upgrade.tests["coco"]["split"] == "restval+val+test"
    assert "split" not in upgrade.tests["flickr30k"]
    assert upgrade.pairs.split == "train"
    assert upgrade.projection["sigma"] > 0
    assert not upgrade.studies
    assert "Unknown, and chosen here" in (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")


def test_an_unknown_key_of_an_upgrade_is_refused(tmp_path: Path) -> None:
    text = (RECIPES / "scenes.yaml").read_text(encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(text.replace("counts:", "count:"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"wrong.yaml has no key 'count'; did you mean 'counts'\?"):
        Upgrade.read(tmp_path / "wrong.yaml")


def test_the_stages_of_a_model_of_the_hub_train_none(data: Path, old: Path, tmp_path: Path) -> None:
    upgrade = Upgrade.read(RECIPES / "clip-b32-to-l14.yaml", (f"old={old}", f"new={old}"))
    bench = Bench(upgrade, data, tmp_path, device="cpu")
    assert bench._location("old") == str(old)
    assert bench._recipe("old") is None
    with pytest.raises(UsageError, match="embed into the same space"):
        bench._train_phi("text")
