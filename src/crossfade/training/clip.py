"""From a recipe and captioned images to a dual encoder that Hugging Face's libraries open."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossfade.datasets.image_texts import open_image_texts
from crossfade.encoders.architecture import Architecture
from crossfade.encoders.hub import CONFIG, find_model
from crossfade.encoders.hugging_face import HuggingFaceDual, read_dual_notes
from crossfade.encoders.tokenizing import TextReader
from crossfade.spaces import Space
from crossfade.training.augment import Augmentation
from crossfade.training.checkpoint import NAME as CHECKPOINT
from crossfade.training.checkpoint import require_same_identity
from crossfade.training.clip_learner import ClipLearner
from crossfade.training.clip_model import make_network, picture_settings
from crossfade.training.clip_recipe import ClipRecipe
from crossfade.training.distributed import Workers
from crossfade.training.loop import Advance, Log, train
from crossfade.training.order import Rows, Shuffled
from crossfade.training.pairs_data import CaptionedPictures, ImagePairs, PairBatches, read_pairs
from crossfade.training.tokenizer import train_tokenizer


@dataclass(frozen=True)
class TrainedClip:
    """A finished training of a dual encoder.

    Attributes:
        directory: where the model is; ``open_encoder("hf:DIRECTORY#image")`` and ``#text`` open its towers.
        space: the space that both towers embed into.
        images, captions: how many it was trained on.
        truncated: captions of these that are longer than the context, and were cut.
        corrupt: ids of unreadable images that were left out.
        epochs: the log, one entry per epoch.
        seconds: time of all epochs.
        processor_seconds: time that this process's processors worked on them.
    """

    directory: Path
    space: Space
    images: int
    captions: int
    truncated: int
    corrupt: tuple[int | str, ...]
    epochs: list[dict[str, float]]
    seconds: float
    processor_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            **vars(self),
            "directory": str(self.directory),
            "space": self.space.to_dict(),
            "corrupt": list(self.corrupt),
        }


def train_clip(
    recipe: ClipRecipe,
    data: str | Path | CaptionedPictures,
    out: str | Path,
    *,
    cache: str | Path | None = None,
    split: str | None = None,
    images: str | Path | None = None,
    device: str = "auto",
    progress: Advance | None = None,
    log: Log | None = None,
) -> TrainedClip:
    """Train a dual encoder from scratch, or go on where an earlier call with the same settings stopped.

    The tokenizer is trained first, on the captions of the chosen images. In every step one caption of each
    image is drawn.

    Args:
        data: captioned images, or where `open_image_texts` finds them.
        out: folder of the model, in Hugging Face's layout; also holds the checkpoint until the end.
        cache: folder for decoded pictures, shared by all trainings on the same images at the same size; by
            default ``pixels`` beside `out`.
        split, images: split and root of the images, where `data` is a location (see `open_image_texts`).
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with (pairs done, pairs in all).
        log: called with the step and its numbers.

    Raises:
        UsageError: `out` holds a run with other settings.
        DataError: unreadable images, fewer pairs than a batch.
        TrainingDiverged: the loss became NaN or infinite.
    """
    workers, directory = Workers(device), Path(out)
    pairs = _read(recipe, data, split, images, cache or directory.parent / "pixels", workers)
    chosen = _choose(recipe, pairs, directory)
    if (directory / CONFIG).exists():
        return _finished(chosen)
    directory.mkdir(parents=True, exist_ok=True)
    network = make_network(recipe, chosen.tokenizer, workers.device)
    reader = TextReader(chosen.tokenizer, network.model.config, network.context_length)
    learner, architecture = ClipLearner(network), recipe.architecture
    sizes = Architecture(picture_size=pairs.array.shape[1], input_size=architecture.image_size)
    batches = PairBatches(
        pairs,
        reader.tokenize(pairs.captions),
        Shuffled(len(chosen.rows), recipe.batch, recipe.seed),
        Augmentation(recipe.augmentation, sizes),
        accumulate=recipe.accumulate,
        seed=recipe.seed,
        workers=workers,
        rows=chosen.rows,
    )
    shown, logged = (progress, log) if workers.main else (None, None)
    identity = chosen.identity
    epochs = train(
        learner, batches, recipe, directory, workers, identity=identity, progress=shown, log=logged
    )
    if workers.main:
        _save(learner, chosen, epochs)
    workers.wait()
    return _finished(chosen)


@dataclass(frozen=True)
class _Chosen:
    """What is trained on, its tokenizer, and where the model goes."""

    recipe: ClipRecipe
    pairs: ImagePairs
    rows: Rows
    tokenizer: Any
    tokenizer_digest: str
    truncated: int
    directory: Path

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_dict(),
            "data": {
                "images": len(self.rows),
                "captions": len(self.pairs.captions_of(self.rows)),
                "digest": self.pairs.digest(self.rows),
            },
            "tokenizer": self.tokenizer_digest,
        }


def _read(
    recipe: ClipRecipe,
    data: str | Path | CaptionedPictures,
    split: str | None,
    images: str | Path | None,
    cache: str | Path,
    workers: Workers,
) -> ImagePairs:
    if isinstance(data, str | Path):
        chosen = recipe.data
        data = open_image_texts(
            data,
            split=split,
            images=images,
            image_column=chosen.image_column,
            caption_column=chosen.caption_column,
            id_column=chosen.id_column,
        )
    side = recipe.architecture.picture_size or recipe.architecture.image_size
    settings = picture_settings(recipe.architecture, side)
    with workers.main_first():
        return read_pairs(data, settings, cache, on_corrupt=recipe.data.corrupt)


def _choose(recipe: ClipRecipe, pairs: ImagePairs, directory: Path) -> _Chosen:
    rows = recipe.data.rows(len(pairs))
    captions = [pairs.captions[row] for row in pairs.captions_of(rows)]
    length = recipe.architecture.context_length
    tokenizer = train_tokenizer(
        captions,
        vocabulary=recipe.tokenizer.vocabulary,
        context_length=length,
        lowercase=recipe.tokenizer.lowercase,
    )
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]
    read = tokenizer(captions, truncation=True, max_length=length).encodings
    truncated = sum(bool(one.overflowing) for one in read)
    return _Chosen(recipe, pairs, rows, tokenizer, digest, truncated, directory)


def _save(learner: ClipLearner, chosen: _Chosen, epochs: Sequence[dict[str, float]]) -> None:
    network = learner.network.to(memory_format=torch.contiguous_format)
    chosen.tokenizer.backend_tokenizer.no_truncation()  # what was used here last would be written
    chosen.tokenizer.backend_tokenizer.no_padding()
    space = Space(chosen.recipe.name, network.dimension, normalized=True)
    settings = picture_settings(chosen.recipe.architecture, network.image_size)
    dual = HuggingFaceDual(network, chosen.tokenizer, settings, space, device="cpu")
    dual.save(chosen.directory, notes={"identity": chosen.identity, "epochs": list(epochs)})
    (chosen.directory / CHECKPOINT).unlink(missing_ok=True)


def _finished(chosen: _Chosen) -> TrainedClip:
    notes = read_dual_notes(chosen.directory)
    require_same_identity(notes.get("identity", {}), chosen.identity, chosen.directory)
    found = find_model(chosen.directory)
    dimension = chosen.recipe.architecture.dimension
    return TrainedClip(
        directory=chosen.directory,
        space=Space(found.name, dimension, normalized=True, revision=found.revision),
        images=len(chosen.rows),
        captions=len(chosen.pairs.captions_of(chosen.rows)),
        truncated=chosen.truncated,
        corrupt=chosen.pairs.corrupt,
        epochs=notes["epochs"],
        seconds=sum(epoch["seconds"] for epoch in notes["epochs"]),
        processor_seconds=sum(epoch["processor seconds"] for epoch in notes["epochs"]),
    )
