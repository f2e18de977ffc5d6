"""Handwritten digits under an old model (digits 0 to 4), side-information, and a new model (all ten)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from crossfade.evaluation import self_search_task
from crossfade.evaluation.task import RetrievalTask
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, FloatMatrix, Vectors

OLD = Space("digits-old", 12, metric="l2")
NEW = Space("digits-new", 16, metric="l2")
SIDE = Space("digits-components", 20, metric="l2")


@dataclass(frozen=True)
class Digits:
    """Vectors of one set of digits under the three models, row for row."""

    old: Vectors
    new: Vectors
    side: Vectors
    labels: np.ndarray

    def pairs(self, *, side: bool = True, labels: bool = False) -> ArrayPairs:
        return ArrayPairs(
            self.old.matrix,
            self.new.matrix,
            source=OLD,
            target=NEW,
            side=self.side.matrix if side else None,
            side_space=SIDE,
            labels=self.labels if labels else None,
        )

    def task(self) -> RetrievalTask:
        return self_search_task(self.old, self.new, self.labels, side=self.side)


@cache
def digits() -> tuple[Digits, Digits]:
    """Training digits and held-out ones."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    pictures, labels = (data.data[order] / 16).astype(np.float32), data.target[order]
    fitted = np.arange(1100)
    few = fitted[labels[fitted] < 5]
    old = _features(pictures, few, labels, OLD.dimension, epochs=50)
    new = _features(pictures, fitted, labels, NEW.dimension, epochs=80)
    side = _components(pictures, few, SIDE.dimension)
    parts = fitted, np.arange(1100, len(labels))
    first, second = (_part(rows, old, new, side, labels) for rows in parts)
    return first, second


def _part(
    rows: np.ndarray, old: FloatMatrix, new: FloatMatrix, side: FloatMatrix, labels: np.ndarray
) -> Digits:
    made = (Vectors(rows, values[rows], space) for values, space in ((old, OLD), (new, NEW), (side, SIDE)))
    return Digits(*made, labels[rows])


def _features(
    pictures: FloatMatrix, fitted: np.ndarray, labels: np.ndarray, dimension: int, epochs: int
) -> FloatMatrix:
    """Embeddings of a small classifier that was trained on some of the pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, dimension))
        model = nn.Sequential(body, nn.ReLU(), nn.Linear(dimension, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        x, y = torch.from_numpy(pictures), torch.from_numpy(labels)
        for _ in range(epochs):
            for rows in torch.from_numpy(fitted)[torch.randperm(len(fitted))].split(256):
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            found: FloatMatrix = body(x).numpy()
        return found


def _components(pictures: FloatMatrix, fitted: np.ndarray, count: int) -> FloatMatrix:
    """Principal components of the old digits: side-information that no label was needed for."""
    centre = pictures[fitted].mean(axis=0)
    basis = np.linalg.svd(pictures[fitted] - centre, full_matrices=False)[2][:count]
    return (pictures - centre) @ basis.T
