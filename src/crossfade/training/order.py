"""Which items a step trains on: a function of seed and step, so that a resumed run sees the same."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DataError, UsageError

Rows = NDArray[np.int64]


class Order(ABC):
    """The items of every step.

    Args:
        count: items in all.
        batch: items per step; what is left of an epoch after whole batches waits for the next one.
        seed: seed of the order.

    Raises:
        DataError: fewer items than a batch.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if count < batch:
            raise DataError(
                f"{count} images are fewer than a batch of {batch}; add images or --set batch={max(1, count)}"
            )
        self.batch, self.seed = batch, seed
        self.steps_per_epoch = count // batch
        self._count = count
        self._epoch, self._rows = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> Rows:
        """The items of a step, (batch,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._rows = self._permutation(np.random.default_rng((self.seed, epoch)))
        return self._rows[position * self.batch : (position + 1) * self.batch]

    @abstractmethod
    def _permutation(self, generator: np.random.Generator) -> Rows:
        """The items of an epoch, in order."""


class Shuffled(Order):
    """Every item once per epoch."""

    def _permutation(self, generator: np.random.Generator) -> Rows:
        return generator.permutation(self._count)


class Balanced(Order):
    """Batches of a few classes with the same number of items each, as losses on pairs need them.

    Args:
        codes: (n,) class of every item.
        per_class: items of each class in a batch; a smaller class repeats its items.

    Raises:
        UsageError: a batch is no multiple of `per_class`, or needs more classes than there are.
    """

    def __init__(self, codes: NDArray[np.int64], batch: int, per_class: int, seed: int) -> None:
        super().__init__(len(codes), batch, seed)
        if per_class < 2 or batch % per_class:
            raise UsageError(
                f"objective.images_per_class ({per_class}) must be at least 2 and divide the batch ({batch})"
            )
        self._members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        self._classes, self._per_class = batch // per_class, per_class
        if self._classes > len(self._members):
            raise UsageError(
                f"a batch of {batch} with {per_class} images per class needs {self._classes} classes, "
                f"there are {len(self._members)}; use a smaller batch or more images per class"
            )

    def _permutation(self, generator: np.random.Generator) -> Rows:
        batches = [self._one_batch(generator) for _ in range(self.steps_per_epoch)]
        return np.concatenate(batches)

    def _one_batch(self, generator: np.random.Generator) -> Rows:
        chosen = generator.permutation(len(self._members))[: self._classes]
        drawn = [self._draw(self._members[one], generator) for one in chosen]
        return np.concatenate(drawn)

    def _draw(self, members: Rows, generator: np.random.Generator) -> Rows:
        if len(members) >= self._per_class:
            return generator.permutation(members)[: self._per_class]
        return generator.choice(members, self._per_class)
