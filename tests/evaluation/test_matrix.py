"""Every query is scored with choices that were made without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from planted import labelled_upgrade

from crossfade.adapters import make_adapter
from crossfade.evaluation.crossfit import CrossFit
from crossfade.evaluation.matrix import Interpolation, TaskMatrix
from crossfade.evaluation.run import _choose_interpolation, _choose_method

LOW, HIGH = Interpolation("procrustes", 0.2), Interpolation("ridge", 0.8)


def matrix_with_maps() -> TaskMatrix:
    task, pairs = labelled_upgrade(n=120)
    matrix = TaskMatrix(task, seed=0)
    matrix.add_baselines(seed=0)
    for method in ("procrustes", "ridge"):
        matrix.add_query(method, make_adapter(method).fit_pairs(pairs.reversed()))
    return matrix


def test_each_half_is_interpolated_with_the_choice_of_the_other() -> None:
    matrix = matrix_with_maps()
    matrix.add_interpolation(CrossFit((LOW, HIGH), LOW))
    low, high = matrix.try_interpolation(LOW), matrix.try_interpolation(HIGH)
    assert not np.array_equal(low, high)
    np.testing.assert_array_equal(matrix.primary("interpolate"), np.where(matrix.folds == 0, low, high))
    plan = matrix.plans[-1]
    assert (plan.method, plan.weight) == ("procrustes", 0.2)
    assert "scored with procrustes at weight 0.2 and ridge at weight 0.8" in plan.note


@pytest.mark.parametrize("first_stage", ["query", "interpolate"])
def test_each_half_gets_candidates_by_the_choice_of_the_other(first_stage: str) -> None:
    def measured(for_fold: tuple[Interpolation, Interpolation]) -> tuple[TaskMatrix, np.ndarray]:
        matrix = matrix_with_maps()
        if first_stage == "query":
            matrix.add_cascade_by_query(
                CrossFit((for_fold[0].method, for_fold[1].method), "procrustes"), (5,)
            )
        else:
            matrix.add_cascade_by_interpolation(CrossFit(for_fold, LOW), (5,))
        return matrix, matrix.primary(f"cascade:{first_stage}@5")

    matrix, mixed = measured((LOW, HIGH))
    low, high = measured((LOW, LOW))[1], measured((HIGH, HIGH))[1]
    assert not np.array_equal(low, high)
    np.testing.assert_array_equal(mixed, np.where(matrix.folds == 0, low, high))


@dataclass
class Judged:
    """Stands in for a measured task: the halves of its queries prefer opposite choices."""

    folds: np.ndarray = field(default_factory=lambda: np.array([0, 0, 1, 1, 1]))
    task: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(ground_truth=SimpleNamespace(kind="labels"))
    )

    def primary(self, key: str) -> np.ndarray:
        return (self.folds == (0 if key == "query:a" else 1)).astype(float)

    def try_interpolation(self, choice: Interpolation) -> np.ndarray:
        return (self.folds == (0 if choice.weight < 0.5 else 1)).astype(float)


def test_method_and_weight_are_chosen_on_the_other_half() -> None:
    tasks = [Judged()]
    method = _choose_method(tasks, ["a", "b"], "query")  # type: ignore[arg-type]
    assert (method.for_fold, method.final) == (("b", "a"), "b")
    weights = _choose_interpolation(tasks, method, (0.1, 0.9))  # type: ignore[arg-type]
    assert weights.for_fold == (Interpolation("b", 0.9), Interpolation("a", 0.1))
    assert weights.final == Interpolation("b", 0.9)


def test_label_free_tasks_choose_only_where_nothing_is_judged() -> None:
    free = Judged(folds=np.array([1, 1, 0, 0, 0]))
    free.task.ground_truth.kind = "neighbours"
    assert _choose_method([Judged(), free], ["a", "b"], "query").final == "b"  # type: ignore[list-item]
    assert _choose_method([free], ["a", "b"], "query").final == "a"  # type: ignore[list-item]


def test_a_lifted_gallery_is_searched_with_new_queries() -> None:
    task, pairs = labelled_upgrade(n=120)
    matrix = TaskMatrix(task, seed=0)
    adapter = make_adapter("ridge").fit_pairs(pairs)
    matrix.add_gallery("ridge", adapter)
    scores = task.queries_new.matrix @ adapter.transform(task.gallery_old.matrix).T
    np.fill_diagonal(scores, -np.inf)
    relevant = task.ground_truth.grades(slice(0, 120))
    right = relevant[np.arange(120), scores.argmax(axis=1)]
    np.testing.assert_array_equal(matrix.measured["gallery:ridge"].values["CMC@1"], right)
