"""Candidates from a lifted gallery, re-ranked by the new model: measured fairly, priced in the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from planted import labelled_upgrade, result

from crossfade.adapters import make_adapter
from crossfade.evaluation import Evaluation, decide, evaluate
from crossfade.evaluation.crossfit import CrossFit
from crossfade.evaluation.matrix import TaskMatrix
from crossfade.upgrade.quality import Choice, completed, find_row, measured

METHODS = ("procrustes", "ridge")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    task, pairs = labelled_upgrade(n=150)
    return evaluate([task], pairs, methods=METHODS, depths=(5, 20, 150), samples=200)


def test_the_row_is_a_search_of_the_lifted_gallery_re_ranked_item_by_item() -> None:
    task, pairs = labelled_upgrade(n=120)
    adapter = make_adapter("ridge").fit_pairs(pairs)
    matrix = TaskMatrix(task, seed=0)
    matrix.add_baselines(seed=0)
    matrix.add_cascade_by_gallery(CrossFit(("ridge", "ridge"), "ridge"), {"ridge": adapter}, (6,))
    first = task.queries_new.matrix @ adapter.transform(task.gallery_old.matrix).T
    new = task.queries_new.matrix @ task.gallery_new.matrix.T
    np.fill_diagonal(first, -np.inf)
    relevant, seen, right = task.ground_truth.grades(slice(0, 120)), set(), []
    for query in range(120):
        candidates = np.argsort(-first[query], kind="stable")[:6]
        seen |= set(candidates.tolist())
        right.append(relevant[query, candidates[new[query, candidates].argmax()]])
    np.testing.assert_array_equal(matrix.measured["cascade:gallery@6"].values["CMC@1"], right)
    assert matrix.embedded["cascade:gallery@6"] == len(seen)


def test_each_half_is_searched_in_the_gallery_that_the_other_half_chose() -> None:
    task, pairs = labelled_upgrade(n=120)
    maps = {name: make_adapter(name).fit_pairs(pairs) for name in METHODS}

    def searched(*for_fold: str) -> TaskMatrix:
        matrix = TaskMatrix(task, seed=0)
        matrix.add_baselines(seed=0)
        matrix.add_cascade_by_gallery(CrossFit(for_fold, for_fold[0]), maps, (4,))
        return matrix

    mixed = searched("procrustes", "ridge")
    one, other = (searched(name, name).primary("cascade:gallery@4") for name in METHODS)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(mixed.primary("cascade:gallery@4"), np.where(mixed.folds == 0, one, other))


def test_an_evaluation_has_a_row_per_depth_with_interval_and_count(evaluation: Evaluation) -> None:
    (task,) = evaluation.tasks
    rows = [row for row in task.rows if row.strategy == "lifted-cascade"]
    assert [row.key for row in rows] == ["cascade:gallery@5", "cascade:gallery@20"], "150 is all there is"
    for row in rows:
        assert (row.notation, row.first_stage, row.needs) == ("new/h(old)→new", "gallery", ("raw items",))
        assert row.candidate
        assert row.method in METHODS
        assert row.metrics["mAP"].low < row.metrics["mAP"].value < row.metrics["mAP"].high
        assert row.against_old["mAP"].p_adjusted is not None
        assert row.embedded is not None
        assert 0 < row.embedded <= task.n_gallery
        assert "chosen on one half of the queries" in row.note
    assert task.rows[-1].key == "new/new"


def test_a_plan_takes_method_and_depth_from_the_row(evaluation: Evaluation) -> None:
    task = evaluation.tasks[0]
    key = find_row(evaluation, Choice("lifted-cascade", depth=20), mapped=True)
    assert key == "cascade:gallery@20"
    wanted = completed(Choice("lifted-cascade", depth=20), task.row(key))
    assert (wanted.method, wanted.depth, wanted.row) == (task.row(key).method, 20, key)
    (quality,) = measured(evaluation, key)
    assert quality.value == task.row(key).metrics["mAP"].value
    assert find_row(evaluation, Choice("lifted-cascade", depth=7), mapped=True) == ""
    assert find_row(evaluation, Choice("cascade", depth=20, first_stage="query"), mapped=True) == (
        "cascade:query@20"
    )


def test_it_is_dearer_than_any_other_cascade_and_taken_where_it_is_better() -> None:
    equal = result(
        old=0.30, query=0.31, gallery=0.32, cascade20=0.33, cascade100=0.40, lifted20=0.40, new=0.45
    )
    assert decide([equal]).row == "cascade:query@100"
    better = result(
        old=0.30, query=0.31, gallery=0.32, cascade20=0.33, cascade100=0.36, lifted20=0.42, new=0.45
    )
    verdict = decide([better])
    assert (verdict.strategy, verdict.row, verdict.depth, verdict.first_stage) == (
        "lifted-cascade", "cascade:gallery@20", 20, "gallery",
    )  # fmt: skip
    assert verdict.sentence.startswith(
        "Lift the stored gallery forward with a, and let the new model re-rank 20 candidates from it: "
    )
    assert verdict.alternatives[0].row != "cascade:gallery@20", "it needs raw items"


def test_the_verdict_says_what_it_costs_more_and_gains_over_a_cascade_of_the_old_gallery() -> None:
    task = result(old=0.30, gallery=0.32, cascade20=0.33, cascade100=0.36, lifted20=0.42, new=0.45)
    reasons = decide([task]).reasons
    assert (
        "It writes the whole column anew and needs the raw items as well, where a cascade over the old "
        "gallery writes nothing; over the best of those (cascade:query@100) it gains "
        "t +0.060 [+0.045, +0.075]."
    ) in reasons
    cheaper = decide([result(old=0.30, gallery=0.32, cascade100=0.42, lifted20=0.42, new=0.45)])
    assert cheaper.row == "cascade:query@100"
    assert not any("writes the whole column" in one for one in cheaper.reasons)
