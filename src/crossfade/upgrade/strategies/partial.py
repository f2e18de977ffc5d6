"""Lift everything, and embed again what gains most by it (partial backfill, FastFill, ICLR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import UsageError
from crossfade.evaluation.levelling import Levelling
from crossfade.evaluation.merging import LIFTED, RAW, RE_EMBEDDED, Merge
from crossfade.stores import Hits, Produce, Produced, Rows
from crossfade.upgrade.plans import ChosenItems, Plan
from crossfade.upgrade.strategies.base import Gallery, Queries, best_hits
from crossfade.upgrade.strategies.gallery import Lift, column_steps
from crossfade.upgrade.strategies.lifting import lift
from crossfade.vectors.ids import normalize_ids

OVERFETCH, MOST_FETCHED = 10, 10_000
"""Rows fetched for every one that is returned, where scores are brought together after the search."""


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
        chosen, embed, lifting, level = read_chosen(plan.chosen), encoder, adapter, _levelling(plan)
        return lambda rows: _produced(rows, plan, lifting, embed, chosen, level)

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        plan = gallery.plan
        merge = Merge.from_dict(plan.mix.merge) if plan.mix else Merge()
        if merge.method == RAW:
            return super().answer(gallery, queries, k, columns)
        count = max(k, min(k * OVERFETCH, MOST_FETCHED))
        fetched = gallery.search(queries.new, count, columns, plan.new)
        return [_merged(hits, plan, merge, k) for hits in fetched]


def _levelling(plan: Plan) -> Levelling | None:
    from crossfade.upgrade.mixing import read_levelling

    if plan.mix is None or not plan.mix.levelling:
        return None
    return read_levelling(plan.mix.levelling, plan.mix.sha256, plan.new.dimension)


def _merged(hits: Hits, plan: Plan, merge: Merge, k: int) -> Hits:
    """The `k` best by scores that compare across origins."""
    assert plan.chosen is not None
    again = pc.is_in(normalize_ids(hits.ids, plan.store), _chosen_ids(plan.chosen))
    origins = np.where(again.to_numpy(zero_copy_only=False), RE_EMBEDDED, LIFTED)
    return best_hits(hits, merge(hits.scores[None, :], origins)[0], k)


@lru_cache(maxsize=4)
def _chosen_ids(chosen: ChosenItems) -> pa.Array:
    from crossfade.upgrade.choosing import read_chosen

    return read_chosen(chosen)


def _produced(
    rows: Rows, plan: Plan, adapter: Adapter, encoder: Encoder, chosen: pa.Array, level: Levelling | None
) -> Produced:
    """New vectors of `rows`; one whose turn it is and whose item is gone stays lifted, if not refused."""
    made = lift(adapter, rows, plan)
    if level is not None and made.valid.any():
        made.vectors[made.valid] = level(made.vectors[made.valid])
    turn = pc.is_in(normalize_ids(rows.ids, plan.store), chosen).to_numpy(zero_copy_only=False)
    if turn.any():
        items: pa.Array = rows.columns[plan.items].filter(pa.array(turn))
        there = items.is_valid().to_numpy(zero_copy_only=False)
        rows_of_items = np.flatnonzero(turn)
        if plan.on_invalid == "refuse":
            made.valid[rows_of_items[~there]] = False
        if there.any():
            made.valid[rows_of_items[there]] = True
            made.vectors[rows_of_items[there]] = encoder.encode(items.drop_null().to_pylist())
    return made


STRATEGY = Partial()
