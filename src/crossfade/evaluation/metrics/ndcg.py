"""Normalised discounted cumulative gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.ranking import Ranking


@dataclass(frozen=True)
class NormalizedGain(RetrievalMetric):
    """nDCG@k with linear gains and a log2 discount (trec_eval's ``ndcg_cut``, as BEIR reports it)."""

    k: int

    @property
    def name(self) -> str:
        return f"nDCG@{self.k}"

    def values(self, ranking: Ranking) -> NDArray[np.float64]:
        gained = ranking.total(self._gain(ranking.grade, ranking.rank))
        best_first = np.lexsort((-ranking.grade, ranking.query))
        ideal = ranking.total(self._gain(ranking.grade[best_first], ranking.ordinal))
        return np.divide(gained, ideal, out=np.zeros_like(gained), where=ideal > 0)

    def _gain(self, grade: NDArray[np.floating], rank: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.where(rank <= self.k, grade / np.log2(rank + 1.0), 0.0)
