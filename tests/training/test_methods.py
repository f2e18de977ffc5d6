"""Every method end to end on handwritten digits, 5 classes to 10, in the order that the papers publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from tiny_training import TINY_RESNET, recipe_values

from crossfade.datasets.images import open_images
from crossfade.encoders import CallableEncoder, open_encoder
from crossfade.errors import DataError, DimensionMismatch, IdMismatch, UsageError
from crossfade.spaces import Space
from crossfade.training import Recipe, embed_images, train_model
from crossfade.vectors import open_vectors

OLD = {
    "data": {"classes": "first half", "fraction": 0.3},
    "schedule": {"epochs": 4},
    "objective": {"label_smoothing": 0.1},
}
NEW = {"seed": 1, "schedule": {"epochs": 6}, "objective": {"label_smoothing": 0.1}}
MODELS: dict[str, dict[str, Any]] = {
    "old": OLD,
    "new": NEW,
    "bct": {**NEW, "method": "bct"},
    "synthesized": {
        **NEW,
        "method": "bct",
        "objective": {"label_smoothing": 0.1, "influence": "synthesized"},
    },
    "metric": {
        **NEW,
        "method": "metric-learning",
        "objective": {"loss": "ProxyAnchorLoss", "proxy_learning_rate": 10.0},
    },
    "pairs": {
        **NEW,
        "method": "metric-learning",
        "objective": {"loss": "SupConLoss", "images_per_class": 8, "miner": "MultiSimilarityMiner"},
        "batch": 64,
    },
    "from-means": {
        **NEW,
        "method": "bct",
        "objective": {"label_smoothing": 0.1, "influence": "synthesized", "scale": 10.0},
        "optimizer": {"learning_rate": 0.03},
    },
    "side-info": {**OLD, "data": {"classes": "first half"}, "method": "simclr", "objective": {}},
    "untrained": {**NEW, "optimizer": {"learning_rate": 0.0}, "schedule": {"max_steps": 1}},
}


def _recipe(name: str) -> Recipe:
    config = {**TINY_RESNET, "embedding_size": 16, "hidden_sizes": [16, 16]}
    values = recipe_values(architecture={"dimension": 8, "config": config}, batch=32)
    return Recipe.from_dict(recipe_values(**{**values, "name": name, **MODELS[name]}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def vectors(digits: dict[str, Path], folder: Path) -> Callable[[str], np.ndarray]:
    """The test set's vectors under a model, which is trained when it is first asked for."""

    def of(name: str) -> np.ndarray:
        path = folder / f"{name}.parquet"
        if not path.exists():
            recipe = _recipe(name)
            old = None
            if recipe.method == "bct":
                of("old")
                old = folder / "old"
            train_model(recipe, digits["train"], folder / name, old=old, device="cpu")
            encoder = open_encoder(f"trained:{folder / name}")
            embed_images(encoder, open_images(digits["test"]), path, cache=folder / "pixels")
        return open_vectors(str(path)).read().matrix

    return of


@pytest.fixture(scope="module")
def labels(digits: dict[str, Path]) -> np.ndarray:
    images = open_images(digits["test"])
    return np.array(images.labels.names)[images.labels.codes]


def _mean_average_precision(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> float:
    """L2 distance, the query itself left out, with scikit-learn's average precision."""
    distances = np.linalg.norm(queries[:, None] - gallery[None], axis=2)
    found = []
    for row, label in enumerate(labels):
        others = np.arange(len(labels)) != row
        found.append(average_precision_score(labels[others] == label, -distances[row, others]))
    return float(np.mean(found))


def test_the_papers_order_holds(vectors: Callable[[str], np.ndarray], labels: np.ndarray) -> None:
    """new/old without compatibility < old/old < BCT new/old < BCT new/new < new/new (Shen et al.)."""
    old, new, bct = vectors("old"), vectors("new"), vectors("bct")
    naive = _mean_average_precision(new, old, labels)
    status_quo = _mean_average_precision(old, old, labels)
    compatible = _mean_average_precision(bct, old, labels)
    backfilled = _mean_average_precision(bct, bct, labels)
    free = _mean_average_precision(new, new, labels)
    assert naive + 0.05 < status_quo
    assert status_quo + 0.03 < compatible
    assert compatible + 0.2 < backfilled
    assert backfilled + 0.02 < free


def test_a_synthesized_classifier_also_makes_it_compatible(
    vectors: Callable[[str], np.ndarray], labels: np.ndarray
) -> None:
    old = vectors("old")
    compatible = _mean_average_precision(vectors("synthesized"), old, labels)
    assert compatible > _mean_average_precision(old, old, labels) + 0.02
    assert compatible > _mean_average_precision(vectors("new"), old, labels) + 0.1


@pytest.mark.parametrize("name", ["metric", "pairs"])
def test_metric_losses_learn_the_classes(
    name: str, vectors: Callable[[str], np.ndarray], labels: np.ndarray
) -> None:
    own = vectors(name)
    untrained = _mean_average_precision(vectors("untrained"), vectors("untrained"), labels)
    assert _mean_average_precision(own, own, labels) > max(0.6, untrained + 0.3)


def test_side_information_tells_classes_apart_that_it_never_saw(
    vectors: Callable[[str], np.ndarray], labels: np.ndarray
) -> None:
    """SimCLR sees the digits 0 to 4 without labels; nearest neighbours among 5 to 9 still share a class."""
    unseen = labels >= 5

    def nearest(matrix: np.ndarray) -> float:
        part, names = matrix[unseen], labels[unseen]
        distances = np.linalg.norm(part[:, None] - part[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        return float((names[distances.argmin(1)] == names).mean())

    assert nearest(vectors("side-info")) > nearest(vectors("old")) + 0.02


def test_any_encoder_is_side_information(digits: dict[str, Path], tmp_path: Path) -> None:
    encoder = CallableEncoder(lambda items: [[len(item), 1.0] for item in items], Space("length", 2))
    done = embed_images(encoder, open_images(digits["test"]), tmp_path / "side.parquet")
    found = open_vectors(str(tmp_path / "side.parquet")).read(("label",))
    images = open_images(digits["test"])
    assert done.rows == len(found) == len(images)
    assert found.space == Space("length", 2)
    assert found.matrix[:, 0].tolist() == [len(content) for content in images.contents()]
    assert found.columns["label"].to_pylist() == [images.labels.names[code] for code in images.labels.codes]


def test_bct_without_the_old_model_says_what_it_can_use(digits: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"give --old DIR, or --old-vectors FILE .*influence=synthesized"):
        train_model(_recipe("bct"), digits["train"], tmp_path / "bct", device="cpu")


def test_bct_without_the_old_classifier_offers_to_synthesize_it(
    digits: dict[str, Path],
    folder: Path,
    vectors: Callable[[str], np.ndarray],
    labels: np.ndarray,
    tmp_path: Path,
) -> None:
    vectors("metric")
    with pytest.raises(
        UsageError, match=r"has no classifier.*synthesize one .*objective\.influence=synthesized"
    ):
        train_model(_recipe("bct"), digits["train"], tmp_path / "bct", old=folder / "metric", device="cpu")


def test_bct_needs_nothing_but_the_old_vectors(
    digits: dict[str, Path],
    folder: Path,
    vectors: Callable[[str], np.ndarray],
    labels: np.ndarray,
    tmp_path: Path,
) -> None:
    """The old model is gone, its vectors of the new data are there: directions of class means."""
    old = vectors("old")
    stored = tmp_path / "old-train.parquet"
    embed_images(open_encoder(f"trained:{folder / 'old'}"), open_images(digits["train"]), stored)
    recipe = _recipe("from-means")
    model = train_model(recipe, digits["train"], tmp_path / "bct", old_vectors=str(stored), device="cpu")
    path = tmp_path / "test.parquet"
    embed_images(open_encoder(f"trained:{model.directory}"), open_images(digits["test"]), path)
    new = open_vectors(str(path)).read().matrix
    compatible = _mean_average_precision(new, old, labels)
    assert compatible > _mean_average_precision(old, old, labels) + 0.02
    assert compatible > _mean_average_precision(vectors("new"), old, labels) + 0.1


def test_old_vectors_must_have_every_image(
    digits: dict[str, Path], folder: Path, vectors: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    vectors("old")
    with pytest.raises(IdMismatch, match=r"lacks 603 of 1200 images; embed them all with the old model"):
        train_model(
            _recipe("synthesized"),
            digits["train"],
            tmp_path / "bct",
            old_vectors=str(folder / "old.parquet"),
            device="cpu",
        )


def test_bct_keeps_the_dimension(
    digits: dict[str, Path], folder: Path, vectors: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    vectors("old")
    recipe = Recipe.from_dict(recipe_values(method="bct", architecture={"dimension": 12}))
    with pytest.raises(
        DimensionMismatch, match=r"the old model has 8, architecture\.dimension is 12; set it to 8"
    ):
        train_model(recipe, digits["train"], tmp_path / "bct", old=folder / "old", device="cpu")


def test_bct_on_classes_that_the_old_classifier_does_not_know(
    digits: dict[str, Path], folder: Path, vectors: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    vectors("old")
    values = {**_recipe("bct").to_dict(), "data": {"classes": "last 5"}}
    with pytest.raises(DataError, match=r"knows none of the 5 classes: it has 0 to 4, the data 5 to 9"):
        train_model(
            Recipe.from_dict(values), digits["train"], tmp_path / "bct", old=folder / "old", device="cpu"
        )
