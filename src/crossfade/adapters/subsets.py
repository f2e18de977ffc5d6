"""Some rows of streamed pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crossfade.adapters.prepared import RowSample
from crossfade.vectors import BATCH_ROWS, ArrayPairs, FloatMatrix, Pairs


class Without(Pairs):
    """All pairs but the held-out ones, still streamed."""

    def __init__(self, pairs: Pairs, held_out: RowSample) -> None:
        self._pairs, self._held_out = pairs, held_out
        self.source, self.target = pairs.source, pairs.target

    def __len__(self) -> int:
        return len(self._pairs) - len(self._held_out)

    @property
    def dimensions(self) -> tuple[int, int]:
        return self._pairs.dimensions

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        start = 0
        for x, y in self._pairs.batches(rows):
            kept = ~self._held_out.mask(start, len(x))
            start += len(x)
            yield x[kept], y[kept]


def read_held_out(pairs: Pairs, held_out: RowSample) -> ArrayPairs:
    """The held-out pairs, in memory."""
    xs, ys, start = [], [], 0
    for x, y in pairs.batches():
        mask = held_out.mask(start, len(x))
        start += len(x)
        xs.append(x[mask])
        ys.append(y[mask])
    return ArrayPairs(np.concatenate(xs), np.concatenate(ys), source=pairs.source, target=pairs.target)
