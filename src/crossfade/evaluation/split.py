"""Tasks from what people have: a labelled set, judged text, image-caption pairs, or no labels at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossfade.errors import TooFewPairs
from crossfade.evaluation.ground_truth import Labels
from crossfade.evaluation.measure import nearest_neighbours
from crossfade.evaluation.rows import SingleStage
from crossfade.evaluation.scoring import Scorer
from crossfade.evaluation.task import RetrievalTask
from crossfade.vectors import ArrayPairs, Vectors


def labelled_task(
    old: Vectors,
    new: Vectors,
    labels: ArrayLike,
    n_pairs: int,
    *,
    seed: int = 0,
    name: str = "labels",
    primary: str | None = None,
    side: Vectors | None = None,
) -> tuple[RetrievalTask, ArrayPairs]:
    """Split one labelled set into pairs to fit on and held-out items to search.

    The held-out items are both queries and gallery, each query taken out of the gallery (the papers'
    protocol). Items that a map was fitted on are not in the gallery: lifted vectors of those would
    lie closer to the new model's than any others will, and flatter every forward map.

    Args:
        old, new: (n, d) the same items, row for row.
        labels: (n,) classes.
        n_pairs: items to fit on, drawn at random.
        seed: of the draw.
        side: (n, d_side) side-information of the same items, row for row.

    Raises:
        TooFewPairs: fewer than two items would be left to search.
        IdMismatch, DataError: old and new are not the same items.
    """
    if not 0 < n_pairs <= len(old) - 2:
        raise TooFewPairs(
            f"{n_pairs} pairs of {len(old)} items leave too few to search; "
            f"fit on 1 to {len(old) - 2} of them, or bring more items"
        )
    order = np.random.default_rng(seed).permutation(len(old))
    fitted, held_out = np.sort(order[:n_pairs]), np.sort(order[n_pairs:])
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    task = self_search_task(
        old.take(held_out),
        new.take(held_out),
        np.asarray(labels)[held_out],
        name=name,
        primary=primary,
        side=None if side is None else side.take(held_out),
    )
    return task, pairs_of(old, new, fitted, side=side, labels=codes)


def self_search_task(
    old: Vectors,
    new: Vectors,
    labels: ArrayLike,
    *,
    name: str = "labels",
    primary: str | None = None,
    side: Vectors | None = None,
) -> RetrievalTask:
    """Labelled items that are both queries and gallery, each query taken out of the gallery."""
    truth = Labels(labels, labels, primary=primary)
    positions = np.arange(len(old))
    return RetrievalTask(name, old, new, old, new, truth, query_positions=positions, gallery_side=side)


def label_free_task(
    queries_old: Vectors,
    queries_new: Vectors,
    gallery_old: Vectors,
    gallery_new: Vectors,
    *,
    query_positions: NDArray[np.integer] | None = None,
    name: str = "agreement with the new model",
) -> RetrievalTask:
    """A task without labels: the new model's own neighbours stand in for relevance.

    It tells how closely each row imitates the new model, never whether search gets better.
    """
    new = Scorer(gallery_new.matrix, gallery_new.space.metric)
    truth = nearest_neighbours(SingleStage("", queries_new.matrix, new, query_positions), len(gallery_new))
    return RetrievalTask(
        name, queries_old, queries_new, gallery_old, gallery_new, truth, query_positions=query_positions
    )


def pairs_of(
    old: Vectors,
    new: Vectors,
    rows: NDArray[np.integer] | None = None,
    *,
    side: Vectors | None = None,
    labels: NDArray[np.integer] | None = None,
) -> ArrayPairs:
    """The given rows of two aligned sets as pairs old → new; all rows by default.

    Args:
        side: side-information of the same items, row for row.
        labels: (n,) class codes of all items.
    """
    chosen = np.arange(len(old)) if rows is None else rows
    return ArrayPairs(
        old.matrix[chosen],
        new.matrix[chosen],
        source=old.space,
        target=new.space,
        side=None if side is None else side.matrix[chosen],
        side_space=None if side is None else side.space,
        labels=None if labels is None else labels[chosen],
    )
