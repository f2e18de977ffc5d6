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
from crossfade.upgrade.strategies.base import Gallery, Queries, Strategy, best_hits
from crossfade.upgrade.strategies.interpolate import interpolated, require_weight
from crossfade.vectors import FloatMatrix
from crossfade.vectors.checks import find_invalid
from crossfade.vectors.ids import first_few

FIRST_STAGES = ("query", "interpolate")


class Cascade(Strategy):
    """Candidates from the old gallery, re-ranked by the new model's own vectors."""

    name = "cascade"
    writes = "cache"
    direction = "backward"
    embeds = True

    def check(self, plan: Plan, adapter: Adapter | None) -> None:
        super().check(plan, adapter)
        if plan.depth is None or plan.depth < 1:
            raise UsageError(
                f"a cascade re-ranks a number of candidates, at least 1, got {plan.depth}; give --depth"
            )
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
        vectors = _new_vectors(gallery, candidates)
        new = queries.new
        return [_reranked(hits, new[row], vectors, plan.new, k) for row, hits in enumerate(candidates)]


class _Vectors:
    """New vectors of a set of ids."""

    def __init__(self, ids: pa.Array, matrix: FloatMatrix) -> None:
        self._rows = {one: row for row, one in enumerate(ids.to_pylist())}
        self._matrix = matrix

    def of(self, ids: pa.Array) -> FloatMatrix:
        return self._matrix[[self._rows[one] for one in ids.to_pylist()]]


def _new_vectors(gallery: Gallery, candidates: list[Hits]) -> _Vectors:
    """New vectors of all candidates: those that are kept, and the missing ones embedded and kept."""
    assert gallery.cache is not None
    ids, handles = _distinct(candidates)
    matrix, known = gallery.cache.get(ids)
    if not known.all():
        missing = np.flatnonzero(~known)
        made = _embed(gallery, ids.take(pa.array(missing)), handles[missing])
        matrix[missing] = made
        gallery.cache.put(ids.take(pa.array(missing)), made)
    return _Vectors(ids, matrix)


def _distinct(candidates: list[Hits]) -> tuple[pa.Array, np.ndarray]:
    ids = pa.concat_arrays([hits.ids for hits in candidates])
    handles = np.concatenate([hits.handles for hits in candidates])
    _, first = np.unique(handles, return_index=True)
    return ids.take(pa.array(first)), handles[first]


def _embed(gallery: Gallery, ids: pa.Array, handles: np.ndarray) -> FloatMatrix:
    plan = gallery.plan
    if gallery.encoder is None:
        raise UsageError(
            f"this search embeds {len(ids)} candidates that have no new vector yet; pass the encoder of "
            f"{plan.new} for the items in column {plan.items!r} (items=)"
        )
    plan.new.require_same(gallery.encoder.space, "encoder of the raw items")
    table = gallery.store.fetch(handles, [plan.items])
    vectors = gallery.encoder.encode(table.column(plan.items).to_pylist())
    if faulty := find_invalid(vectors):
        raise InvalidVectors(
            f"the encoder made {len(faulty)} unusable vectors ({', '.join(sorted(set(faulty.values())))}); "
            f"first ids: {first_few(ids[row].as_py() for row in faulty)}; correct these items"
        )
    return vectors


def _reranked(hits: Hits, query: FloatMatrix, vectors: _Vectors, space: Space, k: int) -> Hits:
    return best_hits(hits, similarity(query, vectors.of(hits.ids), space), k)


def similarity(query: FloatMatrix, vectors: FloatMatrix, space: Space) -> np.ndarray:
    """Similarity of one query (d,) to vectors (n, d) in the metric of `space`; larger is better."""
    if space.metric == "l2":
        return np.asarray(-np.square(vectors - query).sum(axis=1), dtype=np.float32)
    scores = vectors @ query
    if space.metric == "cosine":
        scores = scores / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    return np.asarray(scores, dtype=np.float32)


STRATEGY = Cascade()
