"""Answer queries according to the upgrade that is in force."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from crossfade.adapters import load_adapter
from crossfade.encoders import Encoder, open_encoder
from crossfade.errors import DimensionMismatch, SpaceMismatch, UnknownSpace, UsageError
from crossfade.spaces import Space
from crossfade.stores import Hits, Store, open_store
from crossfade.upgrade.journal import Journal
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies import Gallery, Queries, strategy
from crossfade.vectors import FloatMatrix
from crossfade.vectors.metadata import settle_space


class Searcher:
    """Searches a column of vectors the way its upgrades have left it.

    Before a cutover, and after a rollback, queries of the old model search the old vectors; after a
    cutover each strategy answers in its own way. The journal is asked at every search, so a switch
    takes effect at once.

    Args:
        store: address of the column, or an open store.
        old, new: encoders of queries; the plan's unless given. Only those that the state asks for are used.
        items: embeds raw items into the new space, for a cascade; the plan's unless given, else `new`.
        space: of the store's vectors, where none is recorded and no upgrade says so.
        exact: search without an index.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        old: Encoder | None = None,
        new: Encoder | None = None,
        items: Encoder | None = None,
        space: Space | None = None,
        exact: bool = False,
    ) -> None:
        self.store = open_store(store) if isinstance(store, str) else store
        self._encoders = {"old": old, "new": new, "items": items}
        self._planned: dict[str, Encoder] = {}
        self._space, self._exact = space, exact
        self._galleries: dict[str, Gallery] = {}
        self._journal: Journal | None = None

    @property
    def mode(self) -> str:
        """The strategy in force; ``keep`` while the old model serves."""
        plan = self._in_force()
        return plan.strategy if plan else "keep"

    def search(
        self,
        queries: Sequence[Any] | None = None,
        k: int = 10,
        *,
        old: FloatMatrix | None = None,
        new: FloatMatrix | None = None,
        columns: Sequence[str] = (),
    ) -> list[Hits]:
        """The `k` best rows of each query.

        A cutover or rollback in the middle of a search is noticed, and the search done again.

        Args:
            queries: items for the encoders.
            old, new: (q, d) ready query vectors instead, of the model that the state asks for.
            columns: further columns to return.

        Raises:
            UsageError: neither the encoder nor the vectors that are needed were given.
            DimensionMismatch, SpaceMismatch: they are of another model.
        """
        if queries is None and old is None and new is None:
            raise UsageError("nothing to search for; pass queries, or vectors as old= or new=")
        if k < 1:
            raise UsageError(f"k must be at least 1, got {k}")
        vectors, plan = {"old": old, "new": new}, self._in_force()
        try:
            return self._answer(plan, queries, vectors, k, columns)
        except (SpaceMismatch, DimensionMismatch):
            now = self._in_force()
            if (now and now.id) == (plan and plan.id):
                raise
            return self._answer(now, queries, vectors, k, columns)

    def _answer(
        self,
        plan: Plan | None,
        queries: Sequence[Any] | None,
        vectors: dict[str, FloatMatrix | None],
        k: int,
        columns: Sequence[str],
    ) -> list[Hits]:
        if plan is None:
            space = self._present_space()
            asked = Queries(queries, vectors, self._encoders.get, {"old": space})
            return self.store.search(asked.old, k, space, columns=columns, exact=self._exact)
        asked = Queries(queries, vectors, partial(self._encoder, plan), {"old": plan.old, "new": plan.new})
        return strategy(plan.strategy).answer(self._gallery(plan), asked, k, columns)

    def _encoder(self, plan: Plan, role: str) -> Encoder | None:
        """The encoder that was given for this role, else the one that the plan names."""
        given, named = self._encoders[role], plan.encoders.get(role, "")
        if given is not None or not named:
            return given
        if named not in self._planned:
            self._planned[named] = open_encoder(named, space=plan.old if role == "old" else plan.new)
        return self._planned[named]

    def _in_force(self) -> Plan | None:
        """The latest plan that was cut over and not rolled back; None while the old model serves.

        Where the switch is a renaming, the table itself says so, whatever the journal knows yet.
        """
        journal = self._open_journal()
        for entry in journal.entries() if journal else ():
            assert journal is not None
            plan = Plan.from_json(entry.plan, str(journal.path))
            renames = strategy(plan.strategy).writes == "column"
            if self.store.space() == plan.new if renames else journal.fact(plan.id, "served", False):
                return plan
        return None

    def _open_journal(self) -> Journal | None:
        if self._journal is None and self.store.journal.exists():
            self._journal = Journal(self.store.journal)
        return self._journal

    def _gallery(self, plan: Plan) -> Gallery:
        """The parts of a plan that are loaded once."""
        if plan.id not in self._galleries:
            adapter = load_adapter(Path(plan.adapter.path)) if plan.adapter else None
            caches = strategy(plan.strategy).keeps
            cache = self.store.cache(plan.id, plan.new) if caches else None
            items = (self._encoder(plan, "items") or self._encoder(plan, "new")) if caches else None
            self._galleries[plan.id] = Gallery(self.store, plan, adapter, items, cache, self._exact)
        return self._galleries[plan.id]

    def _present_space(self) -> Space:
        found = self.store.describe()
        if self._space is None and found.space is None:
            journal = self._open_journal()
            entries = journal.entries() if journal else []
            if entries:
                return Plan.from_json(entries[0].plan).old
            if (encoder := self._encoders["old"]) is not None:
                return encoder.space
            raise UnknownSpace(f"{found.uri}: nothing says which model made the vectors; pass space=")
        return settle_space(found.space, self._space, found.dimension, found.uri)
