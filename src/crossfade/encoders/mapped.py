"""An encoder followed by a map: the new model's vectors in the old model's space, or the reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import UnknownSpace
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix


class MappedEncoder(Encoder):
    """Embeds with `encoder` and maps with `adapter`.

    Args:
        encoder: embeds into the adapter's source.
        adapter: fitted; it says which spaces it maps between.

    Raises:
        UnknownSpace: the adapter was fitted on plain arrays.
        WrongDirection: the encoder embeds into the adapter's target.
        SpaceMismatch, DimensionMismatch: the encoder embeds into another space than the adapter's source.
        UsageError: the adapter needs side-information, which an encoder does not have.
    """

    def __init__(self, encoder: Encoder, adapter: Adapter) -> None:
        if adapter.source is None or adapter.target is None:
            raise UnknownSpace(
                f"this {adapter.name} adapter was fitted on plain arrays, so nothing says which space it "
                "maps into; pass source= and target= to fit"
            )
        adapter.require_source(encoder.space, "the encoder")
        adapter.require_side(None, "the encoder")
        self.encoder, self.adapter = encoder, adapter
        self._space = adapter.target

    def __repr__(self) -> str:
        return f"MappedEncoder({self.encoder!r}, {self.adapter!r})"

    @property
    def space(self) -> Space:
        """The adapter's target."""
        return self._space

    @property
    def truncated(self) -> int:
        """How many texts the encoder has cut so far; 0 where it does not count."""
        return int(getattr(self.encoder, "truncated", 0))

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed and map; (len(items), dimension of the target) float32, of unit length by cosine.

        Raises:
            What the encoder raises, and InvalidVectors for what the adapter cannot map.
        """
        return self.adapter.transform(self.encoder.encode(items))
