"""For the pages on stores: vectors of a shop's items, and an adapter for them in ``lift``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import make_adapter
from crossfade.spaces import Space

ROWS = 1000
OLD, NEW = Space("old-model", 64), Space("new-model", 96)


def make_vectors() -> NDArray[np.float32]:
    """(ROWS, 64) vectors of the old model; the adapter is fitted on further ones."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((3 * ROWS, 64), dtype=np.float32)
    made = vectors @ generator.standard_normal((64, 96), dtype=np.float32)
    adapter = make_adapter("ridge").fit(vectors[ROWS:], made[ROWS:], source=OLD, target=NEW)
    adapter.save_pretrained(Path("lift"))
    return vectors[:ROWS]
