"""The same items embedded by two models: what every map is fitted on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DataError
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, FloatMatrix


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Some pairs with everything that is known of their items.

    Attributes:
        x: (b, d_source) float32.
        y: (b, d_target) float32.
        side: (b, d_side) float32, side-information ψ(x) stored beside the source vectors; d_side is 0
            where there is none.
        labels: (b,) int64 class codes; None where the pairs are not labelled.
    """

    x: FloatMatrix
    y: FloatMatrix
    side: FloatMatrix
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> PairBatch:
        """Some of the rows."""
        labels = None if self.labels is None else self.labels[rows]
        return PairBatch(self.x[rows], self.y[rows], self.side[rows], labels)

    @classmethod
    def join(cls, parts: Sequence[PairBatch]) -> PairBatch:
        """Several batches as one; a single one is not copied."""
        if len(parts) == 1:
            return parts[0]
        labels = [part.labels for part in parts if part.labels is not None]
        return cls(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.side for part in parts]),
            np.concatenate(labels) if labels else None,
        )


class Pairs(ABC):
    """Vectors X in `source` and Y in `target` of the same items, row for row, streamed in batches.

    Iterating again gives the same batches in the same order. Spaces are None only for plain arrays
    whose origin the caller did not say; nothing fitted on those can be saved.

    Attributes:
        side: space of the side-information that is stored beside the source vectors; None if there is
            none, or if it came as a plain array.
        side_dimension: its dimension; 0 if there is none.
        labelled: whether the items' classes are known.
    """

    source: Space | None
    target: Space | None
    side: Space | None = None
    side_dimension: int = 0
    labelled: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of pairs."""

    @property
    @abstractmethod
    def dimensions(self) -> tuple[int, int]:
        """Dimensions of the source and the target vectors."""

    @abstractmethod
    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        """Stream X (b, d_source) and Y (b, d_target), float32."""

    def full_batches(self, rows: int = BATCH_ROWS) -> Iterator[PairBatch]:
        """Stream the pairs with side-information and labels; pairs that have these override it."""
        for x, y in self.batches(rows):
            yield PairBatch(x, y, no_side(len(x)))

    def reversed(self) -> Pairs:
        """The same pairs for a map in the other direction; side-information stays behind."""
        return _Reversed(self)

    def read(self) -> ArrayPairs:
        """Everything in memory, for a sample."""
        d_source, d_target = self.dimensions
        X = np.empty((len(self), d_source), dtype=np.float32)
        Y = np.empty((len(self), d_target), dtype=np.float32)
        side = np.empty((len(self), self.side_dimension), dtype=np.float32)
        labels = np.empty(len(self), dtype=np.int64) if self.labelled else None
        start = 0
        for batch in self.full_batches():
            rows = slice(start, start + len(batch))
            X[rows], Y[rows], side[rows] = batch.x, batch.y, batch.side
            if labels is not None and batch.labels is not None:
                labels[rows] = batch.labels
            start += len(batch)
        return ArrayPairs(
            X,
            Y,
            source=self.source,
            target=self.target,
            side=side if self.side_dimension else None,
            side_space=self.side,
            labels=labels,
        )


def no_side(rows: int) -> FloatMatrix:
    """(rows, 0): what stands for side-information where there is none."""
    return np.empty((rows, 0), dtype=np.float32)


class ArrayPairs(Pairs):
    """Pairs held in memory: X (n, d_source) and Y (n, d_target).

    Args:
        side: (n, d_side) side-information of the same items in the same order.
        side_space: its space.
        labels: (n,) class codes, integers from 0; -1 where an item's class is not known.

    Raises:
        DataError: a matrix is none, or the numbers of rows differ.
    """

    def __init__(
        self,
        X: NDArray[np.floating],
        Y: NDArray[np.floating],
        *,
        source: Space | None = None,
        target: Space | None = None,
        side: NDArray[np.floating] | None = None,
        side_space: Space | None = None,
        labels: NDArray[np.integer] | None = None,
    ) -> None:
        self.X: FloatMatrix = np.ascontiguousarray(X, dtype=np.float32)
        self.Y: FloatMatrix = np.ascontiguousarray(Y, dtype=np.float32)
        self.source, self.target = source, target
        self.S: FloatMatrix = no_side(len(self.X)) if side is None else np.ascontiguousarray(side, np.float32)
        self.side = side_space if side is not None else None
        self.labels = None if labels is None else np.ascontiguousarray(labels, dtype=np.int64)
        self.labelled = labels is not None
        if self.X.ndim != 2 or self.Y.ndim != 2:
            raise DataError(f"pairs must be matrices (n, d), got shapes {self.X.shape} and {self.Y.shape}")
        if len(self.X) != len(self.Y):
            raise DataError(
                f"{len(self.X)} source vectors but {len(self.Y)} target vectors; "
                "pass the same items, in the same order, embedded by both models"
            )
        self._require_rows("side-information", self.S)
        if self.S.ndim != 2:
            raise DataError(f"side-information must be a matrix (n, d), got shape {self.S.shape}")
        if self.labels is not None:
            self._require_rows("labels", self.labels)
        self.side_dimension = self.S.shape[1]

    def _require_rows(self, what: str, values: NDArray[Any]) -> None:
        if len(values) != len(self.X):
            raise DataError(
                f"{what} of {len(values)} items, but {len(self.X)} pairs; "
                "pass those of the same items in the same order"
            )

    def __len__(self) -> int:
        return len(self.X)

    @property
    def dimensions(self) -> tuple[int, int]:
        return self.X.shape[1], self.Y.shape[1]

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        for start in range(0, len(self), rows):
            yield self.X[start : start + rows], self.Y[start : start + rows]

    def full_batches(self, rows: int = BATCH_ROWS) -> Iterator[PairBatch]:
        everything = PairBatch(self.X, self.Y, self.S, self.labels)
        for start in range(0, len(self), rows):
            yield everything.take(slice(start, start + rows))

    def read(self) -> ArrayPairs:
        return self

    def take(self, rows: NDArray[np.integer]) -> ArrayPairs:
        """The given rows, in that order (copied)."""
        return ArrayPairs(
            self.X[rows],
            self.Y[rows],
            source=self.source,
            target=self.target,
            side=self.S[rows] if self.side_dimension else None,
            side_space=self.side,
            labels=None if self.labels is None else self.labels[rows],
        )


class _Reversed(Pairs):
    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self.source, self.target = pairs.target, pairs.source
        self.labelled = pairs.labelled

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def dimensions(self) -> tuple[int, int]:
        source, target = self._pairs.dimensions
        return target, source

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        for x, y in self._pairs.batches(rows):
            yield y, x

    def full_batches(self, rows: int = BATCH_ROWS) -> Iterator[PairBatch]:
        for batch in self._pairs.full_batches(rows):
            yield PairBatch(batch.y, batch.x, no_side(len(batch)), batch.labels)

    def reversed(self) -> Pairs:
        return self._pairs
