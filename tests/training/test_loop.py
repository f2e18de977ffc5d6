"""The training loop: exact resumption, refusal, divergence, accumulation, two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import recipe_values

from crossfade.errors import DataError, TrainingDiverged, UnreadableFile, UsageError
from crossfade.training import Recipe, train_model
from crossfade.training.checkpoint import NAME

DROPOUT_VIT = {
    "backbone": "vit",
    "config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 4,
        "hidden_dropout_prob": 0.1,
    },
    "stem": "standard",
}
METHODS: dict[str, dict[str, Any]] = {
    "classification": {
        "method": "classification",
        "augmentation": {"crop": "resized", "jitter": 0.5, "hue": 0.1},
    },
    "metric-learning": {
        "method": "metric-learning",
        "objective": {"loss": "ProxyAnchorLoss"},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    },
    "simclr": {"method": "simclr", "optimizer": {"name": "adam", "learning_rate": 1e-3}, "accumulate": 2},
    "dropout": {
        "method": "classification",
        "architecture": DROPOUT_VIT,
        "optimizer": {"learning_rate": 0.01},
    },
}


def _recipe(**changes: Any) -> Recipe:
    schedule = {"epochs": 2, "max_steps": 12, "checkpoint_steps": 4, **changes.pop("schedule", {})}
    return Recipe.from_dict(recipe_values(schedule=schedule, **changes))


class StoppedError(Exception):
    pass


def _stop_after(images: int):
    def advance(done: int, total: int) -> None:
        if done >= images:
            raise StoppedError

    return advance


def _weights(directory: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(directory / "model.safetensors")
    if (directory / "classifier.safetensors").exists():
        tensors |= {f"classifier.{k}": v for k, v in load_file(directory / "classifier.safetensors").items()}
    return tensors


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_in_the_same_bits(method: str, digits: dict[str, Path], tmp_path: Path) -> None:
    recipe = _recipe(**METHODS[method])
    whole = train_model(recipe, digits["train"], tmp_path / "whole", device="cpu")
    for images in (6 * 64, 9 * 64):
        with pytest.raises(StoppedError):
            train_model(
                recipe, digits["train"], tmp_path / "parts", device="cpu", progress=_stop_after(images)
            )
        assert (tmp_path / "parts" / NAME).exists()
    resumed = train_model(recipe, digits["train"], tmp_path / "parts", device="cpu")
    first, second = _weights(whole.directory), _weights(resumed.directory)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.space == resumed.space
    assert [entry["loss"] for entry in whole.epochs] == [entry["loss"] for entry in resumed.epochs]
    assert not (resumed.directory / NAME).exists()


def test_another_seed_ends_elsewhere(digits: dict[str, Path], tmp_path: Path) -> None:
    spaces = {
        train_model(_recipe(seed=seed), digits["train"], tmp_path / str(seed), device="cpu").space.revision
        for seed in (0, 1)
    }
    assert len(spaces) == 2


def test_a_finished_run_is_not_repeated(digits: dict[str, Path], tmp_path: Path) -> None:
    first = train_model(_recipe(), digits["train"], tmp_path / "model", device="cpu")
    modified = (first.directory / "model.safetensors").stat().st_mtime_ns
    again = train_model(_recipe(), digits["train"], tmp_path / "model", device="cpu", progress=_stop_after(0))
    assert again == first
    assert (first.directory / "model.safetensors").stat().st_mtime_ns == modified


@pytest.mark.parametrize("finished", [False, True])
def test_another_recipe_is_refused_with_the_difference(
    finished: bool, digits: dict[str, Path], tmp_path: Path
) -> None:
    if finished:
        train_model(_recipe(), digits["train"], tmp_path / "model", device="cpu")
    else:
        with pytest.raises(StoppedError):
            train_model(
                _recipe(), digits["train"], tmp_path / "model", device="cpu", progress=_stop_after(300)
            )
    other = _recipe(optimizer={"learning_rate": 0.05}, data={"classes": "first half"})
    message = (
        r"holds a run with other settings \(recipe.data.classes: 'all' → 'first half'; "
        r"recipe.optimizer.learning_rate: 0.1 → 0.05; data.images: 1200 → \d+; .* another --out"
    )
    with pytest.raises(UsageError, match=message):
        train_model(other, digits["train"], tmp_path / "model", device="cpu")


def test_a_damaged_checkpoint_is_an_error(digits: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(UnreadableFile, match="not a readable checkpoint"):
        train_model(_recipe(), digits["train"], tmp_path / "model", device="cpu")


def test_a_diverging_loss_stops_with_step_and_advice(digits: dict[str, Path], tmp_path: Path) -> None:
    recipe = _recipe(optimizer={"learning_rate": 1e30})
    with pytest.raises(
        TrainingDiverged,
        match=r"the loss became (nan|inf) at step \d+ \(learning rate \S+\); lower --set optimizer",
    ):
        train_model(recipe, digits["train"], tmp_path / "model", device="cpu")
    assert not (tmp_path / "model" / "config.json").exists()


def test_labels_outside_the_classifier_are_refused(digits: dict[str, Path], tmp_path: Path) -> None:
    from crossfade.datasets.images import open_images
    from crossfade.datasets.protocols import choose_part
    from crossfade.encoders.network import EmbeddingNetwork
    from crossfade.training.augment import Augmentation
    from crossfade.training.classification import ClassificationLearner
    from crossfade.training.data import Batches
    from crossfade.training.distributed import Workers
    from crossfade.training.loop import train
    from crossfade.training.order import Shuffled
    from crossfade.training.pixels import cache_pixels

    recipe, workers = _recipe(), Workers("cpu")
    pixels = cache_pixels(open_images(digits["train"]), 8, tmp_path)
    part = choose_part(pixels.labels)
    learner = ClassificationLearner(EmbeddingNetwork(recipe.architecture), 5, recipe.objective)
    batches = Batches(
        pixels.array,
        part,
        Shuffled(len(part), 64, 0),
        Augmentation(recipe.augmentation, recipe.architecture),
        views=1,
        accumulate=1,
        seed=0,
        workers=workers,
    )
    with pytest.raises(DataError, match=r"label 9 is outside the classifier, which has 5 classes"):
        train(learner, batches, recipe, tmp_path, workers, identity={})


def _exact_vit() -> dict[str, Any]:
    return {**DROPOUT_VIT, "config": {**DROPOUT_VIT["config"], "hidden_dropout_prob": 0.0}}


def test_accumulated_parts_are_one_batch(digits: dict[str, Path], tmp_path: Path) -> None:
    """Without batch normalization the division of a batch changes nothing but rounding."""
    models = []
    for parts in (1, 4):
        recipe = _recipe(architecture=_exact_vit(), optimizer={"learning_rate": 0.01}, accumulate=parts)
        models.append(train_model(recipe, digits["train"], tmp_path / str(parts), device="cpu"))
    first, second = (_weights(model.directory) for model in models)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=1e-4)


SCRIPT = """
import json, sys
from crossfade.training import Recipe, train_model
for method, values in json.loads(sys.argv[1]).items():
    train_model(Recipe.from_dict(values), sys.argv[2], f"{sys.argv[3]}/{method}", device="cpu")
"""
SHARED = {
    "classification": {"objective": {"label_smoothing": 0.1}},
    "simclr": {"objective": {"projection": []}},
    "metric-learning": {"objective": {"loss": "SupConLoss", "images_per_class": 8}},
}


def test_two_processes_end_where_one_does(digits: dict[str, Path], tmp_path: Path) -> None:
    """A network without batch normalization, whose statistics on CPUs are each process's own."""
    recipes = {
        method: recipe_values(
            method=method,
            architecture=_exact_vit(),
            optimizer={"learning_rate": 0.05},
            schedule={"max_steps": 6},
            accumulate=2 if method == "classification" else 1,
            **changes,
        )
        for method, changes in SHARED.items()
    }
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(script), json.dumps(recipes), str(digits["train"]), str(tmp_path / "two")]
    done = subprocess.run(command + arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    for method, values in recipes.items():
        one = train_model(Recipe.from_dict(values), digits["train"], tmp_path / "one" / method, device="cpu")
        first, second = _weights(one.directory), _weights(tmp_path / "two" / method)
        assert first.keys() == second.keys()
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, atol=2e-5, rtol=1e-3)
