"""The learning rate over time."""

from __future__ import annotations

import math


def cosine_with_warm_up(step: int, steps: int, warm_up: int) -> float:
    """Share of the learning rate at a step: a linear rise over `warm_up` steps, then a cosine to zero.

    Args:
        step: 0 to `steps` - 1.
        steps: steps in all.
        warm_up: steps of the rise.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
