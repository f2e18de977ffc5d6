"""Old query and mapped new query together, on the old gallery (Ricci et al., 2026)."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.adapters import Adapter
from crossfade.errors import UsageError
from crossfade.evaluation.interpolation import slerp
from crossfade.stores import Hits
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import Gallery, Queries, Strategy
from crossfade.vectors import FloatMatrix


class Interpolate(Strategy):
    """slerp(old query, mapped new query, weight) on the old gallery; both encoders at query time."""

    name = "interpolate"
    direction = "backward"
    takes_compatible = True
    needs_old_encoder = True

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        super().check(plan, adapter)
        require_weight(plan)

    def steps(self, plan: Plan) -> tuple[str, ...]:
        return (
            "apply: nothing is written" + "; the adapter is checked" * (not plan.compatible),
            f"verify: the gallery {'is' if plan.compatible else 'and the adapter are'} what was planned for",
            f"cutover: every query is embedded by both models and interpolated (weight {plan.weight:g} "
            "of the new model), then searches the old gallery",
        )

    def way_back(self, plan: Plan) -> str:
        return "crossfade rollback: queries of the old model search the gallery again, at once"

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        return gallery.search(interpolated(gallery, queries), k, columns, gallery.plan.old)


def interpolated(gallery: Gallery, queries: Queries) -> FloatMatrix:
    """Old and mapped new queries, interpolated by the weight of the plan."""
    weight = require_weight(gallery.plan)
    return slerp(queries.old, gallery.mapped(queries), weight)


def require_weight(plan: Plan) -> float:
    """The weight of the mapped query, from 0 to 1."""
    if plan.weight is None or not 0 <= plan.weight <= 1:
        raise UsageError(
            f"interpolation needs the weight of the new model, from 0 to 1, got {plan.weight}; "
            "crossfade evaluate chooses it on held-out data (--evaluation), or give --weight"
        )
    return plan.weight


STRATEGY = Interpolate()
