"""Every recipe for a map on vectors can be read, states its method, and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from digit_vectors import digits

from crossfade.adapters import load_adapter
from crossfade.errors import DataError, UsageError
from crossfade.training.classifier import ClassWeights
from crossfade.training.transformations import TransformationRecipe, label_codes, train_transformation

RECIPES = sorted(
    path
    for name in ("fct", "fastfill", "lambda-orthogonal")
    for path in (Path(__file__).parents[2] / "recipes").glob(f"*/{name}.yaml")
)
DRY = ("epochs=1", "warm_up_epochs=0", "inner=16", "bf16=false")


def test_there_is_one_of_each_method_for_every_data_set() -> None:
    assert len(RECIPES) == 15


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_dry_run(path: Path, tmp_path: Path) -> None:
    recipe = TransformationRecipe.read(path, path.stem, DRY)
    fitted, _ = digits()
    done = train_transformation(recipe, fitted.pairs(labels=True), tmp_path / "h", device="cpu")
    assert len(done.epochs) == 1
    assert load_adapter(tmp_path / "h").name == path.stem
    assert [one.name for one in tmp_path.iterdir()] == ["h"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_published_schedule(path: Path) -> None:
    options = TransformationRecipe.read(path, path.stem).options
    assert (options["learning_rate"], options["weight_decay"], options["batch_rows"]) == (5e-4, 3e-5, 1024)
    if path.parent.name != "tiny-imagenet-100":
        assert (options["epochs"], options["warm_up_epochs"], options["inner"]) == (80, 5, 2048)


def test_labels_are_numbered_as_the_classifier_has_them() -> None:
    weights = ClassWeights(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), ("b", "a", "c"))
    assert label_codes(["a", "c", "b"], weights).tolist() == [1, 2, 0]
    assert label_codes(["a", "c", "b"], None).tolist() == [0, 2, 1]
    with pytest.raises(
        DataError, match=r"1 of 2 items have a label outside of the classifier's 3 classes.*'d'"
    ):
        label_codes(["a", "d"], weights)


def test_a_classifier_is_for_fastfill_alone(tmp_path: Path) -> None:
    weights = ClassWeights(np.zeros((10, 16), np.float32), np.zeros(10, np.float32), tuple(range(10)))
    recipe = TransformationRecipe("fct", {"epochs": 1, "warm_up_epochs": 0, "inner": 16})
    with pytest.raises(UsageError, match="fct makes no use of a classifier"):
        train_transformation(recipe, digits()[0].pairs(), tmp_path / "h", classifier=weights)
