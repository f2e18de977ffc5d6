"""Label-free agreement with the new model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.ranking import Ranking


@dataclass(frozen=True)
class Agreement(RetrievalMetric):
    """agreement@k: share of the first k items that are among the new model's own k nearest neighbours.

    Drift-Adapter (EMNLP 2025) reports this as recall. It says how closely the new model is imitated,
    not whether its results are right, and is therefore never called recall or retention here.
    """

    k: int

    @property
    def name(self) -> str:
        return f"agreement@{self.k}"

    def values(self, ranking: Ranking) -> NDArray[np.float64]:
        reachable = np.clip(ranking.relevant, 1, self.k)
        return ranking.total(ranking.rank <= self.k) / reachable
