"""A retrieval task: queries and a gallery under both models, and what is relevant to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import Adapter
from crossfade.errors import DataError, IdMismatch
from crossfade.evaluation.compatible import Compatible, require_searchable
from crossfade.evaluation.ground_truth import GroundTruth
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix, Vectors


@dataclass(frozen=True)
class RetrievalTask:
    """The same queries and the same gallery embedded by the old and the new model.

    Attributes:
        name: what the task is called in tables, e.g. ``text→image``.
        queries_old, queries_new: (Q, d_old) and (Q, d_new), row for row the same queries.
        gallery_old, gallery_new: (N, d_old) and (N, d_new), row for row the same items.
        ground_truth: grades of Q queries and N items.
        query_positions: (Q,) where each query stands in the gallery itself, -1 if it does not; that
            item is taken out for that query, as the papers do. None if queries are not in the gallery.
        query_groups: (Q,) queries with the same number belong together (five captions of one image):
            intervals, tests and folds then keep whole groups together. By default what the ground truth
            knows: captions of one image are a group, all other queries are independent.
        gallery_side: (N, d_side) side-information of the gallery items, row for row; None if there is none.
        compatible: the same queries (and gallery) under models that claim to search the old gallery
            directly, by name.

    Raises:
        DataError: the numbers of rows differ.
        DimensionMismatch: vectors of a compatible model are not as long as the old gallery's.
        IdMismatch: old and new rows, or those of the side-information, carry different ids.
        SpaceMismatch: queries and gallery of one model are of different spaces (prompts may differ).
    """

    name: str
    queries_old: Vectors
    queries_new: Vectors
    gallery_old: Vectors
    gallery_new: Vectors
    ground_truth: GroundTruth
    query_positions: NDArray[np.integer] | None = None
    query_groups: NDArray[np.integer] | None = None
    gallery_side: Vectors | None = None
    compatible: Mapping[str, Compatible] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._require_aligned(self.queries_old, self.queries_new, "queries")
        self._require_aligned(self.gallery_old, self.gallery_new, "gallery items")
        if self.gallery_side is not None:
            self._require_aligned(self.gallery_old, self.gallery_side, "gallery items", "side-information")
        for model, given in self.compatible.items():
            self._require_compatible(model, given)
        self._require_count("queries judged", self.ground_truth.n_queries, self.n_queries)
        self._require_count("gallery items judged", self.ground_truth.n_gallery, self.n_gallery)
        for name in ("query_positions", "query_groups"):
            values = getattr(self, name)
            if values is not None:
                self._require_count(name.replace("_", " "), len(values), self.n_queries)
        self._require_positions()
        _require_comparable(self.queries_old.space, self.gallery_old.space, f"{self.name}: old queries")
        _require_comparable(self.queries_new.space, self.gallery_new.space, f"{self.name}: new queries")

    @property
    def n_queries(self) -> int:
        """Number of queries (Q)."""
        return len(self.queries_old)

    @property
    def n_gallery(self) -> int:
        """Number of gallery items (N)."""
        return len(self.gallery_old)

    def with_metric(self, metric: str) -> RetrievalTask:
        """The same task with vectors compared by cosine, dot or l2."""
        return replace(
            self,
            queries_old=_with_metric(self.queries_old, metric),
            queries_new=_with_metric(self.queries_new, metric),
            gallery_old=_with_metric(self.gallery_old, metric),
            gallery_new=_with_metric(self.gallery_new, metric),
            compatible={
                name: given.each(lambda vectors: _with_metric(vectors, metric))
                for name, given in self.compatible.items()
            },
        )

    def side_for(self, adapter: Adapter) -> FloatMatrix | None:
        """The gallery's side-information if `adapter` takes any.

        Raises:
            UsageError: it does, and the task has none.
            SpaceMismatch, DimensionMismatch: it is of another encoder than the adapter was fitted with.
        """
        if not adapter.side_dimension:
            return None
        side = self.gallery_side
        adapter.require_side(None if side is None else side.space, f"task {self.name!r}")
        return None if side is None else side.matrix

    def lift_gallery(self, adapter: Adapter) -> FloatMatrix:
        """(N, d_new) the old gallery as a forward map lifts it."""
        return adapter.transform(self.gallery_old.matrix, self.side_for(adapter))

    def take_queries(self, queries: NDArray[np.integer]) -> RetrievalTask:
        """The same task with some of the queries only; the gallery stays whole."""
        return replace(
            self,
            queries_old=self.queries_old.take(queries),
            queries_new=self.queries_new.take(queries),
            ground_truth=self.ground_truth.take(queries),
            query_positions=None if self.query_positions is None else self.query_positions[queries],
            query_groups=None if self.query_groups is None else self.query_groups[queries],
            compatible={name: given.take_queries(queries) for name, given in self.compatible.items()},
        )

    def _require_aligned(self, old: Vectors, new: Vectors, what: str, other: str = "new model") -> None:
        if len(old) == 0:
            raise DataError(f"task {self.name!r} has no {what}; nothing can be measured")
        self._require_count(f"{what} of the {other}", len(new), len(old))
        if not old.ids.equals(new.ids):
            pairs = zip(old.ids.to_pylist(), new.ids.to_pylist(), strict=True)
            row, (a, b) = next((row, pair) for row, pair in enumerate(pairs) if pair[0] != pair[1])
            raise IdMismatch(
                f"task {self.name!r}: {what} differ at row {row}: old id {a!r}, "
                f"{other.removesuffix(' model')} id {b!r}; "
                "pass the same items in the same order"
            )

    def _require_compatible(self, name: str, given: Compatible) -> None:
        self._require_aligned(self.queries_old, given.queries, "queries", name)
        if given.gallery is not None:
            self._require_aligned(self.gallery_old, given.gallery, "gallery items", name)
            what = f"{self.name}: queries of {name}"
            _require_comparable(given.queries.space, given.gallery.space, what)
        require_searchable(name, given, self.gallery_old.space, self.name)

    def _require_count(self, what: str, count: int, expected: int) -> None:
        if count != expected:
            raise DataError(f"task {self.name!r}: {count} {what}, expected {expected}; they must be as many")

    def _require_positions(self) -> None:
        if self.query_positions is not None and int(np.max(self.query_positions)) >= self.n_gallery:
            raise DataError(
                f"task {self.name!r}: a query stands at gallery position {np.max(self.query_positions)}, "
                f"but the gallery has {self.n_gallery} items; count from 0"
            )


def _require_comparable(queries: Space, gallery: Space, what: str) -> None:
    # asymmetric models put one prompt before queries and another before documents
    replace(gallery, prompt="").require_same(replace(queries, prompt=""), what)


def _with_metric(vectors: Vectors, metric: str) -> Vectors:
    return Vectors(vectors.ids, vectors.matrix, vectors.space.with_metric(metric), vectors.columns)
