"""Map new queries back into the old space; the gallery is not touched (Drift-Adapter, EMNLP 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from crossfade.stores import Hits
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import Direction, Gallery, Queries, Strategy


class Query(Strategy):
    """New queries, mapped or of a compatible model, on the old gallery (new/old)."""

    name = "query"
    direction: ClassVar[Direction | None] = "backward"
    takes_compatible = True

    def steps(self, plan: Plan) -> tuple[str, ...]:
        if plan.compatible:
            return (
                "apply: nothing is written",
                "verify: the gallery is what was planned for",
                "cutover: queries of the new model, which is compatible, search the old gallery as they are",
            )
        return (
            "apply: nothing is written; the adapter is checked",
            "verify: the gallery and the adapter are what was planned for",
            "cutover: queries of the new model are mapped into the old space and search the old gallery",
        )

    def way_back(self, plan: Plan) -> str:
        return "crossfade rollback: queries of the old model search the gallery again, at once"

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        return gallery.search(gallery.mapped(queries), k, columns, gallery.plan.old)


STRATEGY = Query()
