from __future__ import annotations

import numpy as np
import pytest

from crossfade.spaces import Space
from crossfade.vectors import Vectors


@pytest.fixture
def space() -> Space:
    return Space("made-up/old", 6, metric="dot", revision="r1", prompt="p: ")


@pytest.fixture
def vectors(space: Space) -> Vectors:
    """100 rows, more than one batch when batches are small."""
    matrix = np.random.default_rng(0).standard_normal((100, 6)).astype(np.float32)
    labels = [f"class {row % 7}" for row in range(100)]
    return Vectors([f"item-{row}" for row in range(100)], matrix, space, {"label": labels})
