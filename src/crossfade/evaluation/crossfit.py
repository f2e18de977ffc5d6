"""Choices made on one half of the queries and scored on the other (cross-fitting).

A weight or a method that is chosen on the queries it is then scored on looks better than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossfade.evaluation.bootstrap import Groups
from crossfade.vectors import FloatMatrix

Choice = TypeVar("Choice")
FOLDS = 2


@dataclass(frozen=True)
class CrossFit(Generic[Choice]):
    """What was chosen.

    Attributes:
        for_fold: what the queries of fold 0 and 1 are scored with, chosen on the other fold.
        final: chosen on all queries: what a plan carries out.
    """

    for_fold: tuple[Choice, ...]
    final: Choice

    @property
    def unanimous(self) -> bool:
        """Whether every choice came out the same."""
        return all(choice == self.final for choice in self.for_fold)


def assign_folds(n_queries: int, seed: int, groups: NDArray[np.integer] | None = None) -> NDArray[np.intp]:
    """(Q,) fold 0 or 1 of every query, halves of equal size; groups of queries stay together."""
    sizes = Groups(n_queries, groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold = np.empty(len(sizes), dtype=np.intp)
    fold[order] = np.arange(len(sizes)) % FOLDS
    return fold if groups is None else fold[np.unique(groups, return_inverse=True)[1]]


def cross_fit(
    choices: Sequence[Choice],
    values: Callable[[Choice], Sequence[NDArray[np.floating]]],
    folds: Sequence[NDArray[np.integer]],
) -> CrossFit[Choice]:
    """Take the choice of the highest mean over tasks, once per fold without that fold, and once on all.

    Args:
        choices: in order of preference: the first of equally good ones is taken.
        values: per-query values (Q,) of a choice, one array per task.
        folds: (Q,) fold of every query, one array per task.
    """
    measured = {index: values(choice) for index, choice in enumerate(choices)}

    def best(left_out: int | None) -> Choice:
        means = {
            index: _mean(
                [v[f != left_out] if left_out is not None else v for v, f in zip(row, folds, strict=True)]
            )
            for index, row in measured.items()
        }
        return choices[_first_best(means)]

    return CrossFit(tuple(best(fold) for fold in range(FOLDS)), best(None))


def _mean(per_task: Sequence[NDArray[np.floating]]) -> float:
    means = [float(np.mean(values)) for values in per_task if len(values)]
    return float(np.mean(means)) if means else 0.0


def _first_best(means: Mapping[int, float]) -> int:
    return max(means, key=lambda index: (means[index], -index))


def by_fold(
    choice: CrossFit[Choice], make: Callable[[Choice], FloatMatrix], folds: NDArray[np.integer]
) -> FloatMatrix:
    """(Q, ...) rows of `make(choice)`, each query with the choice that was made without it."""
    chosen: FloatMatrix = make(choice.for_fold[0]).copy()
    for fold in range(1, FOLDS):
        mine = folds == fold
        chosen[mine] = make(choice.for_fold[fold])[mine]
    return chosen
