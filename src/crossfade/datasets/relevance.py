"""Which gallery items answer which query, by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Relevance:
    """Graded relevance of (query, item) pairs; a pair that is not listed is irrelevant.

    Attributes:
        n_queries: number of queries (Q).
        n_gallery: number of gallery items (N).
        queries: (m,) int64 positions of queries.
        items: (m,) int64 positions of gallery items.
        grades: (m,) int64; 0 means judged and found irrelevant.
    """

    n_queries: int
    n_gallery: int
    queries: NDArray[np.int64]
    items: NDArray[np.int64]
    grades: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.queries)
