"""Every recipe of the repository, for two steps, on generated data of its data's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import png, write_images

from crossfade.encoders.network import EmbeddingNetwork
from crossfade.training import Recipe, train_model
from crossfade.training.reading import read_yaml
from crossfade.training.recipe import OBJECTIVES

ROOT = Path(__file__).parents[2] / "recipes"
RECIPES = [path for path in sorted(ROOT.glob("*/*.yaml")) if read_yaml(path).get("method") in OBJECTIVES]
IN_FOLDERS = ("imagenet", "places365", "vggface2")
TINY = [
    "schedule.max_steps=2",
    "schedule.epochs=2",
    "schedule.warm_up_epochs=1",
    "batch=8",
    "architecture.input_size=32",
]
SMALLER = {
    "resnet": ["architecture.config.hidden_sizes=[8, 8, 8, 16]", "architecture.config.depths=[1, 1, 1, 1]"],
    "convnext": ["architecture.config.hidden_sizes=[8, 8, 16]", "architecture.config.depths=[1, 1, 1]"],
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twenty pictures of four classes: one folder per class, and Parquet."""
    folder = tmp_path_factory.mktemp("layouts")
    generator = np.random.default_rng(0)
    pictures = [png(generator.integers(0, 256, (40, 48, 3))) for _ in range(20)]
    labels = np.arange(20) % 4
    for row, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        (folder / "folders" / f"n0144{label}").mkdir(parents=True, exist_ok=True)
        (folder / "folders" / f"n0144{label}" / f"{row:04}.png").write_bytes(picture)
    return {
        "folders": folder / "folders",
        "parquet": write_images(folder / "train.parquet", pictures, labels),
    }


def _settings(path: Path) -> list[str]:
    recipe = Recipe.read(path)
    settings = TINY + SMALLER[recipe.architecture.backbone]
    if recipe.architecture.head == "features":
        settings = [*settings, "architecture.dimension=16"]
    return [*settings, f"architecture.picture_size={min(40, recipe.architecture.picture_size)}"]


def _train(path: Path, layouts: dict[str, Path], out: Path, old: Path | None = None):
    data = layouts["folders" if path.parent.name in IN_FOLDERS else "parquet"]
    recipe = Recipe.read(path, _settings(path))
    return train_model(recipe, data, out, cache=out.parent / "pixels", old=old, device="cpu")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_runs(path: Path, layouts: dict[str, Path], tmp_path: Path) -> None:
    old = None
    if read_yaml(path)["method"] == "bct":
        old = _train(path.with_name("old.yaml"), layouts, tmp_path / "old").directory
    trained = _train(path, layouts, tmp_path / "model", old)
    half = read_yaml(path)["data"]["classes"] == "first half"
    assert trained.classes == (2 if half else 4)
    assert trained.epochs[-1]["step"] == 2
    assert np.isfinite(trained.epochs[-1]["loss"])
    assert trained.space.model == f"{path.parent.name}-{path.stem}".replace("-100-", "-")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_builds_its_network_in_full(path: Path) -> None:
    recipe = Recipe.read(path)
    with torch.device("meta"):
        network = EmbeddingNetwork(recipe.architecture)
    millions = sum(one.numel() for one in network.parameters()) / 1e6
    if recipe.architecture.config.get("layer_type") == "bottleneck":
        assert 23.4 < millions < 24.0
    assert recipe.schedule.max_steps is None


@pytest.mark.parametrize("name", ["imagenet", "places365", "cifar100"])
def test_the_published_protocol_is_stated(name: str) -> None:
    """Ramanujan et al., CVPR 2022, and the configuration files of its reference code."""
    old, new, bct, side = (
        Recipe.read(ROOT / name / f"{role}.yaml") for role in ("old", "new", "bct", "side-info")
    )
    for recipe in (old, new, bct):
        assert recipe.architecture.dimension == 128
        assert recipe.objective.label_smoothing == 0.1  # type: ignore[union-attr]
        assert (recipe.optimizer.name, recipe.optimizer.learning_rate) == ("sgd", 1.024)
        assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.875, 2**-15)
        assert (recipe.schedule.epochs, recipe.schedule.warm_up_epochs, recipe.batch) == (100, 5.0, 1024)
        assert recipe.metric == "l2"
    assert (old.data.classes, new.data.classes, side.data.classes) == ("first half", "all", "first half")
    assert side.architecture.dimension == 128
    assert set(old.difference(new)) == {
        f"name: '{name}-old' → '{name}-new'",
        "data.classes: 'first half' → 'all'",
        "seed: 1 → 2",
    }
