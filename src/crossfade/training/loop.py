"""The training loop. Reads from top to bottom; every method runs through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from crossfade.errors import TrainingDiverged
from crossfade.training.checkpoint import load_checkpoint, save_checkpoint
from crossfade.training.data import DROPOUT, Steps, seed_of
from crossfade.training.distributed import Workers
from crossfade.training.learner import Learner
from crossfade.training.recipe import OptimizerRecipe, ScheduleRecipe
from crossfade.training.schedule import cosine_with_warm_up

Advance = Callable[[int, int], None]
Log = Callable[[int, Mapping[str, float]], None]
GPU_CHECK_STEPS = 20  # looking at a loss waits for the GPU


class LoopRecipe(Protocol):
    """What the loop reads of a recipe."""

    @property
    def optimizer(self) -> OptimizerRecipe: ...
    @property
    def schedule(self) -> ScheduleRecipe: ...
    @property
    def batch(self) -> int: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def precision(self) -> Literal["float32", "bf16"]: ...
    @property
    def seed(self) -> int: ...


def train(
    learner: Learner,
    batches: Steps[Any],
    recipe: LoopRecipe,
    directory: Path,
    workers: Workers,
    *,
    identity: Mapping[str, Any],
    progress: Advance | None = None,
    log: Log | None = None,
) -> list[dict[str, float]]:
    """Optimize `learner` in place, from the checkpoint in `directory` if there is one.

    Args:
        identity: what is trained on what; a checkpoint of anything else is refused.
        progress: called with (images done, images in all).
        log: called with the step and its numbers.

    Returns:
        One entry per epoch: means of the learner's numbers, learning rate, seconds.

    Raises:
        TrainingDiverged: the loss became NaN or infinite.
        UsageError: the checkpoint belongs to another run.
        DataError: batches that the learner cannot learn from, e.g. a label outside its classifier.
    """
    learner.require(batches)
    learner.to(workers.device, memory_format=torch.channels_last).train()
    learner.reduce_precision(recipe.precision == "bf16")
    optimizer = make_optimizer(learner, recipe.optimizer)
    per_epoch = batches.order.steps_per_epoch
    steps = recipe.schedule.epochs * per_epoch
    warm_up = round(recipe.schedule.warm_up_epochs * per_epoch)
    stop = min(steps, recipe.schedule.max_steps or steps)
    every = recipe.schedule.checkpoint_steps or per_epoch

    state = load_checkpoint(directory, learner, optimizer, identity) or {"step": 0, "epochs": [], "meter": {}}
    meter = Meter(state["meter"], workers)
    shared = workers.share(learner)
    clock = Clock()
    for step, parts in batches.stream(state["step"], stop):
        rate = cosine_with_warm_up(step, steps, warm_up)
        for group in optimizer.param_groups:
            group["lr"] = recipe.optimizer.learning_rate * group["factor"] * rate
        torch.manual_seed(seed_of(recipe.seed, DROPOUT, step, workers.rank))

        for number, part in enumerate(parts):
            with workers.without_sync(shared, number < recipe.accumulate - 1):
                numbers = shared(*part)
                workers.backward(numbers["loss"] / recipe.accumulate)
            meter.add(numbers, 1 / recipe.accumulate)
        if recipe.optimizer.gradient_clip is not None:
            nn.utils.clip_grad_norm_(learner.parameters(), recipe.optimizer.gradient_clip)
        done = step + 1
        saving = done % every == 0 or done == stop
        if saving or workers.device.type == "cpu" or step % GPU_CHECK_STEPS == 0:
            _require_finite(numbers["loss"], step, optimizer.param_groups[0]["lr"], directory)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        if log is not None:
            log(
                done,
                {name: float(value.detach()) for name, value in numbers.items()} | {"learning rate": rate},
            )
        if progress is not None:
            progress(done * recipe.batch, stop * recipe.batch)
        if done % per_epoch == 0 or done == stop:
            rate = optimizer.param_groups[0]["lr"]
            state["epochs"].append({"step": done, **meter.means(), "learning rate": rate, **clock.lap()})
        if workers.main and saving:
            state |= {"step": done, "meter": meter.sums()}
            save_checkpoint(directory, learner, optimizer, state, identity)
    learner.eval()
    epochs: list[dict[str, float]] = state["epochs"]
    return epochs


class Clock:
    """Seconds since the last look: on the wall, and of this process's processors.

    On a machine that others use as well, only the second says what a run costs.
    """

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def lap(self) -> dict[str, float]:
        """The seconds, to be logged."""
        before = self._wall, self._processor
        self._wall, self._processor = time.perf_counter(), time.process_time()
        return {"seconds": self._wall - before[0], "processor seconds": self._processor - before[1]}


class Meter:
    """Means of what a learner logs, over an epoch and over the processes.

    Sums are kept on the device in float64, so that adding waits for nothing and loses nothing.
    """

    def __init__(self, sums: Mapping[str, float], workers: Workers) -> None:
        self._workers = workers
        self._sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in sums.items()}

    def add(self, numbers: Mapping[str, Tensor], weight: float) -> None:
        """Count a part of a step that is `weight` of it."""
        for name, value in {**numbers, "steps": torch.ones(())}.items():
            addend = value.detach().double() * weight
            self._sums[name] = self._sums[name].to(addend.device) + addend if name in self._sums else addend

    def sums(self) -> dict[str, float]:
        """JSON-ready; another meter continues from them."""
        return {name: float(value) for name, value in self._sums.items()}

    def means(self) -> dict[str, float]:
        """The means since the last call."""
        device = self._workers.device
        steps = float(self._sums.pop("steps"))
        kind = torch.float32 if device.type == "mps" else torch.float64
        values = {
            name: float(self._workers.mean(value.to(device, kind))) / steps
            for name, value in self._sums.items()
        }
        self._sums = {}
        return values


def make_optimizer(learner: Learner, recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """The optimizer; each group of parameters keeps its factor on the learning rate under ``factor``."""
    groups = _groups(learner, recipe)
    if recipe.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
        )
    kind = torch.optim.Adam if recipe.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.learning_rate, betas=(recipe.betas[0], recipe.betas[1]))


def _groups(learner: Learner, recipe: OptimizerRecipe) -> list[dict[str, Any]]:
    factors = learner.learning_rates()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            factor = next((value for prefix, value in factors.items() if name.startswith(prefix)), 1.0)
            decay = recipe.weight_decay if parameter.ndim > 1 or recipe.decay_all else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": members, "factor": factor, "weight_decay": decay}
        for (factor, decay), members in groups.items()
    ]


def _require_finite(loss: Tensor, step: int, learning_rate: float, directory: Path) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"the loss became {value} at step {step} (learning rate {learning_rate:.3g}); lower "
            "--set optimizer.learning_rate=..., raise schedule.warm_up_epochs or set "
            f"optimizer.gradient_clip, with another --out; the last checkpoint in {directory} is from before"
        )
