"""The same items embedded by two models: what every map is fitted on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DataError
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, FloatMatrix


class Pairs(ABC):
    """Vectors X in `source` and Y in `target` of the same items, row for row, streamed in batches.

    Iterating again gives the same batches in the same order. Spaces are None only for plain arrays
    whose origin the caller did not say; nothing fitted on those can be saved.
    """

    source: Space | None
    target: Space | None

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

    def reversed(self) -> Pairs:
        """The same pairs for a map in the other direction."""
        return _Reversed(self)

    def read(self) -> ArrayPairs:
        """Everything in memory, for a sample."""
        d_source, d_target = self.dimensions
        X = np.empty((len(self), d_source), dtype=np.float32)
        Y = np.empty((len(self), d_target), dtype=np.float32)
        start = 0
        for x, y in self.batches():
            X[start : start + len(x)] = x
            Y[start : start + len(y)] = y
            start += len(x)
        return ArrayPairs(X, Y, source=self.source, target=self.target)


class ArrayPairs(Pairs):
    """Pairs held in memory: X (n, d_source) and Y (n, d_target).

    Raises:
        DataError: X or Y is no matrix, or their numbers of rows differ.
    """

    def __init__(
        self,
        X: NDArray[np.floating],
        Y: NDArray[np.floating],
        *,
        source: Space | None = None,
        target: Space | None = None,
    ) -> None:
        self.X: FloatMatrix = np.ascontiguousarray(X, dtype=np.float32)
        self.Y: FloatMatrix = np.ascontiguousarray(Y, dtype=np.float32)
        self.source, self.target = source, target
        if self.X.ndim != 2 or self.Y.ndim != 2:
            raise DataError(f"pairs must be matrices (n, d), got shapes {self.X.shape} and {self.Y.shape}")
        if len(self.X) != len(self.Y):
            raise DataError(
                f"{len(self.X)} source vectors but {len(self.Y)} target vectors; "
                "pass the same items, in the same order, embedded by both models"
            )

    def __len__(self) -> int:
        return len(self.X)

    @property
    def dimensions(self) -> tuple[int, int]:
        return self.X.shape[1], self.Y.shape[1]

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        for start in range(0, len(self), rows):
            yield self.X[start : start + rows], self.Y[start : start + rows]

    def read(self) -> ArrayPairs:
        return self

    def take(self, rows: NDArray[np.integer]) -> ArrayPairs:
        """The given rows, in that order (copied)."""
        return ArrayPairs(self.X[rows], self.Y[rows], source=self.source, target=self.target)


class _Reversed(Pairs):
    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self.source, self.target = pairs.target, pairs.source

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def dimensions(self) -> tuple[int, int]:
        source, target = self._pairs.dimensions
        return target, source

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        for x, y in self._pairs.batches(rows):
            yield y, x

    def reversed(self) -> Pairs:
        return self._pairs
