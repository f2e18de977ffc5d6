"""k-means on a sample: Lloyd's iterations from a k-means++ start, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossfade.vectors import FloatMatrix

ITERATIONS = 25


def squared_distances(X: FloatMatrix, centres: FloatMatrix) -> FloatMatrix:
    """‖x - c‖² of every row of X (n, d) to every centre (k, d): (n, k)."""
    distances: FloatMatrix = np.matmul(X, -2 * centres.T)
    distances += np.einsum("ij,ij->i", X, X)[:, None]
    distances += np.einsum("ij,ij->i", centres, centres)
    np.maximum(distances, 0, out=distances)
    return distances


def kmeans(sample: FloatMatrix, k: int, seed: int) -> FloatMatrix:
    """Centres (k, d) of `sample` (n, d), n >= k."""
    rng = np.random.default_rng(seed)
    centres = _start(sample, k, rng)
    previous: NDArray[np.intp] | None = None
    for _ in range(ITERATIONS):
        nearest = squared_distances(sample, centres).argmin(axis=1)
        if previous is not None and (nearest == previous).all():
            break
        previous = nearest
        for cluster in np.unique(nearest):  # a cluster that lost all its rows keeps its centre
            centres[cluster] = sample[nearest == cluster].mean(axis=0)
    return centres


def _start(sample: FloatMatrix, k: int, rng: np.random.Generator) -> FloatMatrix:
    """Arthur & Vassilvitskii, SODA 2007: each next centre is drawn in proportion to its squared distance."""
    chosen = [int(rng.integers(len(sample)))]
    closest = squared_distances(sample, sample[chosen])[:, 0].astype(np.float64)
    for _ in range(1, k):
        total = closest.sum()
        weights = closest / total if total > 0 else np.full(len(sample), 1 / len(sample))
        chosen.append(int(rng.choice(len(sample), p=weights)))
        closest = np.minimum(closest, squared_distances(sample, sample[chosen[-1:]])[:, 0])
    centres: FloatMatrix = sample[chosen]
    return centres
