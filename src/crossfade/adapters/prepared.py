"""Pairs as the methods see them: checked, scaled to unit length where that is meant, in even blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DimensionMismatch, InvalidVectors, UsageError
from crossfade.spaces import Space
from crossfade.vectors import BATCH_ROWS, FloatMatrix, PairBatch, Pairs, no_side
from crossfade.vectors.checks import find_invalid

HELD_OUT_SHARE = 0.2
MOST_HELD_OUT = 4096
TINY = np.finfo(np.float32).tiny
EXTREMES = np.float32(1e-30), np.float32(1e30)
UNIT_TOLERANCE = 1e-6  # of a squared length: what rounding leaves after a division by the length


def uses_unit_length(space: Space | None) -> bool:
    """Whether only the direction of a vector counts in `space` (cosine, or normalised by contract)."""
    return space is not None and (space.metric == "cosine" or space.normalized)


def scale_to_unit(matrix: FloatMatrix, *, in_place: bool = False) -> FloatMatrix:
    """Rows of `matrix` (n, d) divided by their lengths; the matrix itself where all have unit length already.

    Args:
        in_place: overwrite `matrix` instead of making a new one.
    """
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
    if np.all(np.abs(squares - 1) < UNIT_TOLERANCE):
        return matrix
    extreme = ~((squares > EXTREMES[0]) & (squares < EXTREMES[1]))
    if extreme.any():  # squares beyond what float32 holds
        matrix = matrix.copy()
        matrix[extreme] /= np.maximum(np.abs(matrix[extreme]).max(axis=1, keepdims=True), TINY)
        squares[extreme] = np.einsum("ij,ij->i", matrix[extreme], matrix[extreme])
    # A row that a map sent to zero has no direction; it stays zero instead of becoming NaN.
    factors = 1 / np.maximum(np.sqrt(squares), TINY)[:, None]
    scaled: FloatMatrix = np.multiply(matrix, factors, out=matrix if in_place else None)
    return scaled


@dataclass(slots=True)
class InvalidCounts:
    """Vectors that no map can be fitted on or applied to, counted by what is wrong with them."""

    nan: int = 0
    infinite: int = 0
    zero: int = 0

    def add(self, matrix: FloatMatrix) -> None:
        """Count the invalid rows of `matrix` (n, d)."""
        faults = Counter(find_invalid(matrix).values())
        self.nan += faults["NaN"]
        self.infinite += faults["infinite"]
        self.zero += faults["zero"]

    def __bool__(self) -> bool:
        return bool(self.nan or self.infinite or self.zero)

    def __str__(self) -> str:
        return f"{self.nan} with NaN, {self.infinite} with infinite values, {self.zero} all zero"


def require_valid(matrix: FloatMatrix, what: str) -> None:
    """Refuse NaN, infinite and zero vectors.

    Raises:
        InvalidVectors: with their counts.
    """
    counts = InvalidCounts()
    counts.add(matrix)
    if counts:
        raise InvalidVectors(
            f"{what}: {len(matrix)} vectors, of these {counts}; remove those rows, or re-embed their items"
        )


class PreparedPairs:
    """Pairs in blocks of exactly `BATCH_ROWS` rows (the last may be shorter), however they arrive.

    Even blocks make a streamed fit equal to one in memory, bit for bit. X is scaled to unit length where
    the source compares by cosine or is normalised, Y where the target does; vectors of dot-product and L2
    spaces, and plain arrays without a space, are taken as they are.

    Raises:
        DimensionMismatch: the vectors' length is not their space's dimension.
        UsageError: source and target are the same space.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self.source, self.target = pairs.source, pairs.target
        self.dimensions = pairs.dimensions
        self.gathered: dict[int, Any] = {}  # by seed; see `statistics.gather`
        self.side, self.side_dimension, self.labelled = pairs.side, pairs.side_dimension, pairs.labelled
        self._unit = tuple(map(uses_unit_length, (pairs.source, pairs.target, pairs.side)))
        _require_dimension(pairs.source, self.dimensions[0], "source vectors")
        _require_dimension(pairs.target, self.dimensions[1], "target vectors")
        _require_dimension(pairs.side, self.side_dimension, "side-information vectors")
        if pairs.source is not None and pairs.source == pairs.target:
            raise UsageError(
                f"source and target are the same space, {pairs.source}; there is nothing to map: "
                "pass vectors of the old and of the new model"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def blocks(self) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        """Stream X (b, d_source) and Y (b, d_target).

        Raises:
            InvalidVectors: NaN, infinite or zero vectors, counted over all pairs.
        """
        plain = (PairBatch(x, y, no_side(len(x))) for x, y in self._pairs.batches(BATCH_ROWS))
        for block in self._usable(plain):
            yield block.x, block.y

    def full_blocks(self) -> Iterator[PairBatch]:
        """Stream the pairs with side-information and labels.

        Raises:
            InvalidVectors: NaN, infinite or zero vectors, counted over all pairs.
        """
        return self._usable(self._pairs.full_batches(BATCH_ROWS))

    def _usable(self, batches: Iterator[PairBatch]) -> Iterator[PairBatch]:
        sound, counts = True, (InvalidCounts(), InvalidCounts(), InvalidCounts())
        for block in _even(batches, BATCH_ROWS):
            counts[0].add(block.x)
            counts[1].add(block.y)
            if block.side.shape[1]:
                counts[2].add(block.side)
            sound = sound and not any(counts)
            if sound:
                yield self._scaled(block)
        if not sound:
            beside = f"side-information {counts[2]}; " if self.side_dimension else ""
            raise InvalidVectors(
                f"{len(self)} pairs cannot be fitted: source vectors {counts[0]}; "
                f"target vectors {counts[1]}; {beside}remove those rows, or re-embed their items"
            )

    def _scaled(self, block: PairBatch) -> PairBatch:
        x, y, side = (
            scale_to_unit(matrix) if unit and matrix.shape[1] else matrix
            for matrix, unit in zip((block.x, block.y, block.side), self._unit, strict=True)
        )
        return PairBatch(x, y, side, block.labels)

    def held_out(self, seed: int) -> RowSample:
        """A seeded choice of rows to judge hyper-parameters on: a fifth of them, at most 4,096."""
        return RowSample.choose(len(self), HELD_OUT_SHARE, MOST_HELD_OUT, seed)

    def split_blocks(
        self, held_out: RowSample
    ) -> Iterator[tuple[FloatMatrix, FloatMatrix, NDArray[np.bool_]]]:
        """Stream X, Y and which of their rows are held out."""
        start = 0
        for x, y in self.blocks():
            yield x, y, held_out.mask(start, len(x))
            start += len(x)


@dataclass(frozen=True, slots=True)
class RowSample:
    """Positions of some rows, ascending: held-out pairs, or a sample for k-means."""

    rows: NDArray[np.int64]

    @classmethod
    def choose(cls, n: int, share: float, most: int, seed: int) -> RowSample:
        """Draw `share` of `n` rows without replacement, at least one and at most `most`."""
        count = max(1, min(round(n * share), most))
        rows = np.random.default_rng(seed).choice(n, count, replace=False)
        return cls(np.sort(rows).astype(np.int64))

    @classmethod
    def none(cls) -> RowSample:
        """No rows at all."""
        return cls(np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def mask(self, start: int, count: int) -> NDArray[np.bool_]:
        """Which of the rows start … start + count - 1 are among them, (count,)."""
        first, last = np.searchsorted(self.rows, (start, start + count))
        mask = np.zeros(count, dtype=np.bool_)
        mask[self.rows[first:last] - start] = True
        return mask


def _even(batches: Iterator[PairBatch], rows: int) -> Iterator[PairBatch]:
    waiting: list[PairBatch] = []
    count = 0
    for batch in batches:
        while count + len(batch) >= rows:
            cut = rows - count
            yield _joined([*waiting, batch.take(slice(cut))])
            waiting, count, batch = [], 0, batch.take(slice(cut, None))
        if len(batch):
            waiting.append(batch)
            count += len(batch)
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[PairBatch]) -> PairBatch:
    return PairBatch.join([part for part in parts if len(part)])


def _require_dimension(space: Space | None, dimension: int, what: str) -> None:
    if space is not None and space.dimension != dimension:
        raise DimensionMismatch(
            f"{what} have {dimension} dimensions, their space {space} says {space.dimension}; "
            "correct the space or pass the vectors of that model"
        )
