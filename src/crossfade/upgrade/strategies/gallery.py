"""Lift the stored vectors forward into the new space, with stored side-information or without (FCT)."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.stores import Hits, Produce
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import Gallery, Queries, Strategy
from crossfade.upgrade.strategies.lifting import check_side, lift


class Lift(Strategy):
    """New queries on the transformed gallery (new/h(old))."""

    name = "gallery"
    writes = "column"
    direction = "forward"
    lifts = True

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        super().check(plan, adapter)
        assert adapter is not None
        check_side(plan, adapter)

    def steps(self, plan: Plan) -> tuple[str, ...]:
        return column_steps(plan, "maps every stored vector into the new space")

    def way_back(self, plan: Plan) -> str:
        return column_way_back(plan)

    def producer(self, plan: Plan, adapter: Adapter | None, encoder: Encoder | None) -> Produce:
        assert adapter is not None
        return lambda rows: lift(adapter, rows, plan)

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        return gallery.search(queries.new, k, columns, gallery.plan.new)


def column_steps(plan: Plan, how: str) -> tuple[str, ...]:
    """Steps of the strategies that write a column."""
    index = plan.found.index
    indexed = f"; then builds an index like the old one ({index})" if index else ""
    column = plan.found.column
    return (
        f"apply: {how} and writes it beside the old one, {plan.found.parts} parts{indexed}; "
        f"the old vectors serve throughout and are not touched",
        "verify: counts, ids, checksums of every part, recomputed samples, searches",
        "cutover: catches up with rows that others wrote meanwhile, then renames both columns in one "
        f"commit: {column} becomes {plan.previous}, {plan.staged} becomes {column}",
        f"retire --confirm: deletes {plan.previous}",
    )


def column_way_back(plan: Plan) -> str:
    """How the strategies that write a column are rolled back."""
    return (
        "crossfade rollback, at any time before retire: one commit gives the old vectors and their index "
        "their name back; the new vectors are kept for going forward again"
    )


STRATEGY = Lift()
