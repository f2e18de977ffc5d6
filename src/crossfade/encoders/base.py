"""Turning items into vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfade.errors import DataError, DimensionMismatch, InvalidVectors, UsageError
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix
from crossfade.vectors.checks import find_invalid


class Encoder(ABC):
    """A model that embeds items; what an item is (text, image bytes) is the model's business."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """The space that `encode` embeds into."""

    @abstractmethod
    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed `items`; returns (len(items), dimension) float32, in the same order."""


def as_vectors(output: Any, count: int, space: Space) -> FloatMatrix:
    """What a model returned for `count` items, as vectors of `space`; of unit length if the space says so.

    Raises:
        DataError: no matrix, or not one row per item.
        DimensionMismatch: another dimension than the space's.
        InvalidVectors: NaN, infinite or zero vectors.
    """
    vectors = np.ascontiguousarray(output, dtype=np.float32)
    if count == 0:
        return np.empty((0, space.dimension), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != count:
        raise DataError(
            f"{space.model} returned shape {vectors.shape} for {count} items; "
            "an encoder returns (items, dimension)"
        )
    if vectors.shape[1] != space.dimension:
        raise DimensionMismatch(
            f"{space.model} returned vectors of {vectors.shape[1]} dimensions, its space {space} says "
            f"{space.dimension}; correct the space or use the model that it names"
        )
    broken = find_invalid(vectors)
    if broken:
        row, fault = next(iter(broken.items()))
        raise InvalidVectors(
            f"{space.model} returned {len(broken)} unusable vectors for {count} items, "
            f"the first for item {row} ({fault}); look at that item"
        )
    return _unit(vectors) if space.normalized else vectors


def require_texts(items: Sequence[Any], model: str) -> list[str]:
    """The items as a list of strings.

    Raises:
        UsageError: a single string instead of a sequence, or an item that is no string.
    """
    if isinstance(items, str):
        raise UsageError(f"{model} embeds a sequence of texts, got a single string; put it into a list")
    for position, item in enumerate(items):
        if not isinstance(item, str):
            raise UsageError(f"{model} embeds texts, item {position} is {type(item).__name__}; pass strings")
    return list(items)


def _unit(vectors: FloatMatrix) -> FloatMatrix:
    unit: FloatMatrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
