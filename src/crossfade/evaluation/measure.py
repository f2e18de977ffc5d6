"""Per-query values of every metric for the rows of a task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.ground_truth import GroundTruth, Neighbours
from crossfade.evaluation.metrics import CumulativeMatch
from crossfade.evaluation.ranking import rank_relevant
from crossfade.evaluation.rows import Scored, SingleStage, best_first, take_out
from crossfade.evaluation.scoring import query_blocks

Values = NDArray[np.float64]
NEIGHBOURS = 10


@dataclass(frozen=True)
class Measurement:
    """What one row scored, query by query.

    Attributes:
        values: (Q,) per metric.
        right: (Q,) 1 where the first result is relevant, else 0.
    """

    values: dict[str, NDArray[np.float64]]
    right: NDArray[np.float64]

    def take(self, queries: NDArray[np.integer] | NDArray[np.bool_]) -> Measurement:
        """The values of some queries only."""
        return Measurement({name: v[queries] for name, v in self.values.items()}, self.right[queries])


class Measurer:
    """Measures rows against one ground truth; a query's own item is irrelevant to it.

    Args:
        truth: grades of Q queries and N items.
        own: (Q,) the query's own place in the gallery, -1 for none; None if no query is in it.
    """

    def __init__(self, truth: GroundTruth, own: NDArray[np.integer] | None = None) -> None:
        self.truth, self.own = truth, own
        self._metrics = [*truth.metrics, CumulativeMatch(1, label="first")]

    def grades(self, rows: slice) -> NDArray[np.floating] | NDArray[np.bool_]:
        """(b, N) grades with the queries' own items taken out."""
        block = self.truth.grades(rows)
        take_out(block, self.own, rows, 0)
        return block

    def slices(self) -> Iterable[slice]:
        """Blocks of queries of bounded memory."""
        return query_blocks(self.truth.n_queries, self.truth.n_gallery)

    def answerable(self) -> NDArray[np.bool_]:
        """(Q,) whether anything in the gallery is relevant to the query."""
        return np.concatenate([np.asarray(self.grades(rows) > 0).any(axis=1) for rows in self.slices()])

    def __call__(self, scored: Scored) -> dict[str, Measurement]:
        """Measure all rows that `scored` makes, by key."""
        return measure(scored, [self])[0]

    def block(self, scores: NDArray[np.floating], ascending: NDArray[np.floating], rows: slice) -> Values:
        """(metrics, b) values of the scores (b, N) of the queries in `rows`; `ascending` is their sort."""
        ranking = rank_relevant(scores, self.grades(rows), ascending)
        return np.stack([metric.values(ranking) for metric in self._metrics])

    def measurement(self, values: Values) -> Measurement:
        """All blocks (metrics, Q) by the metrics' names."""
        named = zip(self.truth.metrics, values[:-1], strict=True)
        return Measurement({metric.name: row for metric, row in named}, values[-1])


def measure(scored: Scored, measurers: Sequence[Measurer]) -> list[dict[str, Measurement]]:
    """Measure rows against several ground truths of the same queries; scored and sorted once for all."""
    parts: dict[str, list[list[Values]]] = {}
    for rows in measurers[0].slices():
        for key, scores in scored.blocks(rows):
            ascending = np.sort(scores, axis=1)
            blocks = parts.setdefault(key, [[] for _ in measurers])
            for block, measurer in zip(blocks, measurers, strict=True):
                block.append(measurer.block(scores, ascending, rows))
    return [
        {key: measurer.measurement(np.concatenate(blocks[index], axis=1)) for key, blocks in parts.items()}
        for index, measurer in enumerate(measurers)
    ]


def nearest_neighbours(new: SingleStage, n_gallery: int) -> Neighbours:
    """The ten items that the new model itself puts first, and all that score the same as the tenth."""
    queries: list[NDArray[np.intp]] = []
    items: list[NDArray[np.intp]] = []
    for rows in query_blocks(len(new.queries), n_gallery):
        scores = new.scores(rows)
        tenth = best_first(scores, NEIGHBOURS)[:, -1:]
        near = scores >= np.take_along_axis(scores, tenth, axis=1)
        query, item = np.nonzero(near & np.isfinite(scores))
        queries.append(query + rows.start)
        items.append(item)
    return Neighbours(len(new.queries), n_gallery, np.concatenate(queries), np.concatenate(items))
