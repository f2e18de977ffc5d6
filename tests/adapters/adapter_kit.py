"""Planted pairs and one maker per adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from crossfade.adapters.base import Adapter
from crossfade.adapters.local_experts import LocalExperts
from crossfade.adapters.low_rank import LowRank
from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.residual_mlp import ResidualMLP
from crossfade.adapters.ridge import Ridge
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, FloatMatrix, Pairs

MakeAdapter = Callable[[], Adapter]

MAKERS: dict[str, MakeAdapter] = {
    "procrustes": Procrustes,
    "procrustes-uncentred": lambda: Procrustes(centred=False),
    "procrustes-scaled": lambda: Procrustes(scaled=True),
    "ridge": Ridge,
    "low-rank": LowRank,
    "local-experts": lambda: LocalExperts(clusters=4, expert="procrustes"),
    "local-experts-ridge": lambda: LocalExperts(clusters=4, expert="ridge"),
    "residual-mlp": lambda: ResidualMLP(hidden=16, epochs=3),
}


def old_space(dimension: int = 24) -> Space:
    return Space("old-model", dimension, revision="1")


def new_space(dimension: int = 24) -> Space:
    return Space("new-model", dimension, revision="2")


def planted(
    n: int = 600, d_source: int = 24, d_target: int = 24, noise: float = 0.0, seed: int = 0
) -> ArrayPairs:
    """Pairs that an orthogonal (or semi-orthogonal) matrix relates; both spaces compare by cosine."""
    rng = np.random.default_rng(seed)
    shared = min(d_source, d_target)
    latent = rng.standard_normal((n, shared))
    left = np.linalg.qr(rng.standard_normal((d_source, d_source)))[0][:shared]
    right = np.linalg.qr(rng.standard_normal((d_target, d_target)))[0][:shared]
    Y = latent @ right + noise * rng.standard_normal((n, d_target))
    return ArrayPairs(latent @ left, Y, source=old_space(d_source), target=new_space(d_target))


class Streamed(Pairs):
    """The same pairs in batches of changing size, like a file that was written bit by bit."""

    def __init__(self, pairs: ArrayPairs) -> None:
        self._pairs = pairs
        self.source, self.target = pairs.source, pairs.target
        self.passes = 0

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def dimensions(self) -> tuple[int, int]:
        return self._pairs.dimensions

    def batches(self, rows: int = 100) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
        self.passes += 1
        start, step = 0, 1
        while start < len(self):
            yield self._pairs.X[start : start + step], self._pairs.Y[start : start + step]
            start, step = start + step, step * 3 % 101 + 1


def unit(matrix: FloatMatrix) -> FloatMatrix:
    result: FloatMatrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return result
