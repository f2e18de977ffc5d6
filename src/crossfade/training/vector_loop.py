"""The loop for maps that are trained from cached vectors: no backbone runs, no picture is read."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.adapters.prepared import PreparedPairs
from crossfade.errors import TrainingDiverged, UsageError
from crossfade.training.checkpoint import load_checkpoint, save_checkpoint
from crossfade.training.schedule import cosine_with_warm_up
from crossfade.training.transformation import Spreads
from crossfade.vectors import PairBatch

WINDOW_ROWS = 1 << 20
"""Pairs that are held, and shuffled among each other, at a time."""
GPU_CHECK_STEPS = 20  # looking at a loss waits for the GPU
Advance = Callable[[int, int], None]
Log = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class VectorRecipe:
    """How a map is optimized: Adam, linear warm-up, cosine.

    Attributes:
        frozen_share: batch normalization keeps its statistics after this share of the epochs.
    """

    learning_rate: float
    weight_decay: float
    batch_rows: int
    epochs: int
    warm_up_epochs: float
    bf16: bool = False
    device: str = "auto"
    seed: int = 0
    frozen_share: float = 0.5


@dataclass(frozen=True)
class Watch:
    """What a training reports to, and where it can go on after an interruption.

    Attributes:
        folder: holds the checkpoint, also at the end, until the caller has saved the map; None for none.
        identity: what is trained on what; a checkpoint of anything else is refused.
        progress: called with (pairs done, pairs in all).
        log: called with the epoch and its mean numbers.
    """

    folder: Path | None = None
    identity: Mapping[str, Any] | None = None
    progress: Advance | None = None
    log: Log | None = None


class VectorLearner(nn.Module, ABC):
    """A map and a loss on vectors."""

    @abstractmethod
    def forward(self, x: Tensor, side: Tensor, y: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss under ``loss``, and further numbers worth logging.

        Args:
            x, side, y: (b, d_source), (b, d_side), (b, d_target), of mean square 1 per component.
            labels: (b,) class codes, -1 where the class is not known.
        """


@dataclass(frozen=True)
class Window:
    """Pairs on the device, scaled."""

    x: Tensor
    side: Tensor
    y: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def batches(
        self, rows: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Shuffled batches of exactly `rows`; the remainder is left to another epoch's order."""
        order = torch.randperm(len(self), generator=generator).to(self.x.device)
        for start in range(0, len(self) - rows + 1, rows):
            chosen = order[start : start + rows]
            yield self.x[chosen], self.side[chosen], self.y[chosen], self.labels[chosen]


class CachedPairs:
    """Pairs as tensors: read once where they fit into a window, else streamed again for every epoch.

    Args:
        pairs: checked, and scaled to unit length where their spaces ask for it.
        side: whether side-information is made use of.
        equal_length: scale the target vectors to the source vectors' mean length, and not to mean square 1.
    """

    def __init__(
        self, pairs: PreparedPairs, *, side: bool, device: torch.device, equal_length: bool = False
    ) -> None:
        self._pairs, self._side, self._device = pairs, side, device
        self.spreads = _spreads(pairs, equal_length)
        self._held: list[Window] = []

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def side_dimension(self) -> int:
        """Of the side-information that is made use of."""
        return self._pairs.side_dimension if self._side else 0

    def windows(self) -> Iterator[Window]:
        """All pairs, `WINDOW_ROWS` at a time."""
        if self._held:
            yield self._held[0]
            return
        for parts in _gathered(self._pairs.full_blocks(), WINDOW_ROWS):
            window = self._window(parts)
            if len(window) == len(self):
                self._held = [window]
            yield window

    def steps_per_epoch(self, rows: int) -> int:
        """Full batches in all windows."""
        full, rest = divmod(len(self), WINDOW_ROWS)
        return full * (WINDOW_ROWS // rows) + rest // rows

    def _window(self, parts: list[PairBatch]) -> Window:
        block = PairBatch.join(parts)
        side = block.side if self._side else block.side[:, :0]
        labels = np.full(len(block), -1, dtype=np.int64) if block.labels is None else block.labels
        x, s, y = (
            torch.from_numpy(values * np.float32(1 / spread)).to(self._device)
            for values, spread in zip((block.x, side, block.y), astuple(self.spreads), strict=True)
        )
        return Window(x, s, y, torch.from_numpy(labels).to(self._device))


def optimize(
    learner: VectorLearner, pairs: CachedPairs, recipe: VectorRecipe, watch: Watch | None = None
) -> list[dict[str, float]]:
    """Train `learner` in place, from the checkpoint in the watch's folder if there is one.

    Returns:
        One entry per epoch: means of the learner's numbers, learning rate and seconds.

    Raises:
        TrainingDiverged: the loss became NaN or infinite.
        UsageError: the checkpoint belongs to another training.
    """
    watch, device = watch or Watch(), find_device(recipe.device)
    learner.to(device)
    optimizer = torch.optim.Adam(
        learner.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    rows = min(recipe.batch_rows, len(pairs))
    per_epoch = pairs.steps_per_epoch(rows)
    steps, warm_up = recipe.epochs * per_epoch, round(recipe.warm_up_epochs * per_epoch)
    log = _resumed(learner, optimizer, recipe, watch)
    for epoch in range(len(log), recipe.epochs):
        started, step, sums = time.perf_counter(), epoch * per_epoch, _Sums()
        _set_mode(learner, frozen=epoch >= recipe.frozen_share * recipe.epochs)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        for window in pairs.windows():
            for x, side, y, labels in window.batches(rows, generator):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * cosine_with_warm_up(step, steps, warm_up)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.bf16):
                    numbers = learner(x, side, y, labels)
                optimizer.zero_grad(set_to_none=True)
                numbers["loss"].backward()
                if device.type == "cpu" or step % GPU_CHECK_STEPS == 0:
                    _require_finite(numbers["loss"], epoch, recipe)
                optimizer.step()
                sums.add(numbers)
                step += 1
        if watch.progress is not None:
            watch.progress((epoch + 1) * len(pairs), recipe.epochs * len(pairs))
        means = sums.means()
        _require_finite(torch.tensor(means["loss"]), epoch, recipe)
        rate = optimizer.param_groups[0]["lr"]
        log.append(
            {"epoch": epoch + 1, **means, "learning rate": rate, "seconds": time.perf_counter() - started}
        )
        if watch.log is not None:
            watch.log(epoch + 1, log[-1])
        if watch.folder is not None:
            save_checkpoint(watch.folder, learner, optimizer, {"epochs": log}, _identity(recipe, watch))
    learner.eval()
    return log


def find_device(name: str) -> torch.device:
    """``auto`` is a GPU if there is one.

    Raises:
        UsageError: no such device, or none here.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"a device is auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but torch sees no GPU; use device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """What `make` returns, its random numbers from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _set_mode(learner: nn.Module, *, frozen: bool) -> None:
    learner.train()
    if frozen:
        for module in learner.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()


def _resumed(
    learner: nn.Module, optimizer: torch.optim.Optimizer, recipe: VectorRecipe, watch: Watch
) -> list[dict[str, float]]:
    if watch.folder is None:
        return []
    watch.folder.mkdir(parents=True, exist_ok=True)
    found = load_checkpoint(watch.folder, learner, optimizer, _identity(recipe, watch))
    epochs: list[dict[str, float]] = found["epochs"] if found else []
    return epochs


def _identity(recipe: VectorRecipe, watch: Watch) -> dict[str, Any]:
    settings = {name: value for name, value in asdict(recipe).items() if name != "device"}
    return {"recipe": settings, **(watch.identity or {})}


class _Sums:
    """Sums kept on the device, so that adding waits for nothing."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, numbers: Mapping[str, Tensor]) -> None:
        for name, value in numbers.items():
            addend = value.detach().double()
            self._sums[name] = self._sums[name] + addend if name in self._sums else addend
        self._steps += 1

    def means(self) -> dict[str, float]:
        return {name: float(value) / self._steps for name, value in self._sums.items()}


def _require_finite(loss: Tensor, epoch: int, recipe: VectorRecipe) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"the loss became {value} in epoch {epoch + 1} of {recipe.epochs} at learning rate "
            f"{recipe.learning_rate}; use a smaller learning_rate or more warm_up_epochs, or method 'ridge'"
        )


def _gathered(blocks: Iterator[PairBatch], rows: int) -> Iterator[list[PairBatch]]:
    """Blocks in groups of at least `rows`; `rows` is a multiple of a block's."""
    parts: list[PairBatch] = []
    for block in blocks:
        parts.append(block)
        if sum(map(len, parts)) >= rows:
            yield parts
            parts = []
    if parts:
        yield parts


def _spreads(pairs: PreparedPairs, equal_length: bool) -> Spreads:
    sums = np.zeros(3)
    for block in pairs.full_blocks():
        sums += [np.square(values, dtype=np.float64).sum() for values in (block.x, block.side, block.y)]
    d_source, d_target = pairs.dimensions
    widths = np.array([d_source, max(pairs.side_dimension, 1), d_source if equal_length else d_target])
    x, side, y = np.sqrt(sums / widths / len(pairs))
    return Spreads(float(x), float(side) or 1.0, float(y))
