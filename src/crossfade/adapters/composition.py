"""Composition: v1 → v2 and v2 → v3 give v1 → v3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from crossfade.adapters.base import Adapter
from crossfade.adapters.prepared import PreparedPairs
from crossfade.errors import NotFittedError, NotSupported, UsageError, WrongDirection
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix, no_side


class Chain(Adapter):
    """Adapters applied one after the other, each to the vectors that the one before returned.

    Side-information was stored once, beside the first link's source vectors: every link that takes any
    gets the same.

    Args:
        links: at least one adapter; `chain` checks that each starts where the one before ends.
    """

    name: ClassVar[str] = "chain"
    complexity: ClassVar[int] = 9

    def __init__(self, links: Sequence[Adapter]) -> None:
        super().__init__()
        if not links:
            raise UsageError("a chain needs at least one adapter, got none")
        self.links = tuple(links)
        self._join()

    def _join(self) -> None:
        self.source, self.target = self.links[0].source, self.links[-1].target
        self.dimensions = self.links[0].dimensions[0], self.links[-1].dimensions[1]
        self.side, self.side_dimension = _common_side(self.links)
        self.n_pairs = min(link.n_pairs for link in self.links)
        self.arrays = {
            f"{position}.{name}": array
            for position, link in enumerate(self.links)
            for name, array in link.arrays.items()
        }

    def required_pairs(self, d_source: int, d_target: int) -> int:
        """None of its own: the links are fitted."""
        return 0

    def _learn(self, pairs: PreparedPairs) -> None:
        raise NotSupported("a chain is not fitted itself; fit its links and compose them with chain(a, b)")

    def _map_block(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        # The links take care of lengths themselves.
        for link in self.links:
            X = link._map_block(X, side if link.side_dimension else no_side(len(X)))
        return X

    def _map(self, X: FloatMatrix) -> FloatMatrix:
        return self._map_block(X, no_side(len(X)))

    def get_params(self) -> dict[str, Any]:
        return {"links": " → ".join(link.name for link in self.links)}

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{position}.{name}": shape
            for position, link in enumerate(self.links)
            for name, shape in link.shapes(*link.dimensions).items()
        }

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "links": [link.describe() for link in self.links]}

    def restore(self, description: Mapping[str, Any], arrays: Mapping[str, FloatMatrix]) -> None:
        for position, (link, values) in enumerate(zip(self.links, description["links"], strict=True)):
            prefix = f"{position}."
            own = {
                name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)
            }
            link.restore(values, own)
        _require_links(self.links)
        self._join()


def chain(*links: Adapter) -> Chain:
    """Compose fitted adapters: the first maps first.

    Raises:
        NotFittedError: a link is not fitted.
        UsageError: links take side-information of different spaces.
        WrongDirection: a link maps backwards, into the space that the one before ends in.
        DimensionMismatch, SpaceMismatch: a link starts in another space than the one before ends in.
    """
    for position, link in enumerate(links, start=1):
        if not link.fitted:
            raise NotFittedError(f"link {position} of the chain, {link.name}, is not fitted; call fit first")
    _require_links(links)
    return Chain(links)


def _common_side(links: Sequence[Adapter]) -> tuple[Space | None, int]:
    sides = [(link.side, link.side_dimension) for link in links if link.side_dimension]
    if not sides:
        return None, 0
    for other in sides[1:]:
        if other != sides[0]:
            first, second = (f"{space or 'plain arrays'} ({count}-d)" for space, count in (sides[0], other))
            raise UsageError(
                f"links of a chain take side-information of different spaces, {first} and {second}; "
                "only one was stored beside the first model's vectors: fit the later link on that"
            )
    return sides[0]


def _require_links(links: Sequence[Adapter]) -> None:
    for position, (before, after) in enumerate(pairwise(links), start=2):
        what = f"link {position} of the chain ({after.name})"
        if before.target is None or after.source is None:
            after._require_columns(before.dimensions[1])
        elif before.target == after.target:
            raise WrongDirection(
                f"{what} maps from {after.source} into {after.target}, where the link before it ends; "
                "fit it in the other direction"
            )
        else:
            before.target.require_same(after.source, what)
