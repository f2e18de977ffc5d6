"""Any Python function as an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from crossfade.encoders.base import Encoder, as_vectors
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix


class CallableEncoder(Encoder):
    """A function that embeds a list of items.

    Args:
        function: takes a list of items, returns (items, dimension), in any floating-point type. A prompt
            of the space is the function's own business.
        space: the space that it embeds into.
    """

    def __init__(self, function: Callable[[list[Any]], Any], space: Space) -> None:
        self._function = function
        self._space = space

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return f"CallableEncoder({name}, {self._space})"

    @property
    def space(self) -> Space:
        return self._space

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed the items.

        Raises:
            DataError, DimensionMismatch, InvalidVectors: see `as_vectors`.
        """
        if len(items) == 0:
            return as_vectors([], 0, self._space)
        return as_vectors(self._function(list(items)), len(items), self._space)
