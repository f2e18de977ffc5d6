"""Rows of benchmarks/xbt.py, measured on the same queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xbt_upgrade import BRIEF, DIRECT, STAGE_1, XBT, Upgrade, ablations, curve

from crossfade.datasets.captions import Captions
from crossfade.datasets.relevance import Relevance
from crossfade.evaluation import (
    NATIVE,
    OLD_OLD,
    Compatible,
    Difference,
    Evaluation,
    Judgements,
    RetrievalTask,
    RowResult,
    evaluate,
)
from crossfade.evaluation.bootstrap import Groups
from crossfade.evaluation.measure import Measurer
from crossfade.evaluation.paired import PairedRows, paired_rows
from crossfade.evaluation.rows import SingleStage
from crossfade.evaluation.scoring import Scorer
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix, Vectors

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text→image", "image→text"
NAIVE_SWAP = "naive"
NAMES = {
    "procrustes": "Procrustes from texts",
    DIRECT: "direct training",
    "direct-phi": "φ on pairs",
    STAGE_1: "XBT stage 1",
    XBT: "XBT",
}
"""The models of the main table that may be chosen, each also interpolated with the old query."""
WITHOUT_OLD = ("procrustes", DIRECT, "direct-phi", STAGE_1)
"""What XBT is to be as good as: nothing here asks the old model at query time."""


@dataclass(frozen=True)
class Embedded:
    """Images (n, d) and distinct captions (m, d) of a test under one model."""

    images: FloatMatrix
    texts: FloatMatrix

    def each(self, change: Callable[[FloatMatrix], FloatMatrix]) -> Embedded:
        """Both, mapped."""
        return Embedded(change(self.images), change(self.texts))


@dataclass(frozen=True)
class Searched:
    """A test under every model.

    Attributes:
        captions: which belong to which images.
        old, new: both models off the shelf, and their spaces.
        compatible: by key, models in the old space.
    """

    captions: Captions
    old: Embedded
    new: Embedded
    old_space: Space
    new_space: Space
    compatible: Mapping[str, Embedded]

    def tasks(self, keys: Sequence[str], queries: int | None, seed: int = 0) -> list[RetrievalTask]:
        """Both directions with the models `keys`; at most `queries` of each, drawn at random."""
        chosen = {key: self.compatible[key] for key in keys}
        sides = (
            (TEXT_TO_IMAGE, self.captions.text_to_image, "texts", "images"),
            (IMAGE_TO_TEXT, self.captions.image_to_text, "images", "texts"),
        )
        tasks = [self._task(name, relevance, chosen, *pair) for name, relevance, *pair in sides]
        return [_some(task, queries, seed) for task in tasks]

    def _task(
        self,
        name: str,
        relevance: Relevance,
        chosen: Mapping[str, Embedded],
        asks: str,
        answers: str,
    ) -> RetrievalTask:
        def of(model: Embedded, side: str, space: Space) -> Vectors:
            matrix = getattr(model, side)
            return Vectors(np.arange(len(matrix)), matrix, space)

        compatible = {
            NAMES.get(key, key): Compatible(
                of(model, asks, self.old_space), of(model, answers, self.old_space) if key == XBT else None
            )
            for key, model in chosen.items()
        }
        return RetrievalTask(
            name,
            of(self.old, asks, self.old_space),
            of(self.new, asks, self.new_space),
            of(self.old, answers, self.old_space),
            of(self.new, answers, self.new_space),
            Judgements.from_relevance(relevance, captions=True),
            compatible=compatible,
        )


def _some(task: RetrievalTask, queries: int | None, seed: int) -> RetrievalTask:
    if queries is None or queries >= task.n_queries:
        return task
    drawn = np.random.default_rng(seed).choice(task.n_queries, queries, replace=False)
    return task.take_queries(np.sort(drawn))


@dataclass(frozen=True)
class Studied:
    """All variants of one direction on the same queries, by metric; `metrics` are its names."""

    metrics: tuple[str, ...]
    paired: Mapping[str, PairedRows]

    def difference(self, key: str, other: str, metric: str) -> Difference:
        """Row `key` minus row `other`."""
        return self.paired[metric].difference(key, other)


@dataclass(frozen=True)
class Result:
    """What one test showed.

    Attributes:
        evaluation: the main table in both directions, with the verdict.
        naive: by direction, the naive swap, which is no way to choose.
        studied: by direction, all variants and old/old.
        sizes: images and distinct captions.
    """

    name: str
    evaluation: Evaluation
    naive: Mapping[str, RowResult]
    studied: Mapping[str, Studied]
    sizes: tuple[int, int]


def measured(name: str, test: Searched, upgrade: Upgrade) -> Result:
    """The main rows through `evaluate`, all variants beside each other."""
    main = test.tasks(list(NAMES), upgrade.queries)
    evaluation = evaluate(main, None, samples=upgrade.samples)
    swapped = evaluate(test.tasks([NAIVE_SWAP], upgrade.queries), None, samples=upgrade.samples, weights=())
    naive = {task.name: task.row(f"{NATIVE}:{NAIVE_SWAP}") for task in swapped.tasks}
    everything = test.tasks(list(test.compatible), upgrade.queries)
    studied = {task.name: _study(task, upgrade.samples) for task in everything}
    return Result(name, evaluation, naive, studied, (len(test.captions.image_ids), len(test.captions.texts)))


def _study(task: RetrievalTask, samples: int, seed: int = 0) -> Studied:
    truth, old = Measurer(task.ground_truth), Scorer(task.gallery_old.matrix, task.gallery_old.space.metric)
    keys = {title: key for key, title in NAMES.items()}
    rows = {OLD_OLD: task.queries_old.matrix}
    rows |= {keys.get(name, name): given.queries.matrix for name, given in task.compatible.items()}
    found = {key: truth(SingleStage(key, queries, old))[key].values for key, queries in rows.items()}
    names = [metric.name for metric in task.ground_truth.metrics]
    values = {name: {key: one[name] for key, one in found.items()} for name in names}
    groups = Groups(task.n_queries, task.ground_truth.query_groups())
    return Studied(tuple(names), paired_rows(values, groups, samples=samples, seed=seed))


def curve_keys(counts: Sequence[int]) -> list[tuple[str, str, str]]:
    """(number of pairs, row with stage 1, row without it or nothing), rising."""
    between = [(f"{with_.pairs:,}", with_.key, without.key) for with_, without in curve(counts)]
    return [("0", STAGE_1, ""), *between, ("all", XBT, DIRECT)]


def claims(result: Result, counts: Sequence[int]) -> list[dict[str, Any]]:
    """What the method is to show, as paired differences per direction and metric."""
    compared = [(XBT, OLD_OLD, "XBT above the old model")]
    few = [key for count, key, _ in curve_keys(counts) if count not in ("0", "all")]
    compared += [(key, DIRECT, "some of the pairs with stage 1 against all without") for key in (*few, BRIEF)]
    compared += [(XBT, key, "XBT against a way without the old model") for key in WITHOUT_OLD]
    found = []
    for direction, studied in result.studied.items():
        known = studied.paired[studied.metrics[0]].keys
        for key, other, claim in compared:
            if key in known and other in known:
                figures = {name: studied.difference(key, other, name).to_dict() for name in studied.metrics}
                found.append(
                    {"claim": claim, "direction": direction, "row": key, "other": other, "metrics": figures}
                )
    return found


def ablation_keys(upgrade: Upgrade) -> list[str]:
    """Rows of the ablations, XBT and its first stage among them."""
    made = ablations(upgrade)
    whole, first = ([one.key for one in made if (one.pairs == 0) is alone] for alone in (False, True))
    return [XBT, *whole, STAGE_1, *first]
