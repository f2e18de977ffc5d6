"""Some rows of streamed pairs."""

from __future__ import annotations

from collections.abc import Iterator

from crossfade.adapters.prepared import RowSample
from crossfade.vectors import BATCH_ROWS, ArrayPairs, FloatMatrix, PairBatch, Pairs


class Without(Pairs):
    """All pairs but the held-out ones, still streamed."""

    def __init__(self, pairs: Pairs, held_out: RowSample) -> None:
        self._pairs, self._held_out = pairs, held_out
        self.source, self.target = pairs.source, pairs.target
        self.side, self.side_dimension, self.labelled = pairs.side, pairs.side_dimension, pairs.labelled

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

    def full_batches(self, rows: int = BATCH_ROWS) -> Iterator[PairBatch]:
        start = 0
        for batch in self._pairs.full_batches(rows):
            kept = ~self._held_out.mask(start, len(batch))
            start += len(batch)
            yield batch.take(kept)


def read_held_out(pairs: Pairs, held_out: RowSample) -> ArrayPairs:
    """The held-out pairs, in memory."""
    parts, start = [], 0
    for batch in pairs.full_batches():
        parts.append(batch.take(held_out.mask(start, len(batch))))
        start += len(batch)
    found = PairBatch.join(parts)
    return ArrayPairs(
        found.x,
        found.y,
        source=pairs.source,
        target=pairs.target,
        side=found.side if pairs.side_dimension else None,
        side_space=pairs.side,
        labels=found.labels,
    )
