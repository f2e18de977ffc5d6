"""What asks and what is searched after an upgrade, for items that both models have embedded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import Adapter
from crossfade.errors import DimensionMismatch, UsageError, WrongDirection
from crossfade.evaluation.interpolation import slerp
from crossfade.spaces import Metric, Space
from crossfade.vectors import FloatMatrix, Vectors

Kind = Literal["query", "interpolate", "gallery", "native", "backfill"]


@dataclass(frozen=True)
class Sample:
    """The same items under both models, row for row.

    Attributes:
        old, new: (n, d_old) and (n, d_new); None where a model has not embedded them.
        side: (n, d_side) side-information; None if there is none.
    """

    old: Vectors | None = None
    new: Vectors | None = None
    side: Vectors | None = None

    def __len__(self) -> int:
        return len(next(one for one in (self.old, self.new) if one is not None))

    def take(self, rows: NDArray[np.integer]) -> Sample:
        """The given rows."""
        taken = (None if one is None else one.take(rows) for one in (self.old, self.new, self.side))
        return Sample(*taken)

    def some(self, count: int, rng: np.random.Generator) -> Sample:
        """At most `count` rows, drawn at random, in their order."""
        if len(self) <= count:
            return self
        return self.take(np.sort(rng.permutation(len(self))[:count]))

    def under_old(self, what: str) -> Vectors:
        """The old model's vectors.

        Raises:
            UsageError: there are none.
        """
        return _require(self.old, "old", what)

    def under_new(self, what: str) -> Vectors:
        """The new model's vectors.

        Raises:
            UsageError: there are none.
        """
        return _require(self.new, "new", what)


def _require(vectors: Vectors | None, model: str, what: str) -> Vectors:
    if vectors is None:
        raise UsageError(f"{what} are needed under the {model} model; embed them with it and pass them")
    return vectors


@dataclass(frozen=True)
class Bridge:
    """How new queries meet the gallery.

    Attributes:
        kind: ``query`` (new queries mapped back), ``interpolate`` (together with the old ones), ``gallery``
            (lifted), ``native`` (new queries on the old gallery as it is) or ``backfill``.
        adapter: the map; None for ``native`` and ``backfill``, and for the queries of a compatible model.
        weight: of the mapped query, for ``interpolate``.
    """

    kind: Kind
    adapter: Adapter | None = None
    weight: float | None = None

    @classmethod
    def by(cls, adapter: Adapter, old: Space, *, weight: float | None = None) -> Bridge:
        """The bridge that an adapter makes; its spaces say in which direction.

        Args:
            old: space of the old gallery.

        Raises:
            WrongDirection, SpaceError: it neither maps from `old` nor into it.
            UsageError: a weight for a map that lifts the gallery.
        """
        backward = adapter.target is not None and _alike(adapter.target, old)
        if not backward:
            if adapter.target is not None and adapter.source is not None and not _alike(adapter.source, old):
                raise WrongDirection(
                    f"the gallery is in {old}, this {adapter.name} adapter maps from {adapter.source} to "
                    f"{adapter.target}; fit one between the two models (crossfade fit)"
                )
            if weight is not None:
                raise UsageError(
                    f"a weight is for queries that are mapped back; this {adapter.name} adapter lifts "
                    "the gallery: leave the weight out, or fit a map with --direction backward"
                )
            return cls("gallery", adapter)
        return cls("query" if weight is None else "interpolate", adapter, weight)

    @property
    def in_new_space(self) -> bool:
        """Whether searches take place in the new space."""
        return self.kind in ("gallery", "backfill")

    def asking(self, queries: Sample) -> FloatMatrix:
        """(Q, d) what searches for `queries`.

        Raises:
            UsageError: a model's vectors are missing.
            SpaceError: they are of another space than the adapter's.
        """
        new = queries.under_new("queries")
        if self.kind not in ("query", "interpolate"):
            return new.matrix
        mapped = self.mapped(new)
        if self.weight is None:
            return mapped
        return slerp(queries.under_old("queries").matrix, mapped, self.weight)

    def mapped(self, queries: Vectors) -> FloatMatrix:
        """(Q, d_old) new queries in the old space; a compatible model's are there already."""
        if self.adapter is None:
            return queries.matrix
        _require_source(self.adapter, queries.space, "queries of the new model")
        return self.adapter.transform(queries.matrix)

    def searched(self, gallery: Sample) -> FloatMatrix:
        """(N, d) what is searched of `gallery`. Raises what `asking` raises."""
        if self.kind == "backfill":
            return gallery.under_new("gallery items").matrix
        old = gallery.under_old("gallery items")
        if self.adapter is None or self.kind != "gallery":
            return old.matrix
        _require_source(self.adapter, old.space, "gallery items of the old model")
        self.adapter.require_side(None if gallery.side is None else gallery.side.space, "gallery items")
        return self.adapter.transform(old.matrix, None if gallery.side is None else gallery.side.matrix)

    def metric(self, old: Space, new: Space) -> Metric:
        """How vectors are compared where the search takes place."""
        return (new if self.in_new_space else old).metric

    def require_searchable(self, old: Space, new: Space) -> None:
        """Refuse new queries that are to search the old gallery as they are and are not as long.

        Raises:
            DimensionMismatch: the dimensions differ.
        """
        if self.kind == "native" and old.dimension != new.dimension:
            raise DimensionMismatch(
                f"queries of {new} are to search the gallery of {old} as they are, but have "
                f"{new.dimension} dimensions, not {old.dimension}; name the adapter (--adapter DIR)"
            )


def _alike(one: Space, other: Space) -> bool:
    """Whether vectors of both may be compared; queries and documents may have prompts of their own."""
    return replace(one, prompt="") == replace(other, prompt="")


def require_alike(found: Space, expected: Space, what: str) -> None:
    """Refuse `what` of another space than expected, whatever the prompts.

    Raises:
        DimensionMismatch, SpaceMismatch: see `Space.require_same`.
    """
    replace(expected, prompt="").require_same(replace(found, prompt=""), what)


def _require_source(adapter: Adapter, space: Space, what: str) -> None:
    source = adapter.source
    adapter.require_source(space if source is None else replace(space, prompt=source.prompt), what)
