"""Turning items into vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix


class Encoder(ABC):
    """A model that embeds items; what an item is (text, image bytes) is the model's business."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """The space that `encode` embeds into."""

    @abstractmethod
    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed `items`; returns (len(items), dimension) float32, in the same order."""
