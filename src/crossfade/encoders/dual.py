"""Models of two towers: pictures and texts embedded into one space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from crossfade.encoders.base import Encoder
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix


class DualEncoder(ABC):
    """A model that embeds pictures (their encoded bytes) and texts (strings) into the same space."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """The space of both towers."""

    @property
    @abstractmethod
    def image(self) -> Encoder:
        """Embeds the bytes of pictures."""

    @property
    @abstractmethod
    def text(self) -> TextTower:
        """Embeds strings, and counts those that it had to cut."""


class ImageTower(Encoder):
    """The encoder of pictures of a dual encoder.

    Args:
        dual: the model; it embeds in `embed_pictures`.
    """

    def __init__(self, dual: TowerOwner) -> None:
        self.dual = dual

    def __repr__(self) -> str:
        return f"{self.dual!r}.image"

    @property
    def space(self) -> Space:
        return self.dual.space

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed pictures given as bytes; (len(items), dimension) float32.

        Raises:
            DataError: an item is not a readable picture; the message has its index.
            InvalidVectors: the model returned NaN, infinite or zero vectors.
        """
        return self.dual.embed_pictures(items)


class TextTower(Encoder):
    """The encoder of texts of a dual encoder.

    Args:
        dual: the model; it embeds in `embed_texts`.

    Attributes:
        truncated: how many of the texts embedded so far were longer than the model's context, and cut.
    """

    def __init__(self, dual: TowerOwner) -> None:
        self.dual = dual
        self.truncated = 0

    def __repr__(self) -> str:
        return f"{self.dual!r}.text"

    @property
    def space(self) -> Space:
        return self.dual.space

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed texts; (len(items), dimension) float32. Texts beyond the context are cut and counted.

        Raises:
            UsageError: an item is no string.
            InvalidVectors: the model returned NaN, infinite or zero vectors.
        """
        vectors, truncated = self.dual.embed_texts(items)
        self.truncated += truncated
        return vectors


class TowerOwner(DualEncoder):
    """A dual encoder whose two towers are methods of one object."""

    def __init__(self) -> None:
        self._image, self._text = ImageTower(self), TextTower(self)

    @property
    def image(self) -> ImageTower:
        return self._image

    @property
    def text(self) -> TextTower:
        return self._text

    @abstractmethod
    def embed_pictures(self, items: Sequence[Any]) -> FloatMatrix:
        """The bytes of pictures as vectors (len(items), dimension) of `space`."""

    @abstractmethod
    def embed_texts(self, items: Sequence[Any]) -> tuple[FloatMatrix, int]:
        """Strings as vectors (len(items), dimension) of `space`, and how many of them were cut."""
