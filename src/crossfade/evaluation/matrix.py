"""The rows of one task, measured query by query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import Adapter
from crossfade.errors import DataError
from crossfade.evaluation.bootstrap import Groups
from crossfade.evaluation.crossfit import CrossFit, assign_folds, by_fold
from crossfade.evaluation.interpolation import slerp
from crossfade.evaluation.measure import Measurement, Measurer, measure, nearest_neighbours
from crossfade.evaluation.result import NAIVE, NATIVE, NEW_NEW, OLD_ENCODER, OLD_OLD, RAW_ITEMS
from crossfade.evaluation.rows import (
    Cascade,
    RandomOrder,
    Scored,
    SingleStage,
    Stage,
    StageByFold,
    cascade_keys,
)
from crossfade.evaluation.scoring import Scorer
from crossfade.evaluation.task import RetrievalTask
from crossfade.vectors import FloatMatrix

CHANCE = "chance"
CASCADES = {
    "query": ("cascade", "new/old→new", "by the mapped query"),
    "interpolate": ("cascade", "new/old→new", "by the interpolated query"),
    "gallery": ("lifted-cascade", "new/h(old)→new", "from the lifted gallery"),
}
"""By first stage: strategy, notation, and where the candidates come from."""


@dataclass(frozen=True)
class Interpolation:
    """Which backward map, or compatible model, feeds the interpolation and how much it counts."""

    method: str
    weight: float


@dataclass(frozen=True)
class RowPlan:
    """What a row is, before it is measured; the fields are those of `RowResult`."""

    key: str
    notation: str
    strategy: str
    title: str
    method: str = ""
    needs: tuple[str, ...] = ()
    candidate: bool = False
    weight: float | None = None
    depth: int | None = None
    first_stage: str = ""
    note: str = ""


class TaskMatrix:
    """Measures the rows of one task and keeps their per-query values.

    Attributes:
        task: with the queries that can be answered.
        groups: queries that are resampled together.
        left_out: number of queries to which nothing in the gallery is relevant.
        folds: (Q,) the half of the queries that each belongs to, for choices.
        plans: the rows so far, in the order of the table.
        measured, agreement: per-query values by key, against the ground truth and against the new
            model's own neighbours.
        embedded: by key of a cascade.
    """

    def __init__(self, task: RetrievalTask, seed: int) -> None:
        answerable = Measurer(task.ground_truth, task.query_positions).answerable()
        if not answerable.any():
            raise DataError(
                f"task {task.name!r}: nothing in the gallery is relevant to any of its {task.n_queries} "
                "queries; check that labels or judgements and gallery belong together"
            )
        self.left_out = int((~answerable).sum())
        self.task = task.take_queries(np.flatnonzero(answerable)) if self.left_out else task
        self.own = self.task.query_positions
        groups = self.task.query_groups
        numbers = self.task.ground_truth.query_groups() if groups is None else groups
        self.groups = Groups(self.task.n_queries, numbers)
        self.folds = assign_folds(self.task.n_queries, seed, numbers)
        self.old = Scorer(task.gallery_old.matrix, task.gallery_old.space.metric)
        self.new = Scorer(task.gallery_new.matrix, task.gallery_new.space.metric)
        self._truth = Measurer(self.task.ground_truth, self.own)
        self._near = Measurer(nearest_neighbours(self._new_new(), task.n_gallery), self.own)
        self.plans: list[RowPlan] = []
        self.measured: dict[str, Measurement] = {}
        self.agreement: dict[str, NDArray[np.float64]] = {}
        self.embedded: dict[str, int] = {}
        self._bridged: dict[str, FloatMatrix] = {}

    # --- the rows -----------------------------------------------------------------------------

    def add_baselines(self, seed: int) -> None:
        """old/old, the naive swap, and chance level."""
        old = self.task.queries_old.matrix
        self._measure(RowPlan(OLD_OLD, "old/old", "keep", "keep the old model"), self._on_old(OLD_OLD, old))
        self._add_naive()
        chance = RandomOrder(CHANCE, self.task.n_gallery, seed, self.own)
        self.measured[CHANCE] = self._truth(chance)[CHANCE]

    def _add_naive(self) -> None:
        d_old, d_new = self.task.gallery_old.space.dimension, self.task.gallery_new.space.dimension
        title = "naive swap: new queries on the old gallery"
        if d_old != d_new:
            note = f"not comparable: new queries have {d_new} dimensions, the old gallery {d_old}"
            self.plans.append(RowPlan(NAIVE, "new/old", "naive", title, note=note))
            return
        scored = self._on_old(NAIVE, self.task.queries_new.matrix)
        self._measure(RowPlan(NAIVE, "new/old", "naive", title), scored)

    def add_query(self, method: str, adapter: Adapter) -> None:
        """New queries mapped back, on the old gallery."""
        self._bridged[method] = adapter.transform(self.task.queries_new.matrix)
        key, title = f"query:{method}", f"new queries mapped back ({method})"
        plan = RowPlan(key, "new/old", "query", title, method, candidate=True)
        self._measure(plan, self._on_old(key, self._bridged[method]))

    def add_compatible(self, name: str) -> None:
        """A compatible model's queries on the old gallery, and all queries on the gallery that it embeds."""
        given = self.task.compatible[name]
        self._bridged[name] = given.queries.matrix
        key, title = f"{NATIVE}:{name}", f"queries of {name}, nothing mapped"
        plan = RowPlan(key, "new/old", NATIVE, title, name, candidate=True)
        self._measure(plan, self._on_old(key, given.queries.matrix))
        if given.gallery is None:
            return
        gallery = Scorer(given.gallery.matrix, given.gallery.space.metric)
        for which, queries in (("old", self.task.queries_old), ("new", given.queries)):
            key, title = f"{NATIVE}-{which}:{name}", f"gallery embedded by {name}, {which} queries"
            plan = RowPlan(key, f"{which}/new", NATIVE, title, name, needs=(RAW_ITEMS,))
            self._measure(plan, SingleStage(key, queries.matrix, gallery, self.own))

    def add_gallery(self, method: str, adapter: Adapter) -> None:
        """New queries on the gallery lifted forward; the lifted copy lives as long as its row is measured."""
        key, title = f"gallery:{method}", f"gallery lifted forward ({method})"
        plan = RowPlan(key, "new/h(old)", "gallery", title, method, candidate=True)
        self._measure(plan, self._on_lifted(key, adapter))

    def add_interpolation(self, choice: CrossFit[Interpolation], key: str = "interpolate") -> None:
        """Old query and mapped new query, or that of a compatible model, together on the old gallery."""
        title = f"old and new query interpolated ({choice.final.method}, weight {choice.final.weight:g})"
        plan = RowPlan(
            key,
            "old+new/old",
            "interpolate",
            title,
            choice.final.method,
            needs=(OLD_ENCODER,),
            candidate=True,
            weight=choice.final.weight,
            note=_explain(choice),
        )
        self._measure(plan, self._on_old(plan.key, self._interpolated(choice)))

    def add_cascade_by_query(self, choice: CrossFit[str], depths: tuple[int, ...]) -> None:
        """Candidates by the mapped new query, re-ranked by the new model."""
        first = self._on_old("", by_fold(choice, self._bridged.__getitem__, self.folds))
        self._add_cascade("query", first, depths, choice.final, None, (RAW_ITEMS,), _explain(choice))

    def add_cascade_by_interpolation(self, choice: CrossFit[Interpolation], depths: tuple[int, ...]) -> None:
        """Candidates by the interpolated query, re-ranked by the new model."""
        final, needs = choice.final, (RAW_ITEMS, OLD_ENCODER)
        first = self._on_old("", self._interpolated(choice))
        self._add_cascade("interpolate", first, depths, final.method, final.weight, needs, _explain(choice))

    def add_cascade_by_gallery(
        self, choice: CrossFit[str], maps: Mapping[str, Adapter], depths: tuple[int, ...]
    ) -> None:
        """Candidates from the lifted gallery, re-ranked by the new model."""
        lifted = {name: self._on_lifted("", maps[name]) for name in set(choice.for_fold)}
        first = StageByFold(tuple(lifted[name] for name in choice.for_fold), self.folds)
        self._add_cascade("gallery", first, depths, choice.final, None, (RAW_ITEMS,), _explain(choice))

    def add_backfill(self) -> None:
        """new/new, the upper bound of everything that keeps the old gallery."""
        plan = RowPlan(NEW_NEW, "new/new", "backfill", "re-embed the whole gallery", needs=(RAW_ITEMS,))
        self._measure(plan, self._new_new())

    # --- choices ------------------------------------------------------------------------------

    def primary(self, key: str) -> NDArray[np.float64]:
        """(Q,) values of a measured row on the primary metric."""
        return self.measured[key].values[self.task.ground_truth.primary]

    def try_interpolation(self, choice: Interpolation) -> NDArray[np.float64]:
        """(Q,) values on the primary metric if all queries were interpolated so; for choosing only."""
        queries = self._interpolate(choice)
        return self._truth(self._on_old("", queries))[""].values[self.task.ground_truth.primary]

    # --- measuring ----------------------------------------------------------------------------

    def _on_old(self, key: str, queries: FloatMatrix) -> SingleStage:
        return SingleStage(key, queries, self.old, self.own)

    def _on_lifted(self, key: str, adapter: Adapter) -> SingleStage:
        lifted = Scorer(self.task.lift_gallery(adapter), self.new.metric)
        return SingleStage(key, self.task.queries_new.matrix, lifted, self.own)

    def _new_new(self) -> SingleStage:
        return SingleStage(NEW_NEW, self.task.queries_new.matrix, self.new, self.own)

    def _interpolate(self, choice: Interpolation) -> FloatMatrix:
        return slerp(self.task.queries_old.matrix, self._bridged[choice.method], choice.weight)

    def _interpolated(self, choice: CrossFit[Interpolation]) -> FloatMatrix:
        return by_fold(choice, self._interpolate, self.folds)

    def _add_cascade(
        self,
        first_stage: str,
        first: Stage,
        depths: tuple[int, ...],
        method: str,
        weight: float | None,
        needs: tuple[str, ...],
        note: str,
    ) -> None:
        keys = cascade_keys(first_stage, [depth for depth in depths if depth < self.task.n_gallery])
        if not keys:
            return
        strategy, notation, source = CASCADES[first_stage]
        plans = [
            RowPlan(
                key,
                notation,
                strategy,
                f"{depth} candidates {source}, re-ranked by the new model",
                method,
                needs,
                candidate=True,
                weight=weight,
                depth=depth,
                first_stage=first_stage,
                note=note,
            )
            for depth, key in keys.items()
        ]
        cascade = Cascade(first, self._new_new(), keys)
        self._measure_all(plans, cascade)
        self.embedded |= cascade.embedded()

    def _measure(self, plan: RowPlan, scored: Scored) -> None:
        self._measure_all([plan], scored)

    def _measure_all(self, plans: list[RowPlan], scored: Scored) -> None:
        self.plans += plans
        against_truth, against_new = measure(scored, [self._truth, self._near])
        self.measured |= against_truth
        self.agreement |= {key: row.values["agreement@10"] for key, row in against_new.items()}


def _explain(choice: CrossFit[str] | CrossFit[Interpolation]) -> str:
    scored = " and ".join(_words(entry) for entry in choice.for_fold)
    how = (
        f"both halves of the queries chose {_words(choice.final)}"
        if choice.unanimous
        else (f"the halves of the queries are scored with {scored}; {_words(choice.final)} is best on all")
    )
    return f"chosen on one half of the queries, scored on the other: {how}"


def _words(choice: str | Interpolation) -> str:
    return choice if isinstance(choice, str) else f"{choice.method} at weight {choice.weight:g}"
