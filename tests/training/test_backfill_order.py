"""FastFill's order on handwritten digits lies above random order; evaluate handles side-information."""

from __future__ import annotations

import pytest
from digit_vectors import SIDE, digits
from test_transformations import QUICK, trained

from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.errors import SpaceMismatch, UsageError
from crossfade.evaluation import backfill_curve, evaluate
from crossfade.evaluation.task import RetrievalTask
from crossfade.spaces import Space
from crossfade.vectors import Vectors


@pytest.mark.parametrize("labels", [False, True], ids=["pairs alone", "labelled"])
def test_fastfill_lies_above_random_order_everywhere(labels: bool) -> None:
    _, held_out = digits()
    curve = backfill_curve(held_out.task(), trained("fastfill", side=False, labels=labels), draws=5)
    uncertain, random = curve.order("uncertainty"), curve.order("random")
    assert uncertain.against_random["mAP"].significantly_better
    pairs = zip(uncertain.values["mAP"][1:-1], random.values["mAP"][1:-1], strict=True)
    assert all(mine.value > other.value for mine, other in pairs)


def test_a_transformation_is_evaluated_like_any_other_map() -> None:
    fitted, held_out = digits()
    result = evaluate(
        [held_out.task()], fitted.pairs(), methods=["ridge"], adapters=[trained("fct")], samples=200
    )
    rows = {row.key: row for row in result.tasks[0].rows}
    assert rows["gallery:fct"].metrics["mAP"].value > rows["gallery:ridge"].metrics["mAP"].value
    assert rows["gallery:fct"].candidate


def test_a_task_without_side_information_cannot_lift_with_an_adapter_that_needs_it() -> None:
    _, held_out = digits()
    task = held_out.task()
    without = RetrievalTask(
        "labels", task.queries_old, task.queries_new, task.gallery_old, task.gallery_new, task.ground_truth
    )
    with pytest.raises(UsageError, match=r"task 'labels': this fct adapter needs the side-information"):
        without.lift_gallery(trained("fct"))
    assert without.lift_gallery(trained("fct", side=False)).shape == (len(held_out.labels), 16)
    other = Vectors(held_out.side.ids, held_out.side.matrix, Space("another", SIDE.dimension))
    with pytest.raises(SpaceMismatch, match="side-information of task 'labels'"):
        RetrievalTask(
            "labels",
            task.queries_old,
            task.queries_new,
            task.gallery_old,
            task.gallery_new,
            task.ground_truth,
            gallery_side=other,
        ).lift_gallery(ForwardTransformation(**{**QUICK, "epochs": 2}).fit_pairs(digits()[0].pairs()))  # type: ignore[arg-type]
