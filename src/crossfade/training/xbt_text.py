"""Stage 1 of XBT, whole: texts through both frozen text encoders, vectors on disk, φ trained and saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.prepared import PreparedPairs
from crossfade.datasets.texts import Texts
from crossfade.encoders.base import Encoder
from crossfade.errors import DataError, UsageError
from crossfade.training.embed_texts import EmbeddedTexts, cached_text_vectors
from crossfade.training.noise_choice import SigmaChoice, choose_sigma, unit_blocks
from crossfade.training.transformations import (
    TrainedTransformation,
    TransformationRecipe,
    train_transformation,
)
from crossfade.training.vector_loop import Log
from crossfade.vectors import FloatMatrix, Pairs, VectorSource, align

Progress = Callable[[str, int, int], None]
AUTO = "auto"


@dataclass(frozen=True)
class TrainedXbtText:
    """A finished stage 1.

    Attributes:
        trained: φ and its log.
        new, old: what was embedded with each model; None where its vectors were there already.
        choice: how σ was chosen; None where it was given.
    """

    trained: TrainedTransformation
    new: EmbeddedTexts | None
    old: EmbeddedTexts | None
    choice: SigmaChoice | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        embedded = {"new": self.new, "old": self.old}
        return {
            **self.trained.to_dict(),
            "texts": {name: one.to_dict() if one else None for name, one in embedded.items()},
            "sigma scores": {str(sigma): score for sigma, score in self.choice.scores.items()}
            if self.choice
            else None,
        }


def train_xbt_text(
    new: Encoder | VectorSource,
    old: Encoder | VectorSource,
    texts: Texts | None,
    out: str | Path,
    *,
    recipe: TransformationRecipe | None = None,
    images: VectorSource | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    log: Log | None = None,
) -> TrainedXbtText:
    """Train φ: new → old space on texts alone and save it in `out`; stopped, it goes on where it was.

    Both encoders stay as they are. Their vectors are kept in `cache`, so that another training, and one that
    goes on after an interruption, embeds nothing again; training streams them.

    Args:
        new, old: the text encoders of both models, or vectors that they made of the same texts, by id.
        texts: what the encoders embed; None where both are vectors.
        out: folder of the adapter; the checkpoint stands beside it until the end.
        recipe: of a projection; its option `sigma` may be ``auto``, which unpaired images decide
            (see `choose_sigma`).
        images: the new model's vectors of any images, for sigma ``auto``, and for the modality gap: the mean
            of these minus that of the texts, by which the recipe's `shifted` share of the rows is moved.
        cache: folder of the vectors; `out` with ``.vectors`` behind it unless given.
        device: where φ is trained: ``auto``, ``cpu`` or ``cuda``.
        progress: called with a stage, what is done of it and the whole; the whole is 0 where it is not known.
        log: called with the epoch and its numbers.

    Raises:
        UsageError: both models embed into the same space, `out` is there already, texts are missing or not
            needed, sigma is ``auto`` without images, images that change nothing, or an option is unknown or
            out of range.
        SpaceError: the images are not of the new model's space.
        IdMismatch: vectors of different texts.
        TooFewPairs: fewer distinct texts than the spaces have dimensions.
        TrainingDiverged: the loss became NaN or infinite.
    """
    recipe = recipe or TransformationRecipe("projection")
    _require_sound(new, old, texts, Path(out), recipe, images)
    folder = Path(cache) if cache is not None else Path(out).with_name(f"{Path(out).name}.vectors")
    report = progress or _silent
    new_texts, old_texts = (
        _embedded(encoder, texts, folder, f"embed texts ({name})", report)
        for name, encoder in (("new", new), ("old", old))
    )
    pairs = align(_vectors(old, old_texts), _vectors(new, new_texts)).reversed()
    gap = _gap(recipe, pairs, images)
    choice = _choice(recipe, pairs, images, gap, device, report)
    trained = train_transformation(
        recipe if choice is None else recipe.with_options(sigma=choice.sigma),
        pairs,
        out,
        gap=gap,
        held_out=_notes(choice),
        identity=_identity(texts, gap),
        device=device,
        progress=lambda done, total: report("train", done, total),
        log=log,
    )
    return TrainedXbtText(trained, new_texts, old_texts, choice)


def modality_gap(pairs: Pairs, images: VectorSource) -> FloatMatrix:
    """(d_source,) mean of the images minus mean of the texts, both under the new model.

    Args:
        pairs: new → old vectors of texts.
        images: the new model's vectors of any images.

    Raises:
        InvalidVectors: NaN, infinite or zero vectors.
    """
    texts = (x for x, _ in PreparedPairs(pairs).blocks())
    gap: FloatMatrix = (_mean(unit_blocks(images)) - _mean(texts)).astype(np.float32)
    return gap


def _mean(blocks: Iterator[FloatMatrix]) -> NDArray[np.float64]:
    total, rows = np.zeros(1), 0
    for block in blocks:
        total, rows = total + block.sum(axis=0, dtype=np.float64), rows + len(block)
    return total / rows


def _require_sound(
    new: Encoder | VectorSource,
    old: Encoder | VectorSource,
    texts: Texts | None,
    out: Path,
    recipe: TransformationRecipe,
    images: VectorSource | None,
) -> None:
    """Everything that can be refused before the first text is embedded."""
    if out.exists():
        raise UsageError(f"{out} is there already; name another --out, or remove it to train anew")
    if new.space == old.space:
        raise UsageError(
            f"the new and the old model embed into the same space, {new.space}; there is nothing to map: "
            "new queries search the old gallery as they are"
        )
    if recipe.method != "projection":
        raise UsageError(f"stage 1 of XBT trains a projection; the recipe is for {recipe.method!r}")
    encoders = [name for name, one in (("new", new), ("old", old)) if isinstance(one, Encoder)]
    if encoders and texts is None:
        raise UsageError(
            f"the {' and the '.join(encoders)} encoder need texts to embed; name them with --texts"
        )
    if texts is not None and not encoders:
        raise UsageError("both models' vectors are there already, so no texts are needed; leave --texts out")
    automatic = recipe.options.get("sigma") == AUTO
    adapter = recipe.with_options(**({"sigma": 0.0} if automatic else {})).make()
    if automatic and images is None:
        raise UsageError(
            "sigma=auto is judged on unpaired images of the new model; name their vectors (--images), "
            "or give a number"
        )
    if images is None:
        return
    new.space.require_same(images.space, f"images {images.name}")
    if not len(images):
        raise DataError(f"{images.name}: no vectors; name a file that has some, or leave --images out")
    if not automatic and not adapter.get_params()["shifted"]:
        raise UsageError(
            "images decide about sigma=auto, or move a share of the texts (shifted, from 0 to 1); "
            "with neither they change nothing: set one, or leave the images out"
        )


def _embedded(
    encoder: Encoder | VectorSource, texts: Texts | None, folder: Path, stage: str, report: Progress
) -> EmbeddedTexts | None:
    if texts is None or not isinstance(encoder, Encoder):
        return None
    return cached_text_vectors(encoder, texts, folder, progress=lambda done: report(stage, done, 0))


def _vectors(given: Encoder | VectorSource, embedded: EmbeddedTexts | None) -> VectorSource:
    if embedded is not None:
        return embedded.open()
    assert isinstance(given, VectorSource)
    return given


def _gap(recipe: TransformationRecipe, pairs: Pairs, images: VectorSource | None) -> FloatMatrix | None:
    shifted = recipe.with_options(sigma=0.0).make().get_params()["shifted"]
    return modality_gap(pairs, images) if images is not None and shifted else None


def _choice(
    recipe: TransformationRecipe,
    pairs: Pairs,
    images: VectorSource | None,
    gap: FloatMatrix | None,
    device: str,
    report: Progress,
) -> SigmaChoice | None:
    if images is None or recipe.options.get("sigma") != AUTO:
        return None
    return choose_sigma(
        recipe,
        pairs,
        images,
        gap=gap,
        device=device,
        seed=recipe.options.get("seed", 0),
        progress=lambda done, total: report("choose sigma", done, total),
    )


def _identity(texts: Texts | None, gap: FloatMatrix | None) -> dict[str, Any]:
    return {
        "texts": None
        if texts is None
        else hashlib.sha256(repr(texts.fingerprint()).encode()).hexdigest()[:16],
        "gap": None if gap is None else hashlib.sha256(gap.tobytes()).hexdigest()[:16],
    }


def _notes(choice: SigmaChoice | None) -> dict[str, float]:
    if choice is None:
        return {}
    return {
        f"reciprocal rank of moved texts, sigma {sigma:g}": score for sigma, score in choice.scores.items()
    }


def _silent(stage: str, done: int, total: int) -> None:
    return
