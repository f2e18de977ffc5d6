"""Scores, cascades, interpolation and the choices made by cross-fitting."""

from __future__ import annotations

import numpy as np
import pytest
from planted import labelled_upgrade, unit

from crossfade.errors import DimensionMismatch, UsageError
from crossfade.evaluation import slerp
from crossfade.evaluation.crossfit import CrossFit, assign_folds, by_fold, cross_fit
from crossfade.evaluation.measure import Measurer, nearest_neighbours
from crossfade.evaluation.rows import Cascade, RandomOrder, SingleStage, best_first, cascade_keys
from crossfade.evaluation.scoring import Scorer, query_blocks
from crossfade.spaces import Metric

RNG = np.random.default_rng(0)
OWN = np.arange(60)
FIRST = SingleStage(
    "first",
    RNG.standard_normal((60, 6)).astype(np.float32),
    Scorer(RNG.standard_normal((60, 6)).astype(np.float32), "cosine"),
    OWN,
)
SECOND = SingleStage(
    "second",
    RNG.standard_normal((60, 9)).astype(np.float32),
    Scorer(RNG.standard_normal((60, 9)).astype(np.float32), "cosine"),
    OWN,
)
ALL = slice(0, 60)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scores_against_a_loop(metric: Metric) -> None:
    queries = RNG.standard_normal((4, 5)).astype(np.float32)
    gallery = RNG.standard_normal((7, 5)).astype(np.float32)
    gallery[2] = 0

    def one(q: np.ndarray, g: np.ndarray) -> float:
        if metric == "l2":
            return -float(np.sum((q - g) ** 2))
        length = np.linalg.norm(q) * np.linalg.norm(g) if metric == "cosine" else 1
        return float(q @ g / length) if length else 0.0

    expected = [[one(q, g) for g in gallery] for q in queries]
    np.testing.assert_allclose(Scorer(gallery, metric).scores(queries), expected, rtol=1e-4, atol=1e-5)


def test_a_query_never_finds_itself() -> None:
    gallery = unit(RNG.standard_normal((20, 4)))
    row = SingleStage(
        "k", gallery, Scorer(gallery, "cosine"), np.where(np.arange(20) < 15, np.arange(20), -1)
    )
    scores = row.scores(slice(10, 20))
    assert (best_first(scores, 1)[5:, 0] == np.arange(15, 20)).all()
    assert (scores[np.arange(5), np.arange(10, 15)] == -np.inf).all()


def test_blocks_are_bounded_and_cover_every_query() -> None:
    blocks = list(query_blocks(5000, 1_000_000))
    assert max(block.stop - block.start for block in blocks) * 4 * 1_000_000 <= 64 << 20
    assert [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
    assert blocks[-1].stop == 5000
    assert list(query_blocks(3, 10**9)) == [slice(0, 1), slice(1, 2), slice(2, 3)]


# --- cascade ----------------------------------------------------------------------------------


def orders(cascade: Cascade) -> dict[str, np.ndarray]:
    return {key: np.argsort(-scores, axis=1, kind="stable") for key, scores in cascade.blocks(ALL)}


def test_a_cascade_over_the_whole_gallery_equals_new_new() -> None:
    found = orders(Cascade(FIRST, SECOND, {60: "all"}))["all"]
    np.testing.assert_array_equal(found, np.argsort(-SECOND.scores(ALL), axis=1, kind="stable"))


def test_a_cascade_reranks_the_candidates_and_keeps_the_rest_in_order() -> None:
    first, second = FIRST.scores(ALL), SECOND.scores(ALL)
    found = orders(Cascade(FIRST, SECOND, {10: "ten"}))["ten"]
    for row in range(60):
        fetched = np.argsort(-first[row])
        head = sorted(fetched[:10], key=lambda item: -second[row, item])
        assert found[row].tolist() == [*head, *fetched[10:]]
        assert found[row, -1] == row  # itself


def test_embedded_counts_each_item_once() -> None:
    cascade = Cascade(FIRST, SECOND, cascade_keys("query", [5, 3, 5]))
    for rows in (slice(0, 40), slice(40, 60)):
        assert [key for key, _ in cascade.blocks(rows)] == ["cascade:query@3", "cascade:query@5"]
    first = np.argsort(-FIRST.scores(ALL), axis=1)
    assert cascade.embedded() == {
        "cascade:query@3": len(np.unique(first[:, :3])),
        "cascade:query@5": len(np.unique(first[:, :5])),
    }


def test_best_first_sorts_and_keeps_ties_in_order() -> None:
    scores = np.array([[1.0, 3.0, 3.0, 2.0, 3.0]])
    np.testing.assert_array_equal(best_first(scores, 4), [[1, 2, 4, 3]])
    np.testing.assert_array_equal(best_first(scores, 9), [[1, 2, 4, 3, 0]])


def test_chance_level_is_that_of_a_random_order() -> None:
    task, _ = labelled_upgrade(n=600)
    measured = Measurer(task.ground_truth, task.query_positions)(
        RandomOrder("chance", 600, 0, np.arange(600))
    )
    assert measured["chance"].values["CMC@1"].mean() == pytest.approx(1 / 20, abs=0.03)


def test_the_new_model_agrees_with_itself_even_where_its_scores_tie() -> None:
    gallery = unit(np.random.default_rng(1).standard_normal((10, 4))).repeat(8, axis=0)
    row = SingleStage("new/new", gallery, Scorer(gallery, "cosine"), np.arange(80))
    measured = Measurer(nearest_neighbours(row, 80), np.arange(80))(row)
    np.testing.assert_allclose(measured["new/new"].values["agreement@10"], 1)


# --- interpolation ----------------------------------------------------------------------------


def test_slerp_runs_along_the_great_circle() -> None:
    old, mapped = np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)
    for weight in (0, 0.25, 0.5, 1):
        angle = weight * np.pi / 2
        np.testing.assert_allclose(slerp(old, mapped, weight), [[np.cos(angle), np.sin(angle)]], atol=1e-6)


def test_slerp_keeps_unit_length_and_interpolates_others() -> None:
    old, mapped = (
        RNG.standard_normal((30, 8)).astype(np.float32),
        RNG.standard_normal((30, 8)).astype(np.float32),
    )
    np.testing.assert_allclose(np.linalg.norm(slerp(unit(old), unit(mapped), 0.3), axis=1), 1, atol=1e-5)
    expected = 0.7 * np.linalg.norm(old, axis=1) + 0.3 * np.linalg.norm(mapped, axis=1)
    np.testing.assert_allclose(np.linalg.norm(slerp(old, mapped, 0.3), axis=1), expected, rtol=1e-4)


def test_slerp_of_equal_and_opposite_queries_is_finite() -> None:
    old = unit(RNG.standard_normal((5, 8)))
    np.testing.assert_allclose(slerp(old, old, 0.4), old, atol=1e-5)
    assert np.isfinite(slerp(old, -old, 0.4)).all()
    assert np.isfinite(slerp(old, np.zeros_like(old), 0.4)).all()


def test_slerp_refuses_what_does_not_fit() -> None:
    with pytest.raises(DimensionMismatch, match=r"old queries are \(1, 2\), mapped queries \(1, 3\)"):
        slerp(np.ones((1, 2), np.float32), np.ones((1, 3), np.float32), 0.5)
    with pytest.raises(UsageError, match=r"from 0 to 1, got 1\.5"):
        slerp(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), 1.5)


# --- cross-fitting ----------------------------------------------------------------------------


def test_folds_are_halves_and_groups_stay_together() -> None:
    folds = assign_folds(101, seed=0)
    assert sorted(np.bincount(folds)) == [50, 51]
    groups = np.repeat(np.arange(40), 5)
    folds = assign_folds(200, seed=0, groups=groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(40))
    assert np.bincount(folds).tolist() == [100, 100]


def test_a_choice_never_sees_the_queries_it_is_scored_on() -> None:
    rng = np.random.default_rng(0)
    folds = assign_folds(50, seed=1)
    table = {name: rng.random(50) for name in "abcdef"}
    before = cross_fit(list(table), lambda name: [table[name]], [folds])
    for name in "abcdef":  # rewrite history for fold 0 in favour of one choice
        changed = {key: np.where(folds == 0, float(key == name), values) for key, values in table.items()}
        after = cross_fit(list(table), lambda key, changed=changed: [changed[key]], [folds])
        assert after.for_fold[0] == before.for_fold[0]
        assert after.for_fold[1] == name


def test_choosing_among_noise_gains_nothing_on_the_scored_queries() -> None:
    honest, naive = [], []
    for seed in range(60):
        table = np.random.default_rng(seed).random((30, 40))
        folds = assign_folds(40, seed)
        choice = cross_fit(range(30), lambda index, table=table: [table[index]], [folds])
        honest.append(by_fold(choice, lambda index, table=table: table[index], folds).mean())
        naive.append(table[choice.final].mean())
    assert np.mean(honest) == pytest.approx(0.5, abs=0.02)
    assert np.mean(naive) > 0.57


def test_the_choice_is_made_for_all_tasks_together() -> None:
    values = {"a": [np.full(10, 0.9), np.full(1000, 0.1)], "b": [np.full(10, 0.6), np.full(1000, 0.5)]}
    folds = [assign_folds(10, 0), assign_folds(1000, 0)]
    assert cross_fit(["a", "b"], values.__getitem__, folds).final == "b"
    assert cross_fit(["a", "a2"], lambda _: values["a"], folds).final == "a"  # the first of equals


def test_each_query_gets_the_choice_of_the_other_half() -> None:
    folds = np.array([0, 1, 0])
    rows = {"x": np.zeros((3, 2), np.float32), "y": np.ones((3, 2), np.float32)}
    mixed = by_fold(CrossFit(("x", "y"), "x"), rows.__getitem__, folds)
    np.testing.assert_array_equal(mixed, [[0, 0], [1, 1], [0, 0]])
    assert not rows["x"].any()
