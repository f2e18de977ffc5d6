"""Embed every item again with the new model: the upper bound, and sometimes the right answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import UsageError
from crossfade.stores import Hits, Produce, Produced, Rows
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import Gallery, Queries, Strategy
from crossfade.upgrade.strategies.gallery import column_steps, column_way_back


class Backfill(Strategy):
    """New queries on a gallery that the new model embedded (new/new)."""

    name = "backfill"
    writes = "column"
    embeds = True
    batch_rows = 512

    def steps(self, plan: Plan) -> tuple[str, ...]:
        return column_steps(plan, f"embeds every item (column {plan.items!r}) with {plan.new.model}")

    def way_back(self, plan: Plan) -> str:
        return column_way_back(plan)

    def producer(self, plan: Plan, adapter: Adapter | None, encoder: Encoder | None) -> Produce:
        if encoder is None:
            raise UsageError(
                f"a backfill needs the encoder of {plan.new} for the items in column {plan.items!r}; "
                "pass it (encoder=)"
            )
        plan.new.require_same(encoder.space, "encoder of the raw items")
        embed: Encoder = encoder
        return lambda rows: _embedded(rows, plan, embed)

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        return gallery.search(queries.new, k, columns, gallery.plan.new)


def _embedded(rows: Rows, plan: Plan, encoder: Encoder) -> Produced:
    items: pa.Array = rows.columns[plan.items]
    valid = items.is_valid().to_numpy(zero_copy_only=False)
    vectors = np.zeros((len(rows), plan.new.dimension), dtype=np.float32)
    if valid.any():
        vectors[valid] = encoder.encode(items.drop_null().to_pylist())
    return Produced(vectors, valid)


STRATEGY = Backfill()
