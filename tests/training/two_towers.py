"""A planted world of meanings that two dual encoders describe, each with images beside its texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, FloatMatrix

OLD, NEW = Space("towers-old", 24), Space("towers-new", 40)
MEANINGS, WORDINGS = 10, 6


@dataclass(frozen=True)
class Model:
    """Linear towers: meaning, what only texts have (wording), what only images have, and the modality gap."""

    meaning: np.ndarray
    wording: np.ndarray
    gap: np.ndarray
    blur: float

    @classmethod
    def draw(cls, dimension: int, wording: float, blur: float, rng: np.random.Generator) -> Model:
        basis = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        mixed = basis[: MEANINGS + WORDINGS]
        gap = 2.5 * basis[MEANINGS + WORDINGS] + 0.5 * rng.standard_normal(MEANINGS) @ mixed[:MEANINGS]
        return cls(mixed[:MEANINGS], wording * mixed[MEANINGS:], gap, blur)

    def texts(self, meanings: np.ndarray, wordings: np.ndarray, rng: np.random.Generator) -> FloatMatrix:
        return self._seen(meanings @ self.meaning + wordings @ self.wording - self.gap / 2, rng)

    def images(self, meanings: np.ndarray, rng: np.random.Generator) -> FloatMatrix:
        """What a picture shows beside its meaning falls anywhere, also where texts have their wording."""
        directions = self.wording / np.linalg.norm(self.wording, axis=1, keepdims=True)
        looks = 1.2 * rng.standard_normal((len(meanings), WORDINGS)) @ directions
        return self._seen(meanings @ self.meaning + looks + self.gap / 2, rng)

    def _seen(self, clear: np.ndarray, rng: np.random.Generator) -> FloatMatrix:
        blurred = clear + self.blur * rng.standard_normal(clear.shape)
        unit: FloatMatrix = (blurred / np.linalg.norm(blurred, axis=1, keepdims=True)).astype(np.float32)
        return unit


@dataclass(frozen=True)
class World:
    """Texts to learn from, unpaired images, and held-out images each with its text."""

    texts: ArrayPairs
    unpaired: FloatMatrix
    old_images: FloatMatrix
    old_texts: FloatMatrix
    new_images: FloatMatrix
    new_texts: FloatMatrix


def world(seed: int = 0, texts: int = 3000, held_out: int = 400) -> World:
    rng = np.random.default_rng(seed)
    old, new = Model.draw(OLD.dimension, 1.0, 0.35, rng), Model.draw(NEW.dimension, 0.25, 0.1, rng)
    meanings, wordings = rng.standard_normal((texts, MEANINGS)), rng.standard_normal((texts, WORDINGS))
    pairs = ArrayPairs(
        new.texts(meanings, wordings, rng), old.texts(meanings, wordings, rng), source=NEW, target=OLD
    )
    unpaired = new.images(rng.standard_normal((500, MEANINGS)), rng)
    shown, written = rng.standard_normal((held_out, MEANINGS)), rng.standard_normal((held_out, WORDINGS))
    return World(
        pairs,
        unpaired,
        old.images(shown, rng),
        old.texts(shown, written, rng),
        new.images(shown, rng),
        new.texts(shown, written, rng),
    )


def found(queries: FloatMatrix, gallery: FloatMatrix, k: int = 5) -> float:
    """Share of the queries whose own item is among the k nearest by cosine; an item at a time."""
    hits = 0
    for row, query in enumerate(queries):
        scores = gallery @ query
        hits += int((scores > scores[row]).sum() < k)
    return hits / len(queries)
