"""Exact nearest neighbours by brute force, in blocks, without a copy of the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import InvalidVectors, UsageError
from crossfade.evaluation.scoring import (
    Scorer,
    inverse_norms,
    prepare_queries,
    require_same_length,
    squared_norms,
)
from crossfade.extras import installed, load
from crossfade.spaces import Metric
from crossfade.vectors import BATCH_ROWS, FloatMatrix, VectorSource

Engine = Literal["faiss", "numpy"]
Positions = NDArray[np.int64]

QUERY_ROWS = 256
BLOCK_BYTES = 32 << 20
THRESHOLD_COLUMNS = 4096
UNIT_TOLERANCE = 1e-6


def search(
    queries: FloatMatrix,
    gallery: FloatMatrix | VectorSource,
    k: int,
    metric: Metric = "cosine",
    *,
    engine: Engine | None = None,
) -> tuple[FloatMatrix, Positions]:
    """The k best items of a gallery for every query, exactly.

    The result is sorted by falling score and, among equal scores, by position. Where several items
    share the k-th score, numpy keeps those that come first; faiss keeps any of them.

    Args:
        queries: (Q, d) float32.
        gallery: (N, d) float32, neither copied nor changed; or a source, which is streamed.
        k: number of items per query; fewer are returned if the gallery is smaller.
        metric: cosine, dot or l2.
        engine: faiss or numpy; by default faiss for many queries, if it is installed, else numpy.

    Returns:
        Scores (Q, k), higher is better (l2: negative squared distance), and positions (Q, k) in the gallery.

    Raises:
        UsageError: k is below 1.
        DimensionMismatch: queries and gallery are of different length.
        InvalidVectors: NaN in the queries or the gallery.
        MissingExtra: faiss was asked for and is not installed.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    engine = engine or _faster_engine(len(queries))
    if isinstance(gallery, VectorSource):
        return _search_stream(queries, gallery, k, metric, engine)
    require_same_length(queries, gallery)
    if len(gallery) == 0 or len(queries) == 0:
        return _empty(len(queries), min(k, len(gallery)))
    find = _search_faiss if engine == "faiss" else _search_numpy
    return find(queries, gallery, min(k, len(gallery)), metric)


def _faster_engine(n_queries: int) -> Engine:
    # benchmarks/search.py: one matrix product is up to three times faster than faiss on few queries
    return "faiss" if n_queries > QUERY_ROWS and installed("faiss") else "numpy"


def _search_stream(
    queries: FloatMatrix, gallery: VectorSource, k: int, metric: Metric, engine: Engine
) -> tuple[FloatMatrix, Positions]:
    best = _Best(len(queries), min(k, len(gallery)))
    start = 0
    for batch in gallery.batches():
        scores, positions = search(queries, batch.vectors, k, metric, engine=engine)
        best.add_table(scores, positions + start)
        start += len(batch)
    return best.result()


# --- faiss ------------------------------------------------------------------------------------


def _search_faiss(
    queries: FloatMatrix, gallery: FloatMatrix, k: int, metric: Metric
) -> tuple[FloatMatrix, Positions]:
    if metric == "cosine":
        return _cosine_faiss(prepare_queries(queries, metric), gallery, k)
    return _by_position(*_knn(queries, gallery, k, metric))


def _cosine_faiss(queries: FloatMatrix, gallery: FloatMatrix, k: int) -> tuple[FloatMatrix, Positions]:
    scale = inverse_norms(squared_norms(gallery))
    if np.all(np.abs(scale - 1) <= UNIT_TOLERANCE):
        return _by_position(*_knn(queries, gallery, k, "dot"))
    best = _Best(len(queries), k)
    rows = min(len(gallery), max(BATCH_ROWS, BLOCK_BYTES // (4 * gallery.shape[1])))
    buffer = np.empty((rows, gallery.shape[1]), dtype=np.float32)
    for items in _blocks(len(gallery), rows):
        block = np.multiply(gallery[items], scale[items, None], out=buffer[: items.stop - items.start])
        scores, positions = _knn(queries, block, min(k, len(block)), "dot")
        best.add_table(scores, positions + items.start)
    return best.result()


def _knn(queries: FloatMatrix, gallery: FloatMatrix, k: int, metric: Metric) -> tuple[FloatMatrix, Positions]:
    faiss = load("faiss", "faiss")
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    scores, positions = faiss.knn(queries, gallery, k, metric=measure)
    if np.any(positions < 0):
        raise _not_a_number()
    return (-scores if metric == "l2" else scores), positions


def _by_position(scores: FloatMatrix, positions: Positions) -> tuple[FloatMatrix, Positions]:
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):
        order = np.lexsort((positions[tied], -scores[tied]))
        positions[tied] = np.take_along_axis(positions[tied], order, axis=1)
    return scores, positions


# --- numpy ------------------------------------------------------------------------------------


def _search_numpy(
    queries: FloatMatrix, gallery: FloatMatrix, k: int, metric: Metric
) -> tuple[FloatMatrix, Positions]:
    scorer = Scorer(gallery, metric)
    scores, positions = _empty(len(queries), k)
    for rows in _blocks(len(queries), QUERY_ROWS):
        scores[rows], positions[rows] = _search_block(queries[rows], scorer, k)
    return scores, positions


def _search_block(queries: FloatMatrix, scorer: Scorer, k: int) -> tuple[FloatMatrix, Positions]:
    best = _Best(len(queries), k)
    columns = min(len(scorer), max(THRESHOLD_COLUMNS, BLOCK_BYTES // (4 * len(queries))))
    buffer = np.empty(len(queries) * columns, dtype=np.float32)
    for items in _blocks(len(scorer), columns):
        width = items.stop - items.start
        out = buffer[: len(queries) * width].reshape(len(queries), width)
        best.add_block(scorer.scores(queries, items, out), items.start)
    return best.result()


class _Best:
    """The k best of all that was added, per query.

    Only scores that pass the threshold of their query are kept, flat, and sorted once enough of them
    have come together: after the first block they are few.
    """

    def __init__(self, n_queries: int, k: int) -> None:
        self.n_queries, self.k = n_queries, k
        self._threshold: FloatMatrix | None = None
        self._parts: list[tuple[NDArray[np.intp], Positions, NDArray[np.float32]]] = []
        self._pending = 0

    def add_table(self, scores: FloatMatrix, positions: Positions) -> None:
        """Add some scores (Q, m) of items at `positions` (Q, m), all beyond those added before."""
        flat = np.flatnonzero(np.ones_like(scores) if self._threshold is None else scores > self._threshold)
        self._add(flat // scores.shape[1], positions.ravel()[flat], scores.ravel()[flat])

    def add_block(self, scores: FloatMatrix, start: int) -> None:
        """Add the scores (Q, n) of the n items from `start` on, all beyond those added before."""
        for columns in _blocks(scores.shape[1], THRESHOLD_COLUMNS):
            part = scores[:, columns]
            passed = part >= self._lowest(part) if self._threshold is None else part > self._threshold
            rows, items = np.divmod(np.flatnonzero(passed), part.shape[1])
            self._add(rows, items + (start + columns.start), part[rows, items])

    def _lowest(self, scores: FloatMatrix) -> FloatMatrix:
        place = max(0, scores.shape[1] - self.k)
        return np.partition(scores, place, axis=1)[:, place, None]

    def _add(self, rows: NDArray[np.intp], positions: Positions, scores: NDArray[np.float32]) -> None:
        self._parts.append((rows, positions, scores))
        self._pending += len(rows)
        if self._threshold is None or self._pending > self.n_queries * self.k:
            self._merge()

    def _merge(self) -> None:
        rows, positions, scores = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        # stable, and parts come by rising position: equal scores stay in the gallery's order
        order = np.argsort(_by_row_then_falling(rows, scores), kind="stable")
        rows = rows[order]
        starts = np.searchsorted(rows, np.arange(self.n_queries))
        kept = np.arange(len(rows)) - starts[rows] < self.k
        order = order[kept]
        self._parts, self._pending = [(rows[kept], positions[order], scores[order])], 0
        if len(order) == self.n_queries * self.k:
            self._threshold = scores[order].reshape(self.n_queries, self.k)[:, -1:]

    def result(self) -> tuple[FloatMatrix, Positions]:
        """Scores (Q, k) and positions (Q, k), sorted."""
        self._merge()
        _, positions, scores = self._parts[0]
        if len(scores) != self.n_queries * self.k:
            raise _not_a_number()
        shape = self.n_queries, self.k
        return scores.reshape(shape), positions.reshape(shape)


def _by_row_then_falling(rows: NDArray[np.intp], scores: NDArray[np.float32]) -> NDArray[np.uint64]:
    # one integer key sorts several times faster than two keys: IEEE floats compare like their bits
    bits = (scores + np.float32(0)).view(np.uint32)
    falling = np.where(bits < 0x80000000, 0x7FFFFFFF - bits, bits)
    key: NDArray[np.uint64] = (rows.astype(np.uint64) << np.uint64(32)) | falling.astype(np.uint64)
    return key


def _blocks(count: int, rows: int) -> Iterator[slice]:
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def _empty(n_queries: int, k: int) -> tuple[FloatMatrix, Positions]:
    return np.empty((n_queries, k), dtype=np.float32), np.empty((n_queries, k), dtype=np.int64)


def _not_a_number() -> InvalidVectors:
    return InvalidVectors(
        "some scores are not numbers: the queries or the gallery hold NaN or infinite values; "
        "look with: crossfade inspect"
    )
