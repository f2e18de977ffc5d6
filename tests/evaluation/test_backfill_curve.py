"""Quality against the share of the gallery that was embedded again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.ridge import Ridge
from crossfade.errors import IdMismatch, UsageError
from crossfade.evaluation import (
    BackfillCurve,
    BackfillOrder,
    Difference,
    Estimate,
    Evaluation,
    backfill_curve,
    evaluate,
    labelled_task,
)
from crossfade.evaluation.task import RetrievalTask
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, Vectors

SHARES = (0.0, 0.25, 0.5, 1.0)


def planted(metric: str = "l2") -> tuple[RetrievalTask, ArrayPairs]:
    """An old model that blurs every seventh item, which are also those far from the centre."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 5
    new = 2 * rng.standard_normal((5, 8))[labels] + 0.6 * rng.standard_normal((400, 8))
    blur = 0.3 + 4.0 * (np.arange(400) % 7 == 0)
    old = np.linalg.qr(rng.standard_normal((8, 8)))[0] @ new.T + blur * rng.standard_normal((8, 400))
    old = old.T
    spaces = Space("old", 8, metric=metric), Space("new", 8, metric=metric)  # type: ignore[arg-type]
    ids = np.arange(400)
    return labelled_task(
        Vectors(ids, old, spaces[0]), Vectors(ids, new, spaces[1]), labels, 200, primary="mAP"
    )


def naive(task: RetrievalTask, gallery: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """CMC@1 and mAP of new queries on a gallery, item by item."""
    found: dict[str, list[float]] = {"CMC@1": [], "mAP": []}
    queries = task.queries_new.matrix.astype(np.float64)
    if task.gallery_new.space.metric == "cosine":
        queries, gallery = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (queries, gallery))
    for row, query in enumerate(queries):
        order = np.argsort(np.square(gallery - query).sum(axis=1))
        right = classes[order[order != row]] == classes[row]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        found["CMC@1"].append(float(right[0]))
        found["mAP"].append(float(precision[right].mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_point_of_the_curve_is_a_search_of_the_mixed_gallery(metric: str) -> None:
    task, pairs = planted(metric)
    adapter = Ridge().fit_pairs(pairs)
    curve = backfill_curve(task, adapter, shares=SHARES)
    classes = task.ground_truth.gallery_classes  # type: ignore[attr-defined]
    order = np.argsort(-adapter.uncertainty(task.gallery_old.matrix), kind="stable")
    for place, share in enumerate(SHARES):
        gallery = adapter.transform(task.gallery_old.matrix).astype(np.float64)
        turn = order[: round(share * len(order))]
        gallery[turn] = task.gallery_new.matrix[turn]
        for name, value in naive(task, gallery, classes).items():
            assert curve.order("uncertainty").values[name][place].value == pytest.approx(value, abs=1e-6)


def test_the_oracle_begins_with_the_largest_error_and_lies_above_random() -> None:
    task, pairs = planted()
    curve = backfill_curve(task, Ridge().fit_pairs(pairs))
    oracle, random = curve.order("oracle"), curve.order("random")
    assert oracle.against_random["mAP"].significantly_better
    assert random.against_random == {}
    values = [estimate.value for estimate in random.values["mAP"]]
    widths = np.diff(curve.shares)
    assert random.area["mAP"].value == pytest.approx(
        np.sum(widths * (np.array(values[1:]) + values[:-1]) / 2)
    )
    for order in curve.orders:  # all begin with the lifted gallery and end with the new one
        for end in (0, -1):
            value = order.values["mAP"][end].value
            assert value == pytest.approx(random.values["mAP"][end].value)


def test_distance_to_the_class_mean_needs_classes_and_uncertainty_a_method_that_has_it() -> None:
    task, pairs = planted()
    curve = backfill_curve(task, Procrustes().fit_pairs(pairs), shares=SHARES, draws=1)
    assert [order.name for order in curve.orders] == ["random", "distance to class mean", "oracle"]
    with pytest.raises(UsageError, match="in the order 'uncertainty' was measured: procrustes predicts none"):
        curve.order("uncertainty")


def drawn(*values: float) -> BackfillCurve:
    """A curve through the given values, at equal distances."""
    none = Difference(0.0, 0.0, 0.0, 1.0)
    order = BackfillOrder(
        "uncertainty",
        {"mAP": tuple(Estimate(value, value, value) for value in values)},
        {"mAP": (none,) * len(values)},
        {"mAP": Estimate(0.5, 0.5, 0.5)},
    )
    shares = tuple(np.linspace(0, 1, len(values)).tolist())
    return BackfillCurve("labels", "fastfill", ("mAP",), "mAP", shares, 100, {"mAP": 0.1}, (order,))


def test_share_for_a_quality_is_read_off_the_curve() -> None:
    curve = drawn(0.2, 0.3, 0.4, 0.39, 0.5)
    assert curve.share_for(0.7) == pytest.approx(0.375)  # 0.35 of 0.5
    assert curve.share_for(0.3) == 0
    assert curve.share_for(0.9) == pytest.approx(0.75 + 0.25 * 0.06 / 0.11)
    assert curve.share_for(1.0) == pytest.approx(1)
    assert drawn(0.5, 0.6, 0.4).share_for(1.0) == 0
    with pytest.raises(UsageError, match=r"between 0 and 1, got 98"):
        curve.share_for(98)


def test_shares_must_rise_from_nothing_to_everything() -> None:
    task, pairs = planted()
    with pytest.raises(UsageError, match=r"rise from 0 to 1, got \(0.1, 1.0\)"):
        backfill_curve(task, Ridge().fit_pairs(pairs), shares=(0.1, 1.0))


def test_an_evaluation_carries_its_curve_through_json() -> None:
    task, pairs = planted()
    evaluation = evaluate([task], pairs, methods=["procrustes", "ridge"], samples=200, curves=True)
    (curve,) = evaluation.curves
    assert curve.method == "ridge"  # procrustes predicts no uncertainty
    again = Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict())))
    assert again.curves == evaluation.curves
    assert isinstance(again.curves[0], BackfillCurve)
    plain = evaluate([task], pairs, methods=["procrustes"], samples=200)
    assert "curves" not in plain.to_dict()
    first, _ = curve.at(0.0)
    assert first.value == pytest.approx(evaluation.tasks[0].row("gallery:ridge").metrics["mAP"].value)


def test_side_information_of_another_order_is_refused() -> None:
    task, _ = planted()
    side = Vectors(task.gallery_old.ids, task.gallery_new.matrix, Space("side", 8))
    shuffled = side.take(np.arange(len(side))[::-1])
    with pytest.raises(IdMismatch, match=r"old id .*, side-information id"):
        RetrievalTask(
            "labels",
            task.queries_old,
            task.queries_new,
            task.gallery_old,
            task.gallery_new,
            task.ground_truth,
            gallery_side=shuffled,
        )
