"""Models that claim to search the old gallery directly: their vectors, and the test of the claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DimensionMismatch
from crossfade.evaluation.result import NATIVE, OLD_OLD, RowResult, TaskResult
from crossfade.spaces import Space
from crossfade.vectors import Vectors


@dataclass(frozen=True)
class Compatible:
    """The task's queries, and its gallery, under a model that was trained to be compatible (BCT, XBT).

    Attributes:
        queries: (Q, d_old), row for row the task's queries.
        gallery: (N, d_old), row for row its items; None if they were not embedded.
    """

    queries: Vectors
    gallery: Vectors | None = None

    def take_queries(self, queries: NDArray[np.integer]) -> Compatible:
        """The same model with some of the queries only."""
        return Compatible(self.queries.take(queries), self.gallery)

    def each(self, change: Callable[[Vectors], Vectors]) -> Compatible:
        """Both sets of vectors, changed."""
        return Compatible(change(self.queries), None if self.gallery is None else change(self.gallery))


def require_searchable(name: str, given: Compatible, old: Space, task: str) -> None:
    """Refuse vectors that cannot be compared with the old gallery's, whatever the model claims.

    Raises:
        DimensionMismatch: they are not as long as the old gallery's.
    """
    for vectors, what in ((given.queries, "queries"), (given.gallery, "gallery items")):
        if vectors is not None and vectors.space.dimension != old.dimension:
            raise DimensionMismatch(
                f"task {task!r}: {name} is said to be compatible with {old}, but its {what} have "
                f"{vectors.space.dimension} dimensions; map them with an adapter first (crossfade fit)"
            )


def criterion(tasks: Sequence[TaskResult]) -> list[str]:
    """M(new→old) > M(old→old) on the primary metric, a sentence per task and compatible model.

    The criterion of backward compatibility (Shen et al., CVPR 2020, Section 3.1), for each direction of a
    cross-modal search apart, and by interval beside the means. Nothing is said where nothing was judged.
    """
    return [
        _claim(row, task)
        for task in tasks
        if task.judged
        for row in task.rows
        if row.strategy == NATIVE and row.candidate and row.metrics
    ]


def _claim(row: RowResult, task: TaskResult) -> str:
    metric = task.primary
    before, now, gain = task.row(OLD_OLD).metrics[metric], row.metrics[metric], row.against_old[metric]
    if gain.significantly_better:
        finding = "met"
    elif gain.value > 0:
        finding = "met by the mean, not by its interval or test"
    else:
        finding = "not met"
    span = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]".replace("-", "−")
    return (
        f"M(new→old) > M(old→old), {task.name} {metric}: {row.method} {now.value:.3f} against "
        f"{before.value:.3f}, {span}: {finding}."
    )
