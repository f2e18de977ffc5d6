"""Where the relevant items stand when a gallery is sorted by score: all that a metric needs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def largest_first(values: NDArray[np.floating]) -> NDArray[np.intp]:
    """Positions by falling value; of equal values the first comes first."""
    return np.argsort(-values, kind="stable")


@dataclass(frozen=True, slots=True)
class Ranking:
    """The relevant items of a block of queries, m in all, sorted by query and then by rank.

    Attributes:
        n_queries: queries in the block (b).
        query: (m,) row of the query that the item is relevant to.
        rank: (m,) place in the sorted gallery, from 1. Items of equal score stand in the least
            favourable order (irrelevant first, low grade before high), so that a model that gives
            many items the same score gains nothing by it.
        grade: (m,) grade of relevance, above 0.
        ordinal: (m,) place among the relevant items of the same query, from 1.
    """

    n_queries: int
    query: NDArray[np.intp]
    rank: NDArray[np.intp]
    grade: NDArray[np.floating]
    ordinal: NDArray[np.intp]

    def total(self, values: NDArray[np.floating] | NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sum of `values` (m,) per query (b,)."""
        return np.bincount(self.query, weights=values, minlength=self.n_queries).astype(
            np.float64, copy=False
        )

    @property
    def relevant(self) -> NDArray[np.float64]:
        """(b,) number of relevant items per query."""
        return self.total(np.ones(len(self.query)))

    @property
    def best(self) -> NDArray[np.float64]:
        """(b,) rank of the first relevant item; infinite if there is none."""
        ranks = np.full(self.n_queries, np.inf)
        first = self.ordinal == 1
        ranks[self.query[first]] = self.rank[first]
        return ranks


def rank_relevant(
    scores: NDArray[np.floating],
    grades: NDArray[np.floating] | NDArray[np.bool_],
    ascending: NDArray[np.floating] | None = None,
) -> Ranking:
    """Rank the items of positive grade among all.

    Args:
        scores: (b, N), higher is better; -inf takes an item out, NaN counts as better than any score.
        grades: (b, N), 0 for irrelevant.
        ascending: (b, N) each row of `scores` sorted, if that is at hand already.
    """
    query, item = np.nonzero(grades)
    score, grade = scores[query, item], grades[query, item].astype(np.float64)
    order = np.lexsort((grade, -score, query))
    query, score, grade = query[order], score[order], grade[order]
    starts = np.searchsorted(query, np.arange(len(scores) + 1))
    ordinal = np.arange(1, len(query) + 1) - starts[query]
    ascending = np.sort(scores, axis=1) if ascending is None else ascending
    rank = np.empty(len(query), dtype=np.intp)
    for row, (start, stop) in enumerate(pairwise(starts)):
        rank[start:stop] = _irrelevant_before(ascending[row], score[start:stop])
    return Ranking(len(scores), query, rank + ordinal, grade, ordinal)


def _irrelevant_before(ascending: NDArray[np.floating], relevant: NDArray[np.floating]) -> NDArray[np.intp]:
    at_least = len(ascending) - np.searchsorted(ascending, relevant, side="left")
    relevant_at_least = np.searchsorted(-relevant, -relevant, side="right")
    return at_least - relevant_at_least
