"""Lift everything, and embed again what gains most by it (partial backfill, FastFill, ICLR 2023)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import UsageError
from crossfade.stores import Produce, Produced, Rows
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.gallery import Lift, column_steps
from crossfade.upgrade.strategies.lifting import lift
from crossfade.vectors.ids import normalize_ids


class Partial(Lift):
    """New queries on a gallery of which some was embedded again and the rest lifted."""

    name = "partial"
    embeds = True
    batch_rows = 512

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        super().check(plan, adapter)
        if plan.budget is None or not 0 < plan.budget <= 1:
            raise UsageError(
                f"a partial backfill embeds a share of the items, above 0 and at most 1, got {plan.budget}; "
                "give --budget 0.1, or --target-quality 0.98 with an evaluation that has a backfill curve"
            )
        if adapter is not None and not adapter.has_uncertainty:
            raise UsageError(
                f"a partial backfill begins with the most uncertain items, and {adapter.name} predicts no "
                "uncertainty; use ridge, local-experts or fastfill"
            )

    def steps(self, plan: Plan) -> tuple[str, ...]:
        count = plan.chosen.count if plan.chosen else round((plan.budget or 0) * plan.found.rows)
        return column_steps(
            plan,
            f"embeds the {count:,} items whose lifted vectors are least certain (column {plan.items!r}) with "
            f"{plan.new.model}, maps every other stored vector into the new space",
        )

    def producer(self, plan: Plan, adapter: Adapter | None, encoder: Encoder | None) -> Produce:
        from crossfade.upgrade.choosing import read_chosen

        if encoder is None:
            raise UsageError(
                f"a partial backfill needs the encoder of {plan.new} for the items in column {plan.items!r}; "
                "pass it (encoder=)"
            )
        assert adapter is not None
        assert plan.chosen is not None
        plan.new.require_same(encoder.space, "encoder of the raw items")
        chosen, embed, lifting = read_chosen(plan.chosen), encoder, adapter
        return lambda rows: _produced(rows, plan, lifting, embed, chosen)


def _produced(rows: Rows, plan: Plan, adapter: Adapter, encoder: Encoder, chosen: pa.Array) -> Produced:
    made = lift(adapter, rows, plan)
    turn = pc.is_in(normalize_ids(rows.ids, plan.store), chosen).to_numpy(zero_copy_only=False)
    if turn.any():
        items: pa.Array = rows.columns[plan.items].filter(pa.array(turn))
        there = items.is_valid().to_numpy(zero_copy_only=False)
        rows_of_items = np.flatnonzero(turn)
        made.valid[rows_of_items] = there
        if there.any():
            made.vectors[rows_of_items[there]] = encoder.encode(items.drop_null().to_pylist())
    return made


STRATEGY = Partial()
