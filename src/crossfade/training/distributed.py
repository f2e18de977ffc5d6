"""One process or several: the same training, through `accelerate`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.errors import UsageError
from crossfade.extras import load


class Workers:
    """The processes that train together.

    Started by ``accelerate launch`` (or torchrun) there are several; otherwise one.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.

    Attributes:
        rank: which of them this is.
        count: how many there are.
        device: where this one computes.
    """

    def __init__(self, device: str = "auto") -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"a device is auto, cpu or cuda, got {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device cuda was asked for, but torch sees no GPU; use --device cpu")
        accelerate = load("accelerate", "train")
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        self._accelerator = accelerate.Accelerator(cpu=on_cpu)
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def main_first(self) -> AbstractContextManager[None]:
        """The main process runs the block before the others do."""
        context: AbstractContextManager[None] = self._accelerator.main_process_first()
        return context

    def wait(self) -> None:
        """Until every process is here."""
        self._accelerator.wait_for_everyone()

    def share(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes.

        On GPUs batch normalization also takes its statistics over all processes; on CPUs it keeps to
        each process's share of a batch.
        """
        if self.count > 1 and self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return self._accelerator.prepare_model(module)

    def part(self, total: int) -> slice:
        """Which of `total` items are this process's.

        Raises:
            UsageError: they cannot be divided evenly.
        """
        if total % self.count:
            raise UsageError(
                f"{total} images cannot be divided among {self.count} processes; choose another batch"
            )
        size = total // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients."""
        self._accelerator.backward(loss)

    def without_sync(self, module: nn.Module, active: bool) -> AbstractContextManager[Any]:
        """Gradients stay in this process while `active`: those of all but the last part of a batch."""
        if not active:
            return nullcontext()
        context: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return context

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        return self._accelerator.reduce(values, reduction="mean")


def gather(values: Tensor) -> Tensor:
    """The rows of all processes, in order; gradients flow back to where a row came from.

    Every process then computes the loss of the whole batch. Averaging the gradients over the processes,
    as DistributedDataParallel does, gives exactly that loss's gradient.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return values
    if torch.distributed.get_world_size() == 1:
        return values
    return _Gather.apply(values)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, values.contiguous())
        context.size = len(values)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        torch.distributed.all_reduce(total)
        start = torch.distributed.get_rank() * context.size
        return total[start : start + context.size]
