"""Items on which an evaluation chooses how lifted and re-embedded rows come into one ranking.

They are neither among the task's queries nor in its gallery, and the map was not fitted on them.
"""

from __future__ import annotations

import numpy as np

from crossfade.adapters import Adapter, make_adapter
from crossfade.errors import CrossfadeError
from crossfade.evaluation.mixture import LEAST_ITEMS, HeldOut
from crossfade.evaluation.task import RetrievalTask
from crossfade.vectors import ArrayPairs, FloatMatrix, Pairs

MOST_PAIRS = 2000
SHARE = 5
"""One pair in so many is held out, but at least 400 and at most 2,000."""


def unseen_items(
    task: RetrievalTask,
    adapter: Adapter,
    pairs: Pairs | None,
    *,
    held_out: Pairs | None = None,
    elsewhere: bool = False,
    seed: int = 0,
) -> tuple[HeldOut | None, str]:
    """Items for the choice of a way, or why there are none.

    A map that was fitted on all pairs has seen each of them: the same method, fitted without some, then
    stands in for it, and lifts these.

    Args:
        adapter: the forward map that is measured.
        pairs: old → new, on which it was fitted; None if there were none.
        held_out: items that it was not fitted on, if the caller has some.
        elsewhere: the map was not fitted on `pairs`, but before; it is taken not to have seen them.
        seed: of the draw and the fit.
    """
    if adapter.side_dimension:
        return None, "a plan brings no scores together for a map that takes side-information"
    if not adapter.has_uncertainty:
        return None, f"a partial backfill goes by predicted uncertainty, and {adapter.name} predicts none"
    given = held_out if held_out is not None else pairs
    known = given.read() if given is not None else None
    if known is None:
        return None, "there are no items beside the queries and the gallery"
    rows = _beside(task, known.Y)
    if len(rows) < LEAST_ITEMS:
        return None, (
            f"{len(rows)} items that are neither queries nor in the gallery are too few to choose on; "
            f"at least {LEAST_ITEMS} are needed (--held-out-old, --held-out-new)"
        )
    rng = np.random.default_rng(seed)
    if held_out is not None or elsewhere:
        drawn = known.take(rng.permutation(rows)[:MOST_PAIRS])
        whence = (
            "held-out items"
            if held_out is not None
            else "pairs, which a map fitted before is taken not to have seen"
        )
        return _lifted(adapter, drawn, task, f"{len(drawn):,} {whence}")
    return _by_stand_in(task, adapter, known, rng.permutation(rows), seed)


def _by_stand_in(
    task: RetrievalTask, adapter: Adapter, pairs: ArrayPairs, rows: np.ndarray, seed: int
) -> tuple[HeldOut | None, str]:
    count = min(MOST_PAIRS, max(LEAST_ITEMS, len(pairs) // SHARE), len(rows))
    if len(pairs) < 2 * count:
        return None, (
            f"{len(pairs):,} pairs are too few to leave {LEAST_ITEMS} out of the fit; "
            f"at least {2 * LEAST_ITEMS} are needed, or others (--held-out-old, --held-out-new)"
        )
    fitted = pairs.take(np.setdiff1d(np.arange(len(pairs)), rows[:count]))
    try:
        stand_in = make_adapter(adapter.name, seed=seed, direction="forward").fit_pairs(fitted)
    except CrossfadeError as error:
        return None, f"{adapter.name} cannot be fitted without {count:,} of the pairs ({error})"
    origin = (
        f"{count:,} of the pairs, lifted by a {adapter.name} map that was fitted on the other {len(fitted):,}"
    )
    return _lifted(stand_in, pairs.take(rows[:count]), task, origin)


def _lifted(adapter: Adapter, pairs: ArrayPairs, task: RetrievalTask, origin: str) -> tuple[HeldOut, str]:
    return HeldOut.by(adapter, pairs.X, pairs.Y, task.gallery_new.space.metric, origin), ""


def _beside(task: RetrievalTask, new: FloatMatrix) -> np.ndarray:
    """Rows (m,) of `new` that are neither a query nor an item of the gallery, by their vectors."""
    taken = {row.tobytes() for side in (task.queries_new, task.gallery_new) for row in side.matrix}
    return np.flatnonzero([row.tobytes() not in taken for row in new])
