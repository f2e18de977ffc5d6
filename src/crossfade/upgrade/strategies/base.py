"""What every strategy says about itself: what it writes, what it needs, how a query is answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import DimensionMismatch, UsageError
from crossfade.spaces import Space
from crossfade.stores import Hits, Produce, Store, VectorCache
from crossfade.upgrade.plans import Plan
from crossfade.vectors import FloatMatrix

Writes = Literal["nothing", "column", "cache"]
Direction = Literal["backward", "forward"]


class Strategy(ABC):
    """A way to upgrade a gallery.

    Attributes:
        name: as in plans and on the command line.
        writes: nothing, a column of new vectors, or a cache that grows as it is used.
        direction: of the adapter that it needs; None if it needs none.
        embeds: whether raw items are embedded.
        keeps: whether vectors that searches make are kept in a cache beside the table.
        lifts: whether new vectors are made from the stored ones, which must be usable then.
        takes_compatible: whether a compatible model does without the adapter.
        needs_old_encoder: whether queries must be embedded by the old model, too.
        needs_new_encoder: whether queries must be embedded by the new model.
        batch_rows: rows that are mapped at a time.
    """

    name: ClassVar[str]
    writes: ClassVar[Writes] = "nothing"
    direction: ClassVar[Direction | None] = None
    embeds: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    lifts: ClassVar[bool] = False
    takes_compatible: ClassVar[bool] = False
    needs_old_encoder: ClassVar[bool] = False
    needs_new_encoder: ClassVar[bool] = True
    batch_rows: ClassVar[int] = 8192

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        """Refuse a plan that lacks something, or an adapter that maps the wrong way. No I/O.

        Raises:
            UsageError: no adapter, no column of raw items, or an option that is missing.
            WrongDirection, SpaceMismatch, DimensionMismatch: see `Adapter.require_source`.
        """
        if self.direction is not None:
            self._check_adapter(plan, adapter)
        if self.embeds:
            self.check_items(plan)

    def check_items(self, plan: Plan) -> None:
        """Refuse a plan that does not name a column of raw items that there is."""
        if not plan.items:
            raise UsageError(
                f"strategy {self.name} embeds raw items; name the column that holds them (--items COLUMN); "
                f"the store has {', '.join(plan.found.payload) or 'no other columns'}"
            )
        if plan.items not in plan.found.payload:
            raise UsageError(
                f"the store has no column {plan.items!r} with raw items; "
                f"it has {', '.join(plan.found.payload) or 'no other columns'}"
            )

    def _check_adapter(self, plan: Plan, adapter: Adapter | None) -> None:
        backward = self.direction == "backward"
        source, target = (plan.new, plan.old) if backward else (plan.old, plan.new)
        if plan.compatible and self.takes_compatible:
            return require_as_long(plan)
        if adapter is None:
            raise UsageError(
                f"strategy {self.name} needs an adapter from {source} to {target}; "
                f"fit one (crossfade fit --direction {self.direction}) and name it (--adapter DIR)"
            )
        adapter.require_source(source, f"vectors of the {'new' if backward else 'old'} model")
        if adapter.target is not None:
            target.require_same(adapter.target, f"what the {adapter.name} adapter maps into")

    @abstractmethod
    def steps(self, plan: Plan) -> tuple[str, ...]:
        """What will happen, one sentence a step."""

    @abstractmethod
    def way_back(self, plan: Plan) -> str:
        """How to roll back."""

    def producer(self, plan: Plan, adapter: Adapter | None, encoder: Encoder | None) -> Produce:
        """Makes new vectors from rows of the store; for strategies that write a column."""
        raise UsageError(f"strategy {self.name} writes no vectors")

    @abstractmethod
    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        """Search after the cutover: the `k` best rows of each query."""


def best_hits(hits: Hits, scores: np.ndarray, k: int) -> Hits:
    """The `k` best of `hits` by other scores (n,), best first."""
    best = np.argsort(-scores, kind="stable")[:k]
    return taken(hits, best, scores[best])


def taken(hits: Hits, rows: np.ndarray, scores: np.ndarray) -> Hits:
    """Some of the hits, in this order, with these scores."""
    chosen = pa.array(rows)
    columns = {name: values.take(chosen) for name, values in hits.columns.items()}
    return replace(
        hits,
        ids=hits.ids.take(chosen),
        scores=np.asarray(scores, dtype=np.float32),
        handles=hits.handles[rows],
        columns=columns,
    )


def require_as_long(plan: Plan) -> None:
    """Refuse a model that is said to be compatible and whose vectors are not as long as the old ones."""
    if plan.new.dimension != plan.old.dimension:
        raise DimensionMismatch(
            f"{plan.new} is said to be compatible with {plan.old}, but its vectors are not as long; "
            "map its queries with an adapter (--adapter DIR)"
        )


class Queries:
    """Queries as items or as vectors; embedded when a strategy asks, and only by the models it asks for.

    Args:
        items: the queries themselves, if an encoder is to embed them.
        vectors: ready vectors by role, ``old`` and ``new``.
        encoder: finds the encoder of a role, if there is one.
        spaces: the spaces that these must be in.
    """

    def __init__(
        self,
        items: Sequence[Any] | None,
        vectors: dict[str, FloatMatrix | None],
        encoder: Callable[[str], Encoder | None],
        spaces: dict[str, Space],
    ) -> None:
        self._items, self._encoder, self._spaces = items, encoder, spaces
        self._vectors = {role: given for role, given in vectors.items() if given is not None}

    def __len__(self) -> int:
        return len(self._items) if self._items is not None else len(next(iter(self._vectors.values())))

    @property
    def old(self) -> FloatMatrix:
        """Embedded by the old model."""
        return self._embedded("old")

    @property
    def new(self) -> FloatMatrix:
        """Embedded by the new model."""
        return self._embedded("new")

    def _embedded(self, role: str) -> FloatMatrix:
        if role not in self._vectors:
            encoder = self._encoder(role) if self._items is not None else None
            if encoder is None or self._items is None:
                raise UsageError(
                    f"this search needs queries of the {role} model, {self._spaces[role]}; "
                    f"pass its encoder ({role}=) or its vectors"
                )
            self._spaces[role].require_same(encoder.space, f"encoder of the {role} model")
            self._vectors[role] = encoder.encode(self._items)
        matrix = np.ascontiguousarray(self._vectors[role], dtype=np.float32)
        found = matrix.shape[1] if matrix.ndim == 2 else -1
        if found != self._spaces[role].dimension:
            self._refuse(role, matrix.shape)
        return matrix

    def _refuse(self, role: str, shape: tuple[int, ...]) -> None:
        raise DimensionMismatch(
            f"queries of the {role} model must be (n, {self._spaces[role].dimension}), got {shape}; "
            f"embed them with {self._spaces[role].model}"
        )


@dataclass(frozen=True)
class Gallery:
    """What a strategy searches: the store, and what belongs to the plan in force.

    Attributes:
        encoder: embeds raw items into the new space.
        cache: vectors made on the way.
    """

    store: Store
    plan: Plan
    adapter: Adapter | None = None
    encoder: Encoder | None = None
    cache: VectorCache | None = None
    exact: bool = False

    def search(self, queries: FloatMatrix, k: int, columns: Sequence[str], space: Space) -> list[Hits]:
        """Search the store's column, whose vectors are in `space`."""
        return self.store.search(queries, k, space, columns=columns, exact=self.exact)

    def mapped(self, queries: Queries) -> FloatMatrix:
        """New queries in the old space: mapped, or as they are if the new model is compatible."""
        if self.plan.compatible:
            return queries.new
        assert self.adapter is not None
        return self.adapter.transform(queries.new)
