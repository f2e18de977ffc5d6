"""From a recipe and a labelled set to a saved model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from crossfade.datasets.images import LabelledImages, open_images
from crossfade.datasets.protocols import Part, choose_part, require_several_per_class, without_small_classes
from crossfade.encoders.network import EmbeddingNetwork
from crossfade.encoders.trained import CONFIG, TrainedEncoder, read_notes, save_trained
from crossfade.errors import IdMismatch, UsageError
from crossfade.spaces import Space
from crossfade.training.augment import Augmentation
from crossfade.training.bct import BctLearner
from crossfade.training.checkpoint import NAME as CHECKPOINT
from crossfade.training.checkpoint import require_same_identity
from crossfade.training.classification import ClassificationLearner
from crossfade.training.classifier import ClassWeights, load_classifier, save_classifier, synthesize
from crossfade.training.data import Batches
from crossfade.training.distributed import Workers
from crossfade.training.learner import ImageLearner
from crossfade.training.loop import Advance, Log, train
from crossfade.training.metric_learning import MetricLearner
from crossfade.training.order import Balanced, Order, Shuffled
from crossfade.training.pixels import Pixels, cache_pixels
from crossfade.training.recipe import (
    BctObjective,
    ClassificationObjective,
    MetricLearningObjective,
    Recipe,
    SimclrObjective,
)
from crossfade.training.simclr import SimclrLearner
from crossfade.vectors import FloatMatrix, open_vectors
from crossfade.vectors.ids import IdIndex


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        directory: where the model is; ``open_encoder("trained:DIRECTORY")`` opens it.
        space: the space that it embeds into.
        images, classes: how many it was trained on.
        corrupt: ids of unreadable images that were left out.
        epochs: the log, one entry per epoch.
        seconds: time of all epochs.
        processor_seconds: time that this process's processors worked on them.
    """

    directory: Path
    space: Space
    images: int
    classes: int
    corrupt: tuple[int | str, ...]
    epochs: list[dict[str, float]]
    seconds: float
    processor_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "directory": str(self.directory),
            "space": self.space.to_dict(),
            "images": self.images,
            "classes": self.classes,
            "corrupt": list(self.corrupt),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
        }


def train_model(
    recipe: Recipe,
    data: str | Path | LabelledImages,
    out: str | Path,
    *,
    cache: str | Path | None = None,
    old: str | Path | None = None,
    old_vectors: str | None = None,
    device: str = "auto",
    progress: Advance | None = None,
    log: Log | None = None,
) -> Trained:
    """Train what a recipe describes, or go on where an earlier call with the same settings stopped.

    Args:
        data: labelled images, or where `open_images` finds them.
        out: folder of the model; also holds the checkpoint until the end.
        cache: folder for decoded pictures, shared by all trainings on the same images; by default
            ``pixels`` beside `out`.
        old: folder of the old model, for backward-compatible training.
        old_vectors: vectors of the old model for these images, where the model itself is gone.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with (images done, images in all).
        log: called with the step and its numbers.

    Raises:
        UsageError: `out` holds a run with other settings, or the method needs something that is missing.
        DataError: unreadable images, classes that are too small, labels outside a classifier.
        TrainingDiverged: the loss became NaN or infinite.
    """
    workers, directory = Workers(device), Path(out)
    pixels, part = _read(recipe, data, cache or directory.parent / "pixels", workers)
    identity = {
        "recipe": recipe.to_dict(),
        "data": _data_identity(pixels, part),
        "old": read_notes(old)["space"]["revision"] if old else old_vectors,
    }
    if (directory / CONFIG).exists():
        return _finished(directory, identity, pixels, part)
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = EmbeddingNetwork(recipe.architecture, recipe.weights)
    learner = make_learner(
        recipe, network, part, old=lambda: _old_classifier(recipe, pixels, part, old, old_vectors)
    )
    batches = Batches(
        pixels.array,
        part,
        _order(recipe, part),
        Augmentation(recipe.augmentation, recipe.architecture),
        views=learner.views,
        accumulate=recipe.accumulate,
        seed=recipe.seed,
        workers=workers,
    )
    main_progress, main_log = (progress, log) if workers.main else (None, None)
    epochs = train(
        learner, batches, recipe, directory, workers, identity=identity, progress=main_progress, log=main_log
    )
    if workers.main:
        _save(learner, recipe, directory, identity, part, epochs)
    workers.wait()
    return _finished(directory, identity, pixels, part)


def make_learner(recipe: Recipe, network: EmbeddingNetwork, part: Part, *, old: Any = None) -> ImageLearner:
    """The network with the loss that the recipe names.

    Args:
        part: what is trained on; its classes are the classifier's.
        old: gives the old classifier when it is called, for backward-compatible training.
    """
    objective = recipe.objective
    if isinstance(objective, BctObjective):
        return BctLearner(network, part.names, old(), objective)
    if isinstance(objective, ClassificationObjective):
        return ClassificationLearner(network, len(part.names), objective)
    if isinstance(objective, MetricLearningObjective):
        return MetricLearner(network, len(part.names), objective)
    assert isinstance(objective, SimclrObjective)
    return SimclrLearner(network, objective)


def _read(
    recipe: Recipe, data: str | Path | LabelledImages, cache: str | Path, workers: Workers
) -> tuple[Pixels, Part]:
    columns = {
        "image": recipe.data.image_column,
        "label": recipe.data.label_column,
        "identifier": recipe.data.id_column,
    }
    images = data if isinstance(data, LabelledImages) else open_images(data, **columns)
    with workers.main_first():
        pixels = cache_pixels(images, recipe.architecture.picture_size, cache, on_corrupt=recipe.data.corrupt)
    part = choose_part(
        pixels.labels, classes=recipe.data.classes, fraction=recipe.data.fraction, seed=recipe.seed
    )
    return pixels, _with_pairs(recipe, part, pixels.name)


def _with_pairs(recipe: Recipe, part: Part, name: str) -> Part:
    """Losses on pairs need two images of a class."""
    if not isinstance(recipe.objective, MetricLearningObjective):
        return part
    if recipe.data.small_classes == "skip":
        return without_small_classes(part, 2)
    require_several_per_class(part, 2, name)
    return part


def _order(recipe: Recipe, part: Part) -> Order:
    objective = recipe.objective
    if isinstance(objective, MetricLearningObjective) and objective.images_per_class is not None:
        return Balanced(part.codes, recipe.batch, objective.images_per_class, recipe.seed)
    return Shuffled(len(part), recipe.batch, recipe.seed)


def _old_classifier(
    recipe: Recipe, pixels: Pixels, part: Part, old: str | Path | None, old_vectors: str | None
) -> ClassWeights:
    assert isinstance(recipe.objective, BctObjective)
    if old is None and old_vectors is None:
        raise UsageError(
            "backward-compatible training needs the old model: give --old DIR, or --old-vectors FILE with "
            "its vectors of these images and --set objective.influence=synthesized"
        )
    classifier = load_classifier(old) if old else None
    if recipe.objective.influence == "known":
        if classifier is None:
            raise UsageError(
                f"{old or old_vectors} has no classifier, which the influence loss on known classes needs; "
                "synthesize one from the mean old embedding of each class: "
                "--set objective.influence=synthesized"
            )
        return classifier
    if old_vectors is not None:
        embeddings = _vectors_of(old_vectors, pixels, part)
    else:
        assert old is not None
        embeddings = _embed_part(old, pixels, part)
    return synthesize(classifier, embeddings, part.codes, part.names)


def _embed_part(old: str | Path, pixels: Pixels, part: Part) -> FloatMatrix:
    encoder = TrainedEncoder.load(old)
    side = encoder.network.architecture.picture_size
    if side != pixels.array.shape[1]:
        raise UsageError(
            f"the old model reads pictures of {side} pixels, this recipe decodes {pixels.array.shape[1]}; "
            "set architecture.picture_size to the same, or embed the images first (crossfade train embed) "
            "and give --old-vectors"
        )
    parts = [
        encoder.encode_pictures(pixels.array[part.rows[i : i + 4096]]) for i in range(0, len(part), 4096)
    ]
    return np.concatenate(parts)


def _vectors_of(location: str, pixels: Pixels, part: Part) -> FloatMatrix:
    vectors = open_vectors(location).read()
    rows = IdIndex([vectors.ids]).rows(pixels.ids.take(pa.array(part.rows)))
    if (rows < 0).any():
        raise IdMismatch(
            f"{location} lacks {int((rows < 0).sum())} of {len(part)} images; "
            "embed them all with the old model"
        )
    return vectors.matrix[rows]


def _data_identity(pixels: Pixels, part: Part) -> dict[str, Any]:
    digest = hashlib.sha256(part.rows.tobytes() + part.codes.tobytes() + repr(part.names).encode())
    return {"images": len(part), "classes": len(part.names), "digest": digest.hexdigest()[:16]}


def _save(
    learner: ImageLearner,
    recipe: Recipe,
    directory: Path,
    identity: dict[str, Any],
    part: Part,
    epochs: Sequence[dict[str, float]],
) -> None:
    """Weights and classifier first, config.json last: its presence says that the model is complete."""
    notes: dict[str, Any] = {"classes": list(part.names), "identity": identity, "epochs": list(epochs)}
    if learner.classifier is not None:
        save_classifier(learner.classifier, directory)
        notes["classifier"] = {"normalized": learner.classifier.normalized, "scale": learner.classifier.scale}
    save_trained(learner.network, directory, name=recipe.name, metric=recipe.metric, notes=notes)
    (directory / CHECKPOINT).unlink(missing_ok=True)


def _finished(directory: Path, identity: dict[str, Any], pixels: Pixels, part: Part) -> Trained:
    notes = read_notes(directory)
    require_same_identity(notes["identity"], identity, directory)
    seconds, processor = (
        sum(epoch[clock] for epoch in notes["epochs"]) for clock in ("seconds", "processor seconds")
    )
    space = Space.from_dict(notes["space"])
    return Trained(
        directory, space, len(part), len(part.names), pixels.corrupt, notes["epochs"], seconds, processor
    )
