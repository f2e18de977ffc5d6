"""What a result is measured against: labels, judgements, or the new model's own neighbours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossfade.datasets.relevance import Relevance
from crossfade.errors import UsageError
from crossfade.evaluation.metrics import (
    Agreement,
    AveragePrecision,
    CumulativeMatch,
    NormalizedGain,
    Recall,
    ReciprocalRank,
    RetrievalMetric,
    caption_recall,
)

LABEL_METRICS = (CumulativeMatch(1), CumulativeMatch(5), AveragePrecision())
CAPTION_METRICS = (caption_recall(1), caption_recall(5), caption_recall(10))
JUDGED_METRICS = (NormalizedGain(10), Recall(100), ReciprocalRank(10))
AGREEMENT_METRICS = (Agreement(10),)


class GroundTruth(ABC):
    """Grades of relevance for every query and gallery item.

    Attributes:
        kind: labels, captions, judged or neighbours.
        description: the ground truth in words, as every figure names it.
        metrics: what is measured against it.
        primary: name of the metric that verdicts are made on.
    """

    kind: str
    description: str
    metrics: tuple[RetrievalMetric, ...]
    primary: str

    @property
    @abstractmethod
    def n_queries(self) -> int:
        """Number of queries (Q)."""

    @property
    @abstractmethod
    def n_gallery(self) -> int:
        """Number of gallery items (N)."""

    @abstractmethod
    def grades(self, rows: slice) -> NDArray[np.float32] | NDArray[np.bool_]:
        """(b, N) grades of the queries in `rows`, 0 for irrelevant."""

    @abstractmethod
    def take(self, queries: NDArray[np.integer]) -> GroundTruth:
        """The same ground truth for some of the queries, in the order given."""

    def query_groups(self) -> NDArray[np.integer] | None:
        """(Q,) numbers of queries that belong together and are resampled together; None if none do."""
        return None

    def _choose_primary(self, primary: str | None, default: str) -> None:
        self.primary = primary or default
        names = [metric.name for metric in self.metrics]
        if self.primary not in names:
            raise UsageError(
                f"primary metric {self.primary!r} is not measured here; one of {', '.join(names)}"
            )


class Labels(GroundTruth):
    """An item is relevant to a query of the same class.

    Args:
        queries: (Q,) labels, of any one comparable type.
        gallery: (N,) labels.
        primary: metric of the verdict; mAP by default, the most sensitive of the three.
        description: what the labels are.
    """

    kind = "labels"

    def __init__(
        self,
        queries: ArrayLike,
        gallery: ArrayLike,
        *,
        primary: str | None = None,
        description: str = "class labels",
    ) -> None:
        queries, gallery = np.asarray(queries), np.asarray(gallery)
        codes = np.unique(np.concatenate([queries, gallery]), return_inverse=True)[1]
        self._queries, self._gallery = codes[: len(queries)], codes[len(queries) :]
        self.description, self.metrics = description, LABEL_METRICS
        self._choose_primary(primary, "mAP")

    @property
    def n_queries(self) -> int:
        return len(self._queries)

    @property
    def n_gallery(self) -> int:
        return len(self._gallery)

    @property
    def gallery_classes(self) -> NDArray[np.intp]:
        """(N,) class of every gallery item, counted from 0."""
        return self._gallery

    def grades(self, rows: slice) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = self._queries[rows, None] == self._gallery[None, :]
        return same

    def take(self, queries: NDArray[np.integer]) -> Labels:
        chosen = copy(self)
        chosen._queries = self._queries[queries]
        return chosen


class Judgements(GroundTruth):
    """Graded judgements of some (query, item) pairs; whatever was not judged is irrelevant.

    Args:
        n_queries: number of queries (Q).
        n_gallery: number of gallery items (N).
        queries: (m,) positions of queries.
        items: (m,) positions of gallery items.
        grades: (m,) grades; 0 or less means irrelevant. All 1 by default.
        captions: Recall@1/5/10 as image-text retrieval reports it (one right caption is enough) in
            place of nDCG@10, Recall@100 and MRR@10.
        primary: metric of the verdict; nDCG@10 or, for captions, Recall@1 by default.

    Raises:
        UsageError: a position outside of the queries or the gallery.
    """

    def __init__(
        self,
        n_queries: int,
        n_gallery: int,
        queries: ArrayLike,
        items: ArrayLike,
        grades: ArrayLike | None = None,
        *,
        captions: bool = False,
        primary: str | None = None,
        description: str | None = None,
    ) -> None:
        self._shape = n_queries, n_gallery
        queries, items = np.asarray(queries, dtype=np.intp), np.asarray(items, dtype=np.intp)
        values = np.ones(len(queries)) if grades is None else np.asarray(grades)
        _require_positions(queries, n_queries, "queries")
        _require_positions(items, n_gallery, "gallery items")
        positive = np.flatnonzero(values > 0)
        order = positive[np.argsort(queries[positive], kind="stable")]
        self._items, self._grades = items[order], values[order].astype(np.float32)
        self._starts = np.searchsorted(queries[order], np.arange(n_queries + 1))
        self.kind = "captions" if captions else "judged"
        self.description = description or ("image-caption pairs" if captions else "human judgements")
        self.metrics = CAPTION_METRICS if captions else JUDGED_METRICS
        self._choose_primary(primary, "Recall@1" if captions else "nDCG@10")

    @classmethod
    def from_relevance(
        cls,
        relevance: Relevance,
        *,
        captions: bool = False,
        primary: str | None = None,
        description: str | None = None,
    ) -> Judgements:
        """Judgements as the data sets hand them over (`datasets.beir.locate`, `Captions.text_to_image`)."""
        return cls(
            relevance.n_queries,
            relevance.n_gallery,
            relevance.queries,
            relevance.items,
            relevance.grades,
            captions=captions,
            primary=primary,
            description=description,
        )

    @classmethod
    def one_to_one(cls, n: int, *, primary: str | None = None, description: str = "pairs") -> Judgements:
        """Query i and item i belong together, and nothing else does."""
        return cls(n, n, np.arange(n), np.arange(n), captions=True, primary=primary, description=description)

    @property
    def n_queries(self) -> int:
        return self._shape[0]

    @property
    def n_gallery(self) -> int:
        return self._shape[1]

    def grades(self, rows: slice) -> NDArray[np.float32]:
        start, stop, _ = rows.indices(self.n_queries)
        block = np.zeros((stop - start, self.n_gallery), dtype=np.float32)
        for row in range(start, stop):
            judged = slice(self._starts[row], self._starts[row + 1])
            block[row - start, self._items[judged]] = self._grades[judged]
        return block

    def query_groups(self) -> NDArray[np.integer] | None:
        """Captions of one image say nearly the same: they are one group, by the first item they belong to."""
        if self.kind != "captions":
            return None
        alone = self.n_gallery + np.arange(self.n_queries)
        starts, has_any = self._starts[:-1], np.diff(self._starts) > 0
        alone[has_any] = self._items[starts[has_any]]
        return alone

    def take(self, queries: NDArray[np.integer]) -> Judgements:
        judged = [np.arange(self._starts[query], self._starts[query + 1]) for query in queries]
        order = np.concatenate(judged) if judged else np.empty(0, dtype=np.intp)
        chosen = copy(self)
        chosen._shape = len(queries), self.n_gallery
        chosen._items, chosen._grades = self._items[order], self._grades[order]
        chosen._starts = np.cumsum([0, *map(len, judged)])
        return chosen


class Neighbours(Judgements):
    """Label-free: the new model's own nearest neighbours count as relevant.

    It measures how closely the new model is imitated. Nothing is said about whether either model is right.
    """

    def __init__(self, n_queries: int, n_gallery: int, queries: ArrayLike, items: ArrayLike) -> None:
        super().__init__(n_queries, n_gallery, queries, items)
        self.kind = "neighbours"
        self.description = "the new model's own ten nearest neighbours"
        self.metrics = AGREEMENT_METRICS
        self._choose_primary(None, "agreement@10")


def _require_positions(positions: NDArray[np.intp], count: int, what: str) -> None:
    if len(positions) and not (positions.min() >= 0 and positions.max() < count):
        wrong = positions[(positions < 0) | (positions >= count)][0]
        raise UsageError(f"judgements name position {wrong}, but there are {count} {what}; count from 0")
