"""Random numbers that are fresh at every step and the same again after an interruption."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class StepNoise(nn.Module):
    """Noise drawn from the seed and the number of the step alone; the number is part of the checkpoint.

    Args:
        seed: of all steps.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed, self._step = seed, 0

    def next_step(self, device: torch.device) -> torch.Generator:
        """The generator of the next step, where the tensors are."""
        entropy = np.random.SeedSequence([abs(self._seed), int(self._seed < 0), self._step])
        self._step += 1
        return torch.Generator(device).manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def get_extra_state(self) -> Tensor:
        """The number of the next step; kept off the GPU, since reading it there would wait."""
        return torch.tensor(self._step)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on at that step."""
        self._step = int(state)
