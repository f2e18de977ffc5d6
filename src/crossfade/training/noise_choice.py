"""How much noise φ needs, judged on held-out texts that are displaced as images are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from crossfade.adapters.prepared import (
    PreparedPairs,
    RowSample,
    require_valid,
    scale_to_unit,
    uses_unit_length,
)
from crossfade.training.projection import learn
from crossfade.training.transformations import TransformationRecipe
from crossfade.vectors import ArrayPairs, FloatMatrix, Pairs, VectorSource

CANDIDATES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
MOST_TEXTS, MOST_HELD_OUT, HELD_OUT_SHARE, MOST_IMAGES = 16_384, 2048, 0.2, 2048
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class SigmaChoice:
    """The best σ, and the score of each candidate.

    Attributes:
        sigma: what is taken.
        scores: mean reciprocal rank by σ.
    """

    sigma: float
    scores: dict[float, float]


def choose_sigma(
    recipe: TransformationRecipe,
    pairs: Pairs,
    images: VectorSource,
    *,
    gap: FloatMatrix | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Advance | None = None,
) -> SigmaChoice:
    """Train φ on a sample of the texts for each candidate, and take the one that finds displaced texts best.

    Pairs of image and text would show how far images lie from their texts; there are none. But the
    displacement of each unpaired image v from the text nearest to it is known, r = v - x_nearest, and holds
    the modality gap as well as what images show and texts do not say. A held-out text moved by the r of a
    random image stands for an image of its own; the score is the mean reciprocal rank of its old vector
    among all held-out old vectors, for φ(x + r).

    Args:
        recipe: of a projection; its sigma is not looked at.
        pairs: new → old vectors of the texts; at most 16,384 of them are looked at.
        images: the new model's vectors of any images.
        gap: see `crossfade.training.projection.learn`.
        seed: of the sample, the held-out texts and the displacements.
        progress: called with (candidates done, candidates).
    """
    fitting, held_out = _split(pairs, seed)
    moved = _displaced(held_out.X, fitting.X, _sample(images, seed), seed)
    scores: dict[float, float] = {}
    for number, sigma in enumerate(CANDIDATES):
        adapter = recipe.with_options(sigma=sigma).make(device)
        adapter.trainer = partial(learn, gap=gap)
        scores[sigma] = mean_reciprocal_rank(adapter.fit_pairs(fitting).transform(moved), held_out.Y)
        if progress is not None:
            progress(number + 1, len(CANDIDATES))
    return SigmaChoice(max(scores, key=lambda sigma: scores[sigma]), scores)


def mean_reciprocal_rank(queries: FloatMatrix, gallery: FloatMatrix) -> float:
    """Mean of 1 / rank of each query's own row of the gallery, by cosine; ties count half."""
    own = np.arange(len(queries))
    scores = scale_to_unit(queries) @ scale_to_unit(gallery).T
    reference = scores[own, own][:, None]
    ranks = 1 + (scores > reference).sum(axis=1) + ((scores == reference).sum(axis=1) - 1) / 2
    return float((1 / ranks).mean())


def _split(pairs: Pairs, seed: int) -> tuple[ArrayPairs, ArrayPairs]:
    """A sample of the texts, and held-out ones."""
    prepared = PreparedPairs(pairs)
    sample = RowSample.choose(len(pairs), 1.0, MOST_TEXTS, seed)
    parts = [(x[mask], y[mask]) for x, y, mask in prepared.split_blocks(sample)]
    X, Y = (np.concatenate(side) for side in zip(*parts, strict=True))
    chosen = ArrayPairs(X, Y, source=pairs.source, target=pairs.target)
    held_out = RowSample.choose(len(chosen), HELD_OUT_SHARE, MOST_HELD_OUT, seed).mask(0, len(chosen))
    return chosen.take(np.flatnonzero(~held_out)), chosen.take(np.flatnonzero(held_out))


def _sample(images: VectorSource, seed: int) -> FloatMatrix:
    chosen, start = RowSample.choose(len(images), 1.0, MOST_IMAGES, seed), 0
    parts: list[Any] = []
    for vectors in unit_blocks(images):
        parts.append(vectors[chosen.mask(start, len(vectors))])
        start += len(vectors)
    return np.concatenate(parts)


def _displaced(texts: FloatMatrix, others: FloatMatrix, images: FloatMatrix, seed: int) -> FloatMatrix:
    nearest = np.concatenate([np.argmax(rows @ others.T, axis=1) for rows in np.array_split(images, 8)])
    displacements = images - others[nearest]
    drawn = np.random.default_rng(seed).integers(len(images), size=len(texts))
    moved: FloatMatrix = texts + displacements[drawn]
    return moved


def unit_blocks(source: VectorSource) -> Iterator[FloatMatrix]:
    """The vectors in blocks, of unit length where only directions count.

    Raises:
        InvalidVectors: NaN, infinite or zero vectors.
    """
    for batch in source.batches():
        require_valid(batch.vectors, f"{source.name} cannot be used")
        yield scale_to_unit(batch.vectors) if uses_unit_length(source.space) else batch.vectors
