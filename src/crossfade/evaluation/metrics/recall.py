"""Recall of judged retrieval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.ranking import Ranking


@dataclass(frozen=True)
class Recall(RetrievalMetric):
    """Recall@k: share of the relevant items that are among the first k (trec_eval's ``recall``)."""

    k: int

    @property
    def name(self) -> str:
        return f"Recall@{self.k}"

    def values(self, ranking: Ranking) -> NDArray[np.float64]:
        return ranking.total(ranking.rank <= self.k) / np.maximum(ranking.relevant, 1)
