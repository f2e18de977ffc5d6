from __future__ import annotations

from pathlib import Path

import pytest
from tiny_training import recipe_values

from crossfade.errors import UnreadableFile, UsageError
from crossfade.training.reading import difference, override, read_yaml
from crossfade.training.recipe import BctObjective, Recipe
from crossfade.training.schedule import cosine_with_warm_up


def test_a_recipe_survives_its_dictionary() -> None:
    recipe = Recipe.from_dict(recipe_values(method="bct", objective={"influence": "synthesized"}))
    assert isinstance(recipe.objective, BctObjective)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shedule": {}}, "recipe has no key 'shedule'; did you mean 'schedule'?"),
        ({"schedule": {"epoch": 3}}, "recipe.schedule has no key 'epoch'; did you mean 'epochs'?"),
        (
            {"objective": {"temperature": 1}},
            "recipe.objective has no key 'temperature'; it has label_smoothing",
        ),
        ({"schedule": {"epochs": 2.5}}, "recipe.schedule.epochs is of type int, got 2.5"),
        ({"batch": True}, "recipe.batch is of type int, got True"),
        ({"method": "fine-tuning"}, "recipe.method is one of classification, metric-learning, bct, simclr"),
        ({"augmentation": {"scale": 0.5}}, "recipe.augmentation.scale is a list, got 0.5"),
        ({"data": "all"}, "recipe.data is a section with names and values, got 'all'"),
        (
            {"batch": 64, "accumulate": 3},
            r"recipe.batch \(64\) must be a multiple of recipe.accumulate \(3\)",
        ),
        ({"schedule": {"warm_up_epochs": 9}}, "9.0 warm-up epochs of 2 epochs"),
        ({"architecture": {"crop": 0.0}}, r"architecture.crop is a share of the picture's side in \(0, 1\]"),
    ],
)
def test_a_wrong_recipe_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe.from_dict(recipe_values(**changes))


def test_a_recipe_needs_a_name_and_a_method() -> None:
    with pytest.raises(UsageError, match="recipe lacks 'name'"):
        Recipe.from_dict({"method": "simclr"})


def test_numbers_may_be_written_without_a_dot(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\nmethod: simclr\noptimizer: {learning_rate: 1e-3, weight_decay: 1}\n")
    recipe = Recipe.read(path)
    assert recipe.optimizer.learning_rate == 0.001
    assert recipe.optimizer.weight_decay == 1.0


def test_settings_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\nmethod: simclr\nschedule: {epochs: 7}\n")
    recipe = Recipe.read(
        path, ["schedule.max_steps=2", "augmentation.scale=[0.5, 1]", "objective.temperature=0.5"]
    )
    assert (recipe.schedule.epochs, recipe.schedule.max_steps) == (7, 2)
    assert recipe.augmentation.scale == (0.5, 1.0)
    assert recipe.to_dict()["objective"]["temperature"] == 0.5


@pytest.mark.parametrize("setting", ["batch", "=3", "batch.size=3"])
def test_a_setting_in_another_form_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        override({"batch": 5}, [setting])


@pytest.mark.parametrize("text", ["- a\n", "{", None])
def test_what_is_no_yaml_mapping_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnreadableFile, match=r"recipe\.yaml"):
        read_yaml(path)


def test_the_difference_has_every_changed_value() -> None:
    first = Recipe.from_dict(recipe_values())
    second = Recipe.from_dict(recipe_values(batch=32, optimizer={"learning_rate": 0.2}))
    assert first.difference(second) == ["optimizer.learning_rate: 0.1 → 0.2", "batch: 64 → 32"]
    assert first.difference(first) == []
    assert difference({"a": (1, 2)}, {"a": [1, 2]}) == []


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [cosine_with_warm_up(step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * number for number in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert cosine_with_warm_up(0, 5, 0) == 1.0
