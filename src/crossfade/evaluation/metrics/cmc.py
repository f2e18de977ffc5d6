"""Cumulative matching characteristic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.ranking import Ranking


@dataclass(frozen=True)
class CumulativeMatch(RetrievalMetric):
    """CMC@k: whether at least one of the first k items is relevant (Shen et al., CVPR 2020, section 4).

    Image-text retrieval calls the same figure Recall@k: an image with five captions is found when
    one of them is (Karpathy and Fei-Fei, CVPR 2015). See `caption_recall`.
    """

    k: int
    label: str = "CMC"

    @property
    def name(self) -> str:
        return f"{self.label}@{self.k}"

    def values(self, ranking: Ranking) -> NDArray[np.float64]:
        return (ranking.best <= self.k).astype(np.float64)


def caption_recall(k: int) -> CumulativeMatch:
    """Recall@k of image-text retrieval: whether one of the right captions is among the first k."""
    return CumulativeMatch(k, label="Recall")
