"""Rows of the query/gallery matrix as things that score a block of queries against the gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.scoring import Scorer
from crossfade.vectors import FloatMatrix

Scores = NDArray[np.floating]


class Scored(Protocol):
    """Anything that can be measured: it names the rows it makes and scores a block of queries for each."""

    def blocks(self, rows: slice) -> Iterator[tuple[str, Scores]]:
        """(key, scores (b, N)) for the queries in `rows`; a query's own item scores -inf."""
        ...


@dataclass(frozen=True)
class SingleStage:
    """Queries against a gallery: one matrix product.

    Attributes:
        key: of the row.
        queries: (Q, d) in the gallery's space.
        gallery: scores them.
        own: (Q,) the query's own place in the gallery, -1 for none; None if no query is in it.
    """

    key: str
    queries: FloatMatrix
    gallery: Scorer
    own: NDArray[np.integer] | None = None

    @property
    def n_gallery(self) -> int:
        """Items in the gallery (N)."""
        return len(self.gallery)

    def scores(self, rows: slice) -> FloatMatrix:
        """(b, N) scores of the queries in `rows`."""
        block = self.gallery.scores(self.queries[rows])
        take_out(block, self.own, rows, -np.inf)
        return block

    def blocks(self, rows: slice) -> Iterator[tuple[str, Scores]]:
        yield self.key, self.scores(rows)


class Stage(Protocol):
    """One stage of a two-stage search."""

    @property
    def own(self) -> NDArray[np.integer] | None:
        """(Q,) the query's own place in the gallery, -1 for none; None if no query is in it."""
        ...

    @property
    def n_gallery(self) -> int:
        """Items in the gallery (N)."""
        ...

    def scores(self, rows: slice) -> FloatMatrix:
        """(b, N) scores of the queries in `rows`."""
        ...


@dataclass(frozen=True)
class StageByFold:
    """A stage that differs between the halves of the queries: each is scored with the other half's choice.

    Attributes:
        stages: of fold 0, 1, …
        folds: (Q,) the fold of every query.
    """

    stages: tuple[SingleStage, ...]
    folds: NDArray[np.integer]

    @property
    def own(self) -> NDArray[np.integer] | None:
        return self.stages[0].own

    @property
    def n_gallery(self) -> int:
        return self.stages[0].n_gallery

    def scores(self, rows: slice) -> FloatMatrix:
        """(b, N) scores of the queries in `rows`, each in the gallery of its fold."""
        block, folds = self.stages[0].scores(rows), self.folds[rows]
        for fold, stage in enumerate(self.stages[1:], 1):
            if stage is not self.stages[0] and (mine := folds == fold).any():
                block[mine] = stage.scores(rows)[mine]
        return block


@dataclass(frozen=True)
class RandomOrder:
    """Chance level: a random order of the gallery for every query."""

    key: str
    n_gallery: int
    seed: int = 0
    own: NDArray[np.integer] | None = None

    def blocks(self, rows: slice) -> Iterator[tuple[str, Scores]]:
        rng = np.random.default_rng([self.seed, rows.start])
        block = rng.random((rows.stop - rows.start, self.n_gallery), dtype=np.float32)
        take_out(block, self.own, rows, -np.inf)
        yield self.key, block


@dataclass(frozen=True)
class Cascade:
    """Two-stage search: `first` fetches candidates, `second` re-ranks them; one row per depth.

    What is not among the candidates keeps the first stage's order behind them, so that metrics over
    the whole gallery stay defined. At full depth the row equals the second stage.

    Attributes:
        first: fetches the candidates from the old gallery, or from the lifted one.
        second: the new model's own vectors.
        keys: of the rows, by depth.
        looked_at: (N,) per depth, the items that were candidates of any query so far.
    """

    first: Stage
    second: Stage
    keys: dict[int, str]
    looked_at: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    def blocks(self, rows: slice) -> Iterator[tuple[str, Scores]]:
        first, second = self.first.scores(rows), self.second.scores(rows)
        candidates = best_first(first, max(self.keys))
        for depth, key in self.keys.items():
            chosen = candidates[:, : self._reachable(depth)]
            self._note(depth, chosen)
            yield key, rerank(first, second, chosen)

    def _reachable(self, depth: int) -> int:
        own = 0 if self.first.own is None else 1
        return max(1, min(depth, self.first.n_gallery - own))

    def _note(self, depth: int, chosen: NDArray[np.intp]) -> None:
        seen = self.looked_at.setdefault(depth, np.zeros(self.first.n_gallery, dtype=np.bool_))
        seen[chosen.ravel()] = True

    def embedded(self) -> dict[str, int]:
        """Distinct items that had to be embedded for the queries scored so far, by key."""
        return {self.keys[depth]: int(seen.sum()) for depth, seen in self.looked_at.items()}


def best_first(scores: Scores, k: int) -> NDArray[np.intp]:
    """(b, k) positions of the k best, sorted by falling score."""
    k = min(k, scores.shape[1])
    chosen = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    chosen.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def rerank(first: FloatMatrix, second: FloatMatrix, candidates: NDArray[np.intp]) -> NDArray[np.float64]:
    """(b, N) scores: candidates by `second`, all others by `first`, below the worst candidate."""
    scores = first.astype(np.float64)  # shifted float32 scores would run into ties
    reranked = np.take_along_axis(second, candidates, axis=1)
    scores += (reranked.min(axis=1) - first.max(axis=1) - 1.0)[:, None]
    np.put_along_axis(scores, candidates, reranked, axis=1)
    return scores


def take_out(block: NDArray[Any], own: NDArray[np.integer] | None, rows: slice, value: float) -> None:
    """Write `value` where a query of the block meets itself in the gallery."""
    if own is None:
        return
    positions = own[rows]
    present = np.flatnonzero(positions >= 0)
    block[present, positions[present]] = value


def cascade_keys(first_stage: str, depths: Sequence[int]) -> dict[int, str]:
    """``cascade:FIRST@DEPTH`` for every depth, rising."""
    return {depth: f"cascade:{first_stage}@{depth}" for depth in sorted(set(depths))}
