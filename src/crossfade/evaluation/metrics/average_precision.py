"""Mean average precision over the whole ranked gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.ranking import Ranking


@dataclass(frozen=True)
class AveragePrecision(RetrievalMetric):
    """AP: mean over the relevant items of the precision at their rank; its mean over queries is mAP."""

    @property
    def name(self) -> str:
        return "mAP"

    def values(self, ranking: Ranking) -> NDArray[np.float64]:
        return ranking.total(ranking.ordinal / ranking.rank) / np.maximum(ranking.relevant, 1)
