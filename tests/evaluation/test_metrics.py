"""Every metric against an implementation that is not ours."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from sklearn.metrics import average_precision_score, ndcg_score

from crossfade.evaluation.metrics import (
    Agreement,
    AveragePrecision,
    CumulativeMatch,
    NormalizedGain,
    Recall,
    ReciprocalRank,
    RetrievalMetric,
    caption_recall,
)

EVERY = [
    CumulativeMatch(1),
    CumulativeMatch(5),
    AveragePrecision(),
    caption_recall(10),
    NormalizedGain(10),
    Recall(100),
    ReciprocalRank(10),
    Agreement(10),
]


@pytest.fixture
def block() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((40, 300)).astype(np.float32)
    grades = np.where(rng.random((40, 300)) < 0.03, rng.integers(1, 4, (40, 300)), 0).astype(np.float32)
    grades[:, 0] = np.maximum(grades[:, 0], 1)
    return scores, grades


def trec(scores: np.ndarray, grades: np.ndarray, measure: str) -> np.ndarray:
    names = [f"d{i:05d}" for i in range(scores.shape[1])]
    qrels = {f"q{q}": {names[i]: int(grades[q, i]) for i in range(len(names))} for q in range(len(scores))}
    run = {f"q{q}": {names[i]: float(scores[q, i]) for i in range(len(names))} for q in range(len(scores))}
    found = pytrec_eval.RelevanceEvaluator(qrels, {measure}).evaluate(run)
    return np.array([found[f"q{q}"][measure.replace(".", "_")] for q in range(len(scores))])


@pytest.mark.parametrize(
    ("metric", "measure"),
    [
        (AveragePrecision(), "map"),
        (NormalizedGain(10), "ndcg_cut.10"),
        (Recall(100), "recall.100"),
        (CumulativeMatch(1), "success.1"),
        (CumulativeMatch(5), "success.5"),
        (caption_recall(10), "success.10"),
        (Agreement(10), "P.10"),
    ],
)
def test_metric_equals_trec_eval(
    block: tuple[np.ndarray, np.ndarray], metric: RetrievalMetric, measure: str
) -> None:
    scores, grades = block
    expected = trec(scores, grades, measure)
    if isinstance(metric, Agreement):  # trec_eval divides by k even where fewer items are relevant
        expected = expected * 10 / np.minimum((grades > 0).sum(axis=1), 10)
    np.testing.assert_allclose(metric(scores, grades), expected, rtol=1e-6)


def test_reciprocal_rank_is_cut_at_k(block: tuple[np.ndarray, np.ndarray]) -> None:
    scores, grades = block
    expected = trec(scores, grades, "recip_rank")
    expected[expected < 0.1] = 0
    assert (expected == 0).any()
    assert (expected > 0).any()
    np.testing.assert_allclose(ReciprocalRank(10)(scores, grades), expected, rtol=1e-6)


def test_average_precision_equals_scikit_learn(block: tuple[np.ndarray, np.ndarray]) -> None:
    scores, grades = block
    expected = [average_precision_score(g > 0, s) for s, g in zip(scores, grades, strict=True)]
    np.testing.assert_allclose(AveragePrecision()(scores, grades), expected, rtol=1e-6)


def test_ndcg_equals_scikit_learn(block: tuple[np.ndarray, np.ndarray]) -> None:
    scores, grades = block
    expected = [ndcg_score([g], [s], k=10) for s, g in zip(scores, grades, strict=True)]
    np.testing.assert_allclose(NormalizedGain(10)(scores, grades), expected, rtol=1e-6)


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_every_metric_against_a_loop_over_the_sorted_gallery(
    block: tuple[np.ndarray, np.ndarray], metric: RetrievalMetric
) -> None:
    scores, grades = block
    np.testing.assert_allclose(
        metric(scores, grades), [naive(metric, s, g) for s, g in zip(*block, strict=True)]
    )


def naive(metric: RetrievalMetric, scores: np.ndarray, grades: np.ndarray) -> float:
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
    found = [grades[i] for i in ranked]
    hits = [rank for rank, grade in enumerate(found, start=1) if grade > 0]
    if isinstance(metric, CumulativeMatch):
        return float(hits[0] <= metric.k)
    if isinstance(metric, AveragePrecision):
        return sum((i + 1) / rank for i, rank in enumerate(hits)) / len(hits)
    if isinstance(metric, Recall):
        return sum(rank <= metric.k for rank in hits) / len(hits)
    if isinstance(metric, ReciprocalRank):
        return 1 / hits[0] if hits[0] <= metric.k else 0.0
    if isinstance(metric, Agreement):
        return sum(rank <= metric.k for rank in hits) / min(metric.k, len(hits))
    assert isinstance(metric, NormalizedGain)
    ideal = sorted(grades, reverse=True)

    def gain(values: list[float]) -> float:
        return sum(value / np.log2(place + 2) for place, value in enumerate(values[: metric.k]))

    return gain(found) / gain(ideal)


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_model_that_scores_everything_alike_gains_nothing(metric: RetrievalMetric) -> None:
    scores, grades = np.zeros((1, 200), dtype=np.float32), np.zeros((1, 200), dtype=np.float32)
    grades[0, :3] = 1
    least = metric(-np.arange(200, dtype=np.float32)[None, ::-1], grades)  # relevant items last
    np.testing.assert_allclose(metric(scores, grades), least)


def test_graded_items_of_equal_score_stand_in_the_least_favourable_order() -> None:
    scores, grades = np.array([[1.0, 1.0, 0.5]]), np.array([[3.0, 1.0, 0.0]])
    expected = (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))
    np.testing.assert_allclose(NormalizedGain(10)(scores, grades), expected)


def test_duplicates_of_equal_relevance_cost_nothing() -> None:
    scores, grades = np.array([[1.0, 1.0, 0.5]]), np.array([[1.0, 1.0, 0.0]])
    assert AveragePrecision()(scores, grades) == 1
    assert CumulativeMatch(1)(scores, grades) == 1


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_query_without_relevant_items_scores_nothing(metric: RetrievalMetric) -> None:
    scores = np.arange(6, dtype=np.float32).reshape(2, 3)
    grades = np.array([[0, 0, 0], [0, 0, 1]])
    values = metric(scores, grades)
    assert values[0] == 0
    assert values[1] == 1


def test_an_item_at_minus_infinity_is_out_and_nan_counts_as_better() -> None:
    out = np.array([[-np.inf, 0.2, 0.1]])
    assert ReciprocalRank(10)(out, np.array([[0, 1, 0]])) == 1
    nan = np.array([[np.nan, 0.2, 0.1]])
    assert ReciprocalRank(10)(nan, np.array([[0, 1, 0]])) == 0.5


def test_names_are_those_of_the_papers() -> None:
    assert [metric.name for metric in EVERY] == [
        "CMC@1", "CMC@5", "mAP", "Recall@10", "nDCG@10", "Recall@100", "MRR@10", "agreement@10",
    ]  # fmt: skip
