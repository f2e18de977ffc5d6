"""New queries as they are on the old gallery: a model trained to be compatible (BCT, CVPR 2020; XBT)."""

from __future__ import annotations

from crossfade.adapters import Adapter
from crossfade.errors import UsageError
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import require_as_long
from crossfade.upgrade.strategies.query import Query


class Native(Query):
    """Queries of a compatible model on the old gallery (new/old), without a map."""

    name = "native"
    direction = None

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        super().check(plan, adapter)
        if adapter is not None or not plan.compatible:
            raise UsageError(
                "strategy native is for a model that was trained to be compatible and needs no adapter; "
                "leave the adapter out, or plan --strategy query"
            )
        require_as_long(plan)


STRATEGY = Native()
