"""Whole evaluations on planted upgrades, where the right verdict is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from planted import NEW, OLD, labelled_upgrade, text_to_image, unit, unrelated_upgrade, vectors

from crossfade.adapters import make_adapter
from crossfade.errors import DataError, SpaceMismatch, UsageError
from crossfade.evaluation import (
    Evaluation,
    Labels,
    RetrievalTask,
    evaluate,
    label_free_task,
    self_search_task,
)
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs

METHODS = ["procrustes", "ridge"]
KEYS = [
    "old/old", "new/old", "query:procrustes", "query:ridge", "gallery:procrustes", "gallery:ridge",
    "interpolate", "cascade:query@10", "cascade:query@50", "cascade:interpolate@10",
    "cascade:interpolate@50", "cascade:gallery@10", "cascade:gallery@50", "new/new",
]  # fmt: skip


@pytest.fixture(scope="module")
def upgrade() -> Evaluation:
    task, pairs = labelled_upgrade()
    return evaluate([task], pairs, methods=METHODS, depths=(50, 10), samples=300)


def test_the_matrix_has_every_row_in_the_papers_order(upgrade: Evaluation) -> None:
    task = upgrade.tasks[0]
    assert [row.key for row in task.rows] == KEYS
    assert [row.notation for row in task.rows[:5]] == [
        "old/old",
        "new/old",
        "new/old",
        "new/old",
        "new/h(old)",
    ]
    assert (task.metrics, task.primary) == (("CMC@1", "CMC@5", "mAP"), "mAP")
    assert set(upgrade.adapters) == {"query:procrustes", "query:ridge", "gallery:procrustes", "gallery:ridge"}
    assert (upgrade.pairs, upgrade.old, upgrade.new) == (600, OLD, NEW)


def test_a_naive_swap_between_dimensions_is_named_and_has_no_figures(upgrade: Evaluation) -> None:
    naive = upgrade.tasks[0].row("new/old")
    assert naive.note == "not comparable: new queries have 32 dimensions, the old gallery 24"
    assert naive.metrics == {}
    assert upgrade.tasks[0].chance["CMC@1"] == pytest.approx(0.05, abs=0.03)


def test_old_old_and_new_new_equal_what_scikit_learn_measures(upgrade: Evaluation) -> None:
    from sklearn.metrics import average_precision_score

    task, _ = labelled_upgrade()
    assert isinstance(task.ground_truth, Labels)
    relevant = task.ground_truth.grades(slice(0, 400))
    for key, side in (("old/old", task.gallery_old), ("new/new", task.gallery_new)):
        scores = side.matrix @ side.matrix.T
        keep = ~np.eye(400, dtype=bool)
        expected = [average_precision_score(relevant[i][keep[i]], scores[i][keep[i]]) for i in range(400)]
        assert upgrade.tasks[0].row(key).metrics["mAP"].value == pytest.approx(np.mean(expected), abs=1e-4)


def test_a_planted_gain_is_found_and_explained(upgrade: Evaluation) -> None:
    task, verdict = upgrade.tasks[0], upgrade.verdict
    assert verdict.strategy in ("query", "gallery", "interpolate", "cascade", "lifted-cascade")
    assert task.row(verdict.row).against_old["mAP"].significantly_better
    assert "by class labels" in verdict.sentence
    gap = task.row(verdict.row).gap_closed["mAP"]
    gain, whole = task.row(verdict.row).against_old["mAP"].value, task.row("new/new").against_old["mAP"].value
    assert gap == pytest.approx(gain / whole)
    assert gap is not None
    assert gap > 0.3
    assert verdict.remaining["labels"] == task.pairwise("new/new", verdict.row)


def test_flips_explain_the_change_of_cmc_1(upgrade: Evaluation) -> None:
    for row in upgrade.tasks[0].rows:
        if row.metrics:
            assert row.flips is not None
            change = row.flips.positive - row.flips.negative
            assert change == pytest.approx(row.against_old["CMC@1"].value, abs=1e-9)


def test_every_row_is_compared_with_every_other(upgrade: Evaluation) -> None:
    task = upgrade.tasks[0]
    for row in task.rows:
        if row.metrics:
            difference = task.pairwise(row.key, "old/old")
            against = row.against_old["mAP"]
            assert (difference.value, difference.p) == pytest.approx((against.value, against.p))
            assert task.pairwise("old/old", row.key).value == pytest.approx(-difference.value)
            assert (against.p_adjusted is None) != row.candidate
            assert against.p_adjusted is None or against.p_adjusted >= against.p - 0.01


def test_agreement_is_apart_and_complete_only_for_the_new_model(upgrade: Evaluation) -> None:
    agreement = upgrade.tasks[0].agreement
    assert agreement["new/new"].value == 1
    assert agreement["old/old"].value < agreement["cascade:query@50"].value < 1
    assert not any("agreement" in name for row in upgrade.tasks[0].rows for name in row.metrics)


def test_what_a_cascade_embeds_grows_with_its_depth(upgrade: Evaluation) -> None:
    task = upgrade.tasks[0]
    shallow, deep = task.row("cascade:query@10").embedded, task.row("cascade:query@50").embedded
    assert shallow is not None
    assert deep is not None
    assert 10 < shallow < deep <= 400


def test_an_evaluation_survives_json(upgrade: Evaluation) -> None:
    text = json.dumps(upgrade.to_dict(), allow_nan=False)
    again = Evaluation.from_dict(json.loads(text))
    assert again == upgrade
    assert again.adapters == {}
    with pytest.raises(UsageError, match=r"unknown keys \['later'\]; written by a newer version"):
        Evaluation.from_dict({**upgrade.to_dict(), "later": 1})


def test_the_seed_decides_everything(upgrade: Evaluation) -> None:
    task, pairs = labelled_upgrade()
    again = evaluate([task], pairs, methods=METHODS, depths=(50, 10), samples=300)
    assert again.tasks == upgrade.tasks
    assert again.verdict == upgrade.verdict


def test_an_unrelated_new_model_is_not_recommended() -> None:
    for seed in range(3):
        task, pairs = unrelated_upgrade(seed)
        evaluation = evaluate([task], pairs, methods=METHODS, depths=(10,), samples=200)
        assert evaluation.verdict.strategy == "keep", evaluation.verdict.sentence
        assert evaluation.tasks[0].row("new/new").gap_closed["mAP"] is None


def test_the_same_model_again_is_not_an_upgrade() -> None:
    task, _ = labelled_upgrade(n=200)
    same = Space("same", 32)
    old, new = vectors(task.gallery_new.matrix, OLD_32), vectors(task.gallery_new.matrix, same)
    twin = RetrievalTask("labels", old, new, old, new, task.ground_truth, task.query_positions)
    rng = np.random.default_rng(0)
    X = unit(rng.standard_normal((300, 32)))
    evaluation = evaluate(
        [twin], ArrayPairs(X, X, source=OLD_32, target=same), methods=METHODS, depths=(10,), samples=200
    )
    assert evaluation.verdict.strategy == "keep"
    naive = evaluation.tasks[0].row("new/old")
    assert naive.metrics["mAP"].value == evaluation.tasks[0].row("old/old").metrics["mAP"].value
    assert evaluation.tasks[0].row("new/new").against_old["mAP"].p == 1


OLD_32 = Space("twin", 32)


def test_two_directions_are_decided_together_and_captions_counted_by_image() -> None:
    forward, pairs = text_to_image()
    # the way back: images ask, their two captions answer
    n = forward.n_gallery
    from crossfade.evaluation import Judgements

    truth = Judgements(n, 2 * n, np.repeat(np.arange(n), 2), np.arange(2 * n), captions=True)
    back = RetrievalTask(
        "image→text",
        forward.gallery_old,
        forward.gallery_new,
        forward.queries_old,
        forward.queries_new,
        truth,
    )
    evaluation = evaluate([forward, back], pairs, methods=METHODS, depths=(20,), samples=200)
    assert [task.name for task in evaluation.tasks] == ["text→image", "image→text"]
    assert [task.metrics for task in evaluation.tasks] == [("Recall@1", "Recall@5", "Recall@10")] * 2
    rows = [task.row("interpolate") for task in evaluation.tasks]
    assert (rows[0].method, rows[0].weight) == (rows[1].method, rows[1].weight)
    assert set(evaluation.verdict.gain) == {"text→image", "image→text"}
    assert evaluation.verdict.strategy not in ("keep", "backfill")


def test_captions_of_one_image_are_resampled_together_unasked() -> None:
    task, _ = text_to_image(n=60)
    owner, alone = np.repeat(np.arange(60), 2), np.arange(120)
    rows = [
        evaluate([grouped], None, samples=100).tasks[0].row("old/old").metrics
        for grouped in (task, replace(task, query_groups=owner), replace(task, query_groups=alone))
    ]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_other_metrics_run_through(metric: str) -> None:
    task, pairs = labelled_upgrade(n=150)
    source, target = OLD.with_metric(metric), NEW.with_metric(metric)
    evaluation = evaluate(
        [task.with_metric(metric)],
        ArrayPairs(pairs.X, pairs.Y, source=source, target=target),
        methods=["ridge"],
        depths=(20,),
        samples=100,
    )
    result = evaluation.tasks[0]
    assert result.distance == (metric, metric)
    cosine = evaluate([task], pairs, methods=["ridge"], depths=(20,), samples=100).tasks[0]
    # unit vectors: old/old and new/new rank alike whatever the metric
    for key in ("old/old", "new/new"):
        assert result.row(key).metrics["mAP"].value == pytest.approx(
            cosine.row(key).metrics["mAP"].value, abs=1e-3
        )


def test_queries_without_anything_relevant_are_left_out_and_counted() -> None:
    task, pairs = labelled_upgrade(n=100)
    labels = np.arange(100) // 2
    labels[-4:] = [100, 101, 102, 103]
    alone = self_search_task(task.gallery_old, task.gallery_new, labels)
    result = evaluate([alone], pairs, methods=["procrustes"], depths=(10,), samples=50).tasks[0]
    assert (result.n_queries, result.left_out, result.n_gallery) == (96, 4, 100)
    with pytest.raises(DataError, match="nothing in the gallery is relevant to any of its 100 queries"):
        evaluate(
            [self_search_task(task.gallery_old, task.gallery_new, range(100))], pairs, methods=["procrustes"]
        )


def test_label_free_tasks_say_so() -> None:
    task, pairs = labelled_upgrade(n=150)
    free = label_free_task(
        task.queries_old,
        task.queries_new,
        task.gallery_old,
        task.gallery_new,
        query_positions=task.query_positions,
    )
    evaluation = evaluate([free], pairs, methods=["ridge"], depths=(20,), samples=100)
    result = evaluation.tasks[0]
    assert (result.kind, result.metrics, result.judged) == ("neighbours", ("agreement@10",), False)
    assert result.row("new/new").metrics["agreement@10"].value == 1
    assert result.ground_truth == "the new model's own ten nearest neighbours"
    assert not evaluation.verdict.judged


def test_methods_that_cannot_be_fitted_are_listed_with_the_reason() -> None:
    task, pairs = labelled_upgrade(n=100)
    few = ArrayPairs(pairs.X[:20], pairs.Y[:20], source=OLD, target=NEW)
    evaluation = evaluate([task], few, depths=(10,), samples=50)
    assert evaluation.skipped
    for skipped in evaluation.skipped:
        assert "20" in skipped.reason
        assert f"query:{skipped.method}" not in evaluation.adapters or skipped.direction == "forward"


def test_fitted_adapters_can_be_evaluated_without_pairs() -> None:
    task, pairs = labelled_upgrade(n=100)
    lifted = make_adapter("ridge").fit_pairs(pairs)
    evaluation = evaluate([task], None, adapters=[lifted], samples=50)
    cascades = [f"cascade:gallery@{depth}" for depth in (20, 50)]  # 100 is the whole gallery
    keys = ["old/old", "new/old", "gallery:ridge", *cascades, "new/new"]
    assert [row.key for row in evaluation.tasks[0].rows] == keys
    assert evaluation.adapters == {"gallery:ridge": lifted}
    other = make_adapter("procrustes").fit(pairs.X, pairs.Y, source=OLD, target=Space("other", 32))
    with pytest.raises(UsageError, match="the task is about old"):
        evaluate([task], None, adapters=[other])


def test_queries_among_the_pairs_are_counted() -> None:
    task, pairs = labelled_upgrade(n=100)
    X = np.concatenate([pairs.X, task.queries_old.matrix[:30]])
    Y = np.concatenate([pairs.Y, task.queries_new.matrix[:30]])
    leaked = ArrayPairs(X, Y, source=OLD, target=NEW)
    evaluation = evaluate([task], leaked, methods=["procrustes"], depths=(10,), samples=50)
    assert evaluation.tasks[0].queries_in_pairs == 30
    assert any("30 of the 100 queries" in reason for reason in evaluation.verdict.reasons)


def test_progress_reaches_the_end_of_every_stage() -> None:
    task, pairs = labelled_upgrade(n=60)
    seen: dict[str, list[tuple[int, int]]] = {}
    evaluate(
        [task],
        pairs,
        methods=METHODS,
        depths=(10,),
        samples=20,
        progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )
    assert list(seen) == ["fit", "measure", "test"]
    for steps in seen.values():
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1][0] == steps[-1][1]


def test_bad_requests_are_refused_before_anything_is_fitted() -> None:
    task, pairs = labelled_upgrade(n=60)
    with pytest.raises(UsageError, match="pass at least one task"):
        evaluate([], pairs)
    with pytest.raises(UsageError, match="different names, got labels, labels"):
        evaluate([task, task], pairs)
    with pytest.raises(UsageError, match=r"have=.*'raw items'"):
        evaluate([task], pairs, have=["photos"])
    with pytest.raises(UsageError, match="no method is called 'magic'"):
        evaluate([task], pairs, methods=["magic"])
    other = ArrayPairs(pairs.X, pairs.Y, source=Space("older", 24), target=NEW)
    with pytest.raises(SpaceMismatch, match="pairs, old model"):
        evaluate([task], other)
