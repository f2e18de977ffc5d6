"""Scores of queries against a gallery, in blocks, without a copy of the gallery."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DimensionMismatch
from crossfade.spaces import Metric
from crossfade.vectors import FloatMatrix

BLOCK_BYTES = 64 << 20
MAX_BLOCK_ROWS = 1024


class Scorer:
    """Scores any queries against one gallery; higher is better whatever the metric.

    cosine: the cosine; a zero vector scores 0. dot: the inner product. l2: the negative squared
    Euclidean distance. Beside the gallery itself only one number per item is kept.

    Args:
        gallery: (N, d) float32.
        metric: cosine, dot or l2.
    """

    def __init__(self, gallery: FloatMatrix, metric: Metric) -> None:
        self.gallery, self.metric = gallery, metric
        squared = squared_norms(gallery) if metric != "dot" else None
        self._scale = inverse_norms(squared) if squared is not None and metric == "cosine" else None
        self._offset = -squared if squared is not None and metric == "l2" else None

    def __len__(self) -> int:
        return len(self.gallery)

    def scores(
        self, queries: FloatMatrix, items: slice = slice(None), out: FloatMatrix | None = None
    ) -> FloatMatrix:
        """Scores (b, n) of queries (b, d) against the chosen `items`, all by default.

        Args:
            queries: as the encoder made them; they need not be normalised.
            items: which part of the gallery.
            out: (b, n) float32, C-contiguous, to write the scores into.

        Raises:
            DimensionMismatch: the queries are not as long as the gallery's vectors.
        """
        require_same_length(queries, self.gallery)
        block = np.matmul(prepare_queries(queries, self.metric), self.gallery[items].T, out=out)
        if self._scale is not None:
            block *= self._scale[items]
        if self._offset is not None:
            block += self._offset[items]
            block -= squared_norms(queries)[:, None]
        return block


def prepare_queries(queries: FloatMatrix, metric: Metric) -> FloatMatrix:
    """Queries such that their inner product with the gallery, plus terms of one side alone, is the score."""
    if metric == "cosine":
        return queries * inverse_norms(squared_norms(queries))[:, None]
    return queries * np.float32(2) if metric == "l2" else queries


def inverse_norms(squared: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) 1 / length; 0 for a zero vector, so that it scores 0."""
    lengths = np.sqrt(squared)
    return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def squared_norms(vectors: FloatMatrix) -> NDArray[np.float32]:
    squared: NDArray[np.float32] = np.einsum("ij,ij->i", vectors, vectors)
    return squared


def require_same_length(queries: FloatMatrix, gallery: FloatMatrix) -> None:
    """Refuse queries that are not as long as the gallery's vectors."""
    if queries.shape[1] != gallery.shape[1]:
        raise DimensionMismatch(
            f"queries have {queries.shape[1]} dimensions, the gallery has {gallery.shape[1]}; "
            "map the queries with an adapter first (crossfade fit, crossfade transform)"
        )


def query_blocks(n_queries: int, n_gallery: int, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Slices of queries whose scores against the whole gallery fit into `block_bytes` as float32."""
    rows = max(1, min(MAX_BLOCK_ROWS, block_bytes // (4 * max(1, n_gallery))))
    for start in range(0, n_queries, rows):
        yield slice(start, min(start + rows, n_queries))
