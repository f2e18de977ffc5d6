"""Two-stage search on a lifted gallery: its candidates are re-ranked by the new model's own vectors."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.adapters import Adapter
from crossfade.stores import Hits
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import Gallery, Queries
from crossfade.upgrade.strategies.cascade import new_vectors, require_depth, reranked
from crossfade.upgrade.strategies.gallery import Lift, column_steps


class LiftedCascade(Lift):
    """Candidates from the lifted gallery (new/h(old)), re-ranked by the new model's own vectors."""

    name = "lifted-cascade"
    keeps = True

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        super().check(plan, adapter)
        self.check_items(plan)
        require_depth(plan)

    def steps(self, plan: Plan) -> tuple[str, ...]:
        apply, verify, cutover, retire = column_steps(plan, "maps every stored vector into the new space")
        then = (
            f"{cutover}; from then on crossfade fetches {plan.depth} candidates from it, the new model "
            f"embeds those it has not seen (column {plan.items!r}) and re-ranks them; their vectors are kept "
            "beside the table"
        )
        return (apply, verify, then, retire)

    def way_back(self, plan: Plan) -> str:
        return f"{super().way_back(plan)}, and so are those that searches made"

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        plan, new = gallery.plan, queries.new
        candidates = gallery.search(new, max(k, plan.depth or 0), columns, plan.new)
        vectors = new_vectors(gallery, candidates)
        return [reranked(hits, new[row], vectors, plan.new, k) for row, hits in enumerate(candidates)]


STRATEGY = LiftedCascade()
