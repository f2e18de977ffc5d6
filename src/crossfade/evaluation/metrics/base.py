"""What every retrieval metric is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.ranking import Ranking, rank_relevant


class RetrievalMetric(ABC):
    """Maps a ranking to one value per query, 0 (worst) to 1 (best); the figure is their mean.

    Queries to which nothing in the gallery is relevant score 0 here; an evaluation leaves them out.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The metric as tables print it, e.g. ``CMC@1``."""

    @abstractmethod
    def values(self, ranking: Ranking) -> NDArray[np.float64]:
        """(b,) one value per query of the block."""

    def __call__(
        self, scores: NDArray[np.floating], grades: NDArray[np.floating] | NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """(b,) values from scores (b, N), higher is better, and grades (b, N), 0 for irrelevant."""
        return self.values(rank_relevant(scores, grades))
