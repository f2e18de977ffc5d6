"""How well a map serves retrieval, measured on held-out pairs without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.prepared import scale_to_unit
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, FloatMatrix

NEIGHBOURS = 10
BLOCK_ROWS = 1024
PerItem = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over held-out items and its 95 % interval (percentile bootstrap over items)."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """The interval as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judged:
    """One map on the held-out pairs.

    Attributes:
        neighbours: (m,) share of the new model's own nearest neighbours that are found.
        partner: (m,) reciprocal rank of an item's own vector.
        error: squared error of the mapped vectors relative to answering with the mean target vector.
    """

    neighbours: PerItem
    partner: PerItem
    error: float


class Judge:
    """Searches held-out pairs with the new model's queries, the way the map will be used.

    A forward map lifts the gallery (the source is the old model): queries are the target vectors, the gallery
    is the mapped source vectors. A backward map carries queries back (the source is the new model): queries
    are the mapped source vectors, the gallery is the target vectors. In both, every held-out item is once the
    query, its own gallery vector is put aside, and the ten nearest are compared with the new model's own ten.
    On image and text collections with human labels this ordered maps as the labels did, where squared
    error and finding an item's own partner did not: those reward, in one direction or the other, maps that
    imitate the old model's mistakes.

    Args:
        pairs: the held-out pairs.
        backward: whether the map carries queries from the new model back to the old one.
    """

    def __init__(self, pairs: ArrayPairs, *, backward: bool) -> None:
        self._pairs, self._backward = pairs, backward
        new, space = (pairs.X, pairs.source) if backward else (pairs.Y, pairs.target)
        self._count = max(1, min(NEIGHBOURS, (len(pairs) - 1) // 5))
        self._wanted = _nearest(new, new, space, self._count)[0]

    def __call__(self, mapped: FloatMatrix) -> Judged:
        """Judge the held-out source vectors as a map returned them, (m, d_target)."""
        target = self._pairs.Y
        queries, gallery = (mapped, target) if self._backward else (target, mapped)
        found, partner = _nearest(queries, gallery, self._pairs.target, self._count)
        shared = (found[:, :, None] == self._wanted[:, None, :]).any(axis=2).mean(axis=1)
        return Judged(shared, partner, _relative_error(mapped, target, self._pairs.target))


def _relative_error(mapped: FloatMatrix, target: FloatMatrix, space: Space | None) -> float:
    meant = scale_to_unit(target) if space is not None and space.metric == "cosine" else target
    variance = np.square(meant - meant.mean(axis=0), dtype=np.float64).sum()
    return float(np.square(mapped - meant, dtype=np.float64).sum() / max(variance, np.finfo(np.float64).tiny))


def _nearest(
    queries: FloatMatrix, gallery: FloatMatrix, space: Space | None, count: int
) -> tuple[NDArray[np.intp], PerItem]:
    """Nearest items of each but itself, (m, count), and the reciprocal rank of itself, (m,).

    Plain arrays without a space are compared by cosine.
    """
    metric = space.metric if space is not None else "cosine"
    if metric == "cosine":
        queries, gallery = scale_to_unit(queries), scale_to_unit(gallery)
    offset = -0.5 * np.einsum("ij,ij->i", gallery, gallery) if metric == "l2" else np.float32(0)
    nearest = np.empty((len(queries), count), dtype=np.intp)
    reciprocal = np.empty(len(queries))
    for start in range(0, len(queries), BLOCK_ROWS):
        scores = queries[start : start + BLOCK_ROWS] @ gallery.T + offset
        row = np.arange(len(scores))
        own = scores[row, start + row]
        reciprocal[start + row] = 1 / (1 + (scores > own[:, None]).sum(axis=1))
        scores[row, start + row] = -np.inf
        nearest[start + row] = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    return nearest, reciprocal


class Bootstrap:
    """The same seeded resamples of m items for every mean, so that differences are paired.

    Args:
        m: number of items.
        samples: number of resamples.
    """

    def __init__(self, m: int, *, samples: int = 1000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._weights = rng.multinomial(m, np.full(m, 1 / m), size=samples) / m

    def __call__(self, values: PerItem) -> Interval:
        """Mean of `values` (m,) and its 95 % interval."""
        low, high = np.percentile(self._weights @ values, (2.5, 97.5))
        return Interval(float(values.mean()), float(low), float(high))
