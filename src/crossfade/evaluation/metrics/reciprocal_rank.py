"""Mean reciprocal rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.ranking import Ranking


@dataclass(frozen=True)
class ReciprocalRank(RetrievalMetric):
    """MRR@k: 1 / rank of the first relevant item, 0 if it is not among the first k."""

    k: int

    @property
    def name(self) -> str:
        return f"MRR@{self.k}"

    def values(self, ranking: Ranking) -> NDArray[np.float64]:
        return np.where(ranking.best <= self.k, 1.0 / ranking.best, 0.0)
