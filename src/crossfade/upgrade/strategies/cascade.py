"""Two-stage search: the bridge fetches candidates, the new model re-ranks them.

Vectors made on the way are kept beside the table, so the gallery backfills itself where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from crossfade.adapters import Adapter
from crossfade.errors import InvalidVectors, UsageError
from crossfade.spaces import Space
from crossfade.stores import Hits
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.strategies.base import Gallery, Queries, Strategy, best_hits, taken
from crossfade.upgrade.strategies.interpolate import interpolated, require_weight
from crossfade.vectors import FloatMatrix
from crossfade.vectors.checks import find_invalid
from crossfade.vectors.ids import first_few


def require_depth(plan: Plan) -> int:
    """The number of candidates, at least 1."""
    if plan.depth is None or plan.depth < 1:
        raise UsageError(
            f"a cascade re-ranks a number of candidates, at least 1, got {plan.depth}; give --depth"
        )
    return plan.depth


FIRST_STAGES = ("query", "interpolate")


class Cascade(Strategy):
    """Candidates from the old gallery, re-ranked by the new model's own vectors."""

    name = "cascade"
    writes = "cache"
    direction = "backward"
    embeds = True
    keeps = True

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        super().check(plan, adapter)
        require_depth(plan)
        if plan.first_stage not in FIRST_STAGES:
            raise UsageError(
                f"first stage {plan.first_stage!r} of a cascade is not one of {', '.join(FIRST_STAGES)}"
            )
        if plan.first_stage == "interpolate":
            require_weight(plan)

    def steps(self, plan: Plan) -> tuple[str, ...]:
        first = "mapped" if plan.first_stage == "query" else f"interpolated (weight {plan.weight:g})"
        return (
            "apply: nothing is written; the adapter is checked",
            "verify: the gallery and the adapter are what was planned for",
            f"cutover: the {first} query fetches {plan.depth} candidates from the old gallery, "
            f"the new model embeds those it has not seen (column {plan.items!r}) and re-ranks them; "
            "their vectors are kept beside the table",
        )

    def way_back(self, plan: Plan) -> str:
        return "crossfade rollback: queries of the old model search the gallery again; kept vectors stay"

    def answer(self, gallery: Gallery, queries: Queries, k: int, columns: Sequence[str]) -> list[Hits]:
        plan = gallery.plan
        bridged = gallery.mapped(queries) if plan.first_stage == "query" else interpolated(gallery, queries)
        candidates = gallery.search(bridged, max(k, plan.depth or 0), columns, plan.old)
        vectors = new_vectors(gallery, candidates)
        new = queries.new
        return [reranked(hits, new[row], vectors, plan.new, k) for row, hits in enumerate(candidates)]


class NewVectors:
    """New vectors of a set of ids; of those whose raw item is gone there is none."""

    def __init__(self, ids: pa.Array, matrix: FloatMatrix, known: np.ndarray) -> None:
        self._rows = {one: row for row, one in enumerate(ids.to_pylist())}
        self._matrix, self._known = matrix, known

    def of(self, ids: pa.Array) -> tuple[FloatMatrix, np.ndarray]:
        """Vectors (n, d) of `ids`, and which there are (n,)."""
        rows = [self._rows[one] for one in ids.to_pylist()]
        return self._matrix[rows], self._known[rows]


def new_vectors(gallery: Gallery, candidates: list[Hits]) -> NewVectors:
    """New vectors of all candidates: those that are kept, and the missing ones embedded and kept."""
    assert gallery.cache is not None
    ids, handles = _distinct(candidates)
    matrix, known = gallery.cache.get(ids)
    missing = np.flatnonzero(~known)
    if len(missing):
        made, there = _embed(gallery, ids.take(pa.array(missing)), handles[missing])
        found = missing[there]
        matrix[found], known = made, known.copy()
        known[found] = True
        if len(found):
            gallery.cache.put(ids.take(pa.array(found)), made)
    return NewVectors(ids, matrix, known)


def _distinct(candidates: list[Hits]) -> tuple[pa.Array, np.ndarray]:
    ids = pa.concat_arrays([hits.ids for hits in candidates])
    handles = np.concatenate([hits.handles for hits in candidates])
    _, first = np.unique(handles, return_index=True)
    return ids.take(pa.array(first)), handles[first]


def _embed(gallery: Gallery, ids: pa.Array, handles: np.ndarray) -> tuple[FloatMatrix, np.ndarray]:
    """Vectors (m, d) of the items that there are, and which these are (n,)."""
    plan = gallery.plan
    if gallery.encoder is None:
        raise UsageError(
            f"this search embeds {len(ids)} candidates that have no new vector yet; pass the encoder of "
            f"{plan.new} for the items in column {plan.items!r} (items=)"
        )
    plan.new.require_same(gallery.encoder.space, "encoder of the raw items")
    items = gallery.store.fetch(handles, [plan.items]).column(plan.items).combine_chunks()
    there = items.is_valid().to_numpy(zero_copy_only=False)
    if not there.any():
        return np.empty((0, plan.new.dimension), dtype=np.float32), there
    vectors = gallery.encoder.encode(items.drop_null().to_pylist())
    if faulty := find_invalid(vectors):
        named = ids.filter(pa.array(there))
        raise InvalidVectors(
            f"the encoder made {len(faulty)} unusable vectors ({', '.join(sorted(set(faulty.values())))}); "
            f"first ids: {first_few(named[row].as_py() for row in faulty)}; correct these items"
        )
    return vectors, there


def reranked(hits: Hits, query: FloatMatrix, vectors: NewVectors, space: Space, k: int) -> Hits:
    """The `k` best candidates by their new vectors.

    A candidate whose raw item is gone keeps the place that the first stage gave it: its score there does not
    compare with the others'. It is shown with the score of the next one below it that has one.
    """
    matrix, known = vectors.of(hits.ids)
    if not known.any():
        return best_hits(hits, hits.scores, k)
    scores = similarity(query, matrix[known], space)
    best, places = np.argsort(-scores, kind="stable"), np.flatnonzero(known)
    order, shown = np.arange(len(hits)), np.empty(len(hits), dtype=np.float32)
    order[places] = places[best]
    below = np.minimum(np.searchsorted(places, np.arange(len(hits))), len(places) - 1)
    shown[:] = scores[best][below]
    return taken(hits, order[:k], shown[:k])


def similarity(query: FloatMatrix, vectors: FloatMatrix, space: Space) -> np.ndarray:
    """Similarity of one query (d,) to vectors (n, d) in the metric of `space`; larger is better."""
    if space.metric == "l2":
        return np.asarray(-np.square(vectors - query).sum(axis=1), dtype=np.float32)
    scores = vectors @ query
    if space.metric == "cosine":
        scores = scores / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    return np.asarray(scores, dtype=np.float32)


STRATEGY = Cascade()
