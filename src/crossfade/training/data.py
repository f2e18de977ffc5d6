"""Batches of random views, read ahead of the step that needs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfade.datasets.protocols import Part
from crossfade.training.augment import Augmentation, Draws
from crossfade.training.distributed import Workers
from crossfade.training.order import Order

VIEWS, DROPOUT, CAPTIONS = 1, 2, 3  # what a seed is used for besides the order
Fields = TypeVar("Fields", bound=tuple[Any, ...])


class Views(NamedTuple):
    """Augmented pictures of a part of a batch.

    Attributes:
        pictures: (views * m, 3, side, side) float in [0, 1]; first the first view of all, then the second.
        labels: (m,) class codes.
    """

    pictures: Tensor
    labels: Tensor


class Steps(ABC, Generic[Fields]):
    """What a training reads, step by step, in parts that are computed one after the other.

    Attributes:
        order: which items a step sees.
        largest_label: the largest class code that is trained on; -1 without labels.
    """

    order: Order
    largest_label: int = -1

    def stream(self, start: int, stop: int) -> Iterator[tuple[int, Iterator[Fields]]]:
        """Steps `start` to `stop` - 1, each with its parts; the next step is read meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(self._read, start) if start < stop else None
            for step in range(start, stop):
                assert pending is not None
                ready = pending.result()
                pending = pool.submit(self._read, step + 1) if step + 1 < stop else None
                yield step, self._parts(ready)

    @abstractmethod
    def _read(self, step: int) -> Any:
        """What this process needs of a step, read in a thread of its own."""

    @abstractmethod
    def _parts(self, ready: Any) -> Iterator[Fields]:
        """The parts of what `_read` gave, on the device: the arguments of the learner."""


class Batches(Steps[Views]):
    """The views of every step.

    Args:
        array: (n, side, side, 3) uint8, all pictures.
        part: which of them are trained on.
        order: which of the part's items a step sees.
        augmentation: what is random.
        views: views of each picture.
        accumulate: parts that a batch is divided into.
        seed: seed of the views.
        workers: the processes that share a batch.
    """

    def __init__(
        self,
        array: NDArray[np.uint8],
        part: Part,
        order: Order,
        augmentation: Augmentation,
        *,
        views: int,
        accumulate: int,
        seed: int,
        workers: Workers,
    ) -> None:
        self._array, self._part, self.order = array, part, order
        self._augmentation, self._views, self._seed = augmentation, views, seed
        self._accumulate, self._workers = accumulate, workers
        self._share = workers.part(order.batch // accumulate)
        self.largest_label = int(part.codes.max(initial=-1))

    def _read(self, step: int) -> tuple[Tensor, Tensor, Draws]:
        """This process's pictures of a step and the random numbers of the whole batch."""
        rows = self.order.rows(step).reshape(self._accumulate, -1)[:, self._share].ravel()
        pictures = torch.from_numpy(self._array[self._part.rows[rows]])
        if self._workers.device.type == "cuda":
            pictures = pictures.pin_memory()
        labels = torch.from_numpy(self._part.codes[rows])
        generator = torch.Generator().manual_seed(seed_of(self._seed, VIEWS, step))
        draws = self._augmentation.draw(self._views * self.order.batch, generator)
        return pictures, labels, draws

    def _parts(self, ready: tuple[Tensor, Tensor, Draws]) -> Iterator[Views]:
        pictures, labels, draws = ready
        device = self._workers.device
        size, batch = len(pictures) // self._accumulate, self.order.batch
        for number in range(self._accumulate):
            mine = slice(number * size, (number + 1) * size)
            some = pictures[mine].to(device, non_blocking=True)
            first = number * (batch // self._accumulate) + self._share.start
            views = [
                self._augmentation.apply(some, draws.rows(view * batch + first, view * batch + first + size))
                for view in range(self._views)
            ]
            yield Views(torch.cat(views), labels[mine].to(device, non_blocking=True))


def seed_of(*numbers: int) -> int:
    """A seed that depends on all the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
