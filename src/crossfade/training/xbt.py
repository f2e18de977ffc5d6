"""Stage 2 of XBT, whole: a few image-text pairs, the new model and φ, to a model in the old space.

"Towards Cross-modal Backward-compatible Representation Learning for Vision-Language Models", ICCV 2025.
The old model is not asked for: what it was is in φ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.adapters import Adapter, load_adapter
from crossfade.datasets.image_texts import ImageTexts, open_image_texts
from crossfade.encoders.architecture import Architecture
from crossfade.encoders.dual_network import Tokens
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.encoders.tuned import CONFIG, TunedDual, read_config, require_projection
from crossfade.encoders.tuned_network import TunedNetwork
from crossfade.errors import DataError, NotSupported, UsageError
from crossfade.spaces import Space
from crossfade.training.augment import Augmentation
from crossfade.training.checkpoint import NAME as CHECKPOINT
from crossfade.training.checkpoint import require_same_identity
from crossfade.training.distributed import Workers
from crossfade.training.loop import Log, train
from crossfade.training.order import Rows, Shuffled
from crossfade.training.own_vectors import OwnVectors, own_vectors
from crossfade.training.pairs_data import ImagePairs, PairBatches, read_pairs
from crossfade.training.xbt_learner import OWN, XbtLearner
from crossfade.training.xbt_recipe import XbtRecipe

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainedXbt:
    """A finished second stage.

    Attributes:
        directory: ``open_encoder("xbt:DIRECTORY#image")`` and ``#text`` open it.
        space: the old model's, which it embeds into.
        new: the new model's own space, which it embeds into when switched off.
        images, captions: how many were trained on.
        truncated: captions, of all in the data, that are longer than the new model's context.
        corrupt: ids of unreadable images that were left out.
        epochs: the log, one entry per epoch.
        seconds, processor_seconds: of all epochs.
    """

    directory: Path
    space: Space
    new: Space
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
            "directory": str(self.directory),
            "space": self.space.to_dict(),
            "new": self.new.to_dict(),
            "images": self.images,
            "captions": self.captions,
            "truncated": self.truncated,
            "corrupt": list(self.corrupt),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "processor seconds": self.processor_seconds,
        }


def train_xbt(
    recipe: XbtRecipe,
    new: str | Path,
    projection: str | Path,
    data: str | Path | ImageTexts,
    out: str | Path,
    *,
    cache: str | Path | None = None,
    split: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    log: Log | None = None,
) -> TrainedXbt:
    """Tune the new model for the old space; stopped, it goes on where it was.

    Args:
        new: folder or Hub name of the new model, also as ``hf:NAME[@REVISION]``.
        projection: folder of φ, from the new model's space to the old one's (stage 1).
        data: captioned images, or where they are.
        out: folder of the result; the checkpoint stands in it until the end.
        cache: folder of decoded pictures and of the new model's own vectors; ``pixels`` beside `out` unless
            given. Trainings of the same model on the same data share them.
        split: of the data, where it has several.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with a stage, what is done of it, and the whole.
        log: called with the step and its numbers.

    Raises:
        SpaceError: φ is of another new model; with both spaces.
        UsageError: `out` is of another run.
        NotSupported: φ has no gradient, or the new model has no layers to tune.
        DataError: unreadable images, or fewer than a batch.
        TrainingDiverged: the loss became NaN or infinite.
    """
    workers, directory = Workers(device), Path(out)
    report = progress if progress is not None and workers.main else _silent
    phi, location, revision = load_adapter(projection), *split_model(new)
    base = HuggingFaceDual.load(location, revision=revision, device=str(workers.device))
    require_projection(phi, base.space)
    images = open_image_texts(data, split=split) if isinstance(data, str | Path) else data
    folder = Path(cache) if cache is not None else directory.parent / "pixels"
    with workers.main_first():
        pairs = read_pairs(
            images, base.settings, folder, on_corrupt=recipe.data.corrupt, progress=_stage(report, "decode")
        )
        tokens = base.tokenize(pairs.captions)
        rows = chosen_images(pairs, recipe)
        facts = _facts(recipe, base.space, phi, pairs, rows, tokens)
        if (directory / CONFIG).exists():
            return _finished(directory, facts)
        own = own_vectors(base, pairs, tokens, folder, progress=_stage(report, "embed"))
    directory.mkdir(parents=True, exist_ok=True)
    parts = TunedNetwork(base.network, recipe.tuning, seed=recipe.seed)
    dual = TunedDual(base, parts, phi, location=location)
    learner = XbtLearner(parts, phi, recipe.objective, prompt_learning_rate=recipe.prompt_learning_rate)
    epochs = train(
        learner,
        _batches(recipe, base, pairs, tokens, own, rows, workers),
        recipe,
        directory,
        workers,
        identity=facts["identity"],
        progress=_stage(report, "train"),
        log=log if workers.main else None,
    )
    if workers.main:
        dual.save(directory, notes={"training": {**facts, "epochs": epochs}})
        (directory / CHECKPOINT).unlink(missing_ok=True)
    workers.wait()
    return _finished(directory, facts)


def chosen_images(pairs: ImagePairs, recipe: XbtRecipe) -> Rows:
    """The images that are trained on; of one seed, fewer are part of more.

    Raises:
        DataError: more are asked for than there are.
    """
    wanted = recipe.data.images
    if wanted is None:
        return np.arange(len(pairs))
    if wanted > len(pairs):
        raise DataError(
            f"{pairs.name} has {len(pairs)} images, data.images asks for {wanted}; lower it or leave it out"
        )
    drawn = np.random.default_rng(recipe.seed).permutation(len(pairs))[:wanted]
    return np.sort(drawn)


def split_model(new: str | Path) -> tuple[str, str | None]:
    """Location and revision of ``hf:NAME_OR_DIR[@REVISION]``, or of a plain folder or name.

    Raises:
        NotSupported: a model that is not of transformers.
        UsageError: one tower of it.
    """
    text = str(new)
    if "#" in text:
        raise UsageError(f"{text}: both towers are tuned; leave out #{text.rpartition('#')[2]}")
    kind, colon, rest = text.partition(":")
    if colon and kind == "hf":
        location, _, revision = rest.partition("@") if not Path(rest).is_dir() else (rest, "", "")
        return location, revision or None
    if colon and not Path(text).is_dir():
        raise NotSupported(
            f"{text}: only models of transformers are tuned; give a folder, a name or hf:NAME[@REVISION]"
        )
    return text, None


def _batches(
    recipe: XbtRecipe,
    base: HuggingFaceDual,
    pairs: ImagePairs,
    tokens: Tokens,
    own: OwnVectors,
    rows: Rows,
    workers: Workers,
) -> PairBatches:
    side = base.settings.side
    looks = Architecture(picture_size=side, input_size=side)
    return PairBatches(
        pairs,
        tokens,
        Shuffled(len(rows), recipe.batch, recipe.seed),
        Augmentation(recipe.augmentation, looks) if recipe.augments else None,
        accumulate=recipe.accumulate,
        seed=recipe.seed,
        workers=workers,
        rows=rows,
        image_vectors={OWN: own.images},
        caption_vectors={OWN: own.captions},
    )


def _facts(
    recipe: XbtRecipe, new: Space, phi: Adapter, pairs: ImagePairs, rows: Rows, tokens: Tokens
) -> dict[str, Any]:
    """What config.json tells of the training; a run is the same if its identity is."""
    identity = {
        "recipe": recipe.to_dict(),
        "data": {"images": len(rows), "digest": pairs.digest(rows)},
        "new": new.to_dict(),
        "projection": _digest(phi),
    }
    return {
        "identity": json.loads(json.dumps(identity)),
        "images": len(rows),
        "captions": len(pairs.captions_of(rows)),
        "truncated": tokens.truncated,
        "corrupt": list(pairs.corrupt),
    }


def _digest(phi: Adapter) -> str:
    digest = hashlib.sha256(repr(phi.describe()).encode())
    for name, array in sorted(phi.arrays.items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _finished(directory: Path, facts: Mapping[str, Any]) -> TrainedXbt:
    config = read_config(directory)
    done = config.get("training", {})
    require_same_identity(done.get("identity", {}), facts["identity"], directory)
    epochs: Sequence[dict[str, float]] = done["epochs"]
    seconds, processor = (sum(epoch[clock] for epoch in epochs) for clock in ("seconds", "processor seconds"))
    return TrainedXbt(
        directory,
        Space.from_dict(config["space"]),
        Space.from_dict(config["base"]["space"]),
        done["images"],
        done["captions"],
        done["truncated"],
        tuple(done["corrupt"]),
        list(epochs),
        seconds,
        processor,
    )


def _stage(report: Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total)


def _silent(stage: str, done: int, total: int) -> None:
    pass
