"""Changes of the first result: what an average hides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.result import Flips


def flips(before: NDArray[np.floating], after: NDArray[np.floating]) -> Flips:
    """Shares of queries whose first result became right, and became wrong (Yan et al., CVPR 2021).

    Args:
        before, after: (Q,) 1 where the first result is relevant, else 0.
    """
    positive, negative = (before == 0) & (after == 1), (before == 1) & (after == 0)
    return Flips(float(positive.mean()), float(negative.mean()))
