"""Keep the old model: the right answer when nothing better was measured."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.stores import Hits
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import Gallery, Queries, Strategy


class Keep(Strategy):
    """Old queries on the old gallery (old/old)."""

    name = "keep"
    needs_old_encoder = True
    needs_new_encoder = False

    def steps(self, plan: Plan) -> tuple[str, ...]:
        return ("nothing is changed: the old model stays",)

    def way_back(self, plan: Plan) -> str:
        return "nothing to roll back"

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        return gallery.search(queries.old, k, columns, gallery.plan.old)


STRATEGY = Keep()
