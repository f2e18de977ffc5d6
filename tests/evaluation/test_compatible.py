"""Models that search the old gallery directly: rows, criterion, verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from planted import OLD, labelled_upgrade, text_to_image, unit, vectors

from crossfade.errors import DimensionMismatch, IdMismatch, UsageError
from crossfade.evaluation import (
    OLD_ENCODER,
    Compatible,
    Evaluation,
    Labels,
    RetrievalTask,
    criterion,
    evaluate,
    slerp,
)
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

BCT = Space("bct", 24)
KEYS = ["old/old", "new/old", "native:bct", "native-old:bct", "native-new:bct", "interpolate:bct", "new/new"]


def better(matrix: FloatMatrix, seed: int = 3, noise: float = 0.35) -> FloatMatrix:
    """The old space, seen more sharply than the old model does."""
    found: FloatMatrix = unit(
        matrix + noise * unit(np.random.default_rng(seed).standard_normal(matrix.shape))
    )
    return found


def classes(task: RetrievalTask) -> np.ndarray:
    assert isinstance(task.ground_truth, Labels)
    return task.ground_truth.gallery_classes


def upgrade(*, noise: float = 0.35, gallery: bool = True) -> RetrievalTask:
    """A search in which the compatible model's vectors are those of classes in the old space, plus noise."""
    task, _ = labelled_upgrade(n=400, noise=0.9)
    labels = classes(task)
    means = np.stack([task.gallery_old.matrix[labels == one].mean(axis=0) for one in labels])
    own = vectors(better(unit(means), noise=noise), BCT)
    return replace(task, compatible={"bct": Compatible(own, own if gallery else None)})


@pytest.fixture(scope="module")
def measured() -> Evaluation:
    return evaluate([upgrade()], None, samples=200)


def test_the_rows_of_a_compatible_model(measured: Evaluation) -> None:
    rows = {row.key: row for row in measured.tasks[0].rows}
    assert list(rows) == KEYS
    notations = [rows[key].notation for key in KEYS[2:6]]
    assert notations == ["new/old", "old/new", "new/new", "old+new/old"]
    assert [rows[key].candidate for key in KEYS[2:6]] == [True, False, False, True]
    assert rows["interpolate:bct"].needs == (OLD_ENCODER,)
    assert {rows[key].method for key in KEYS[2:6]} == {"bct"}
    assert measured.compatible == {"bct": BCT}


def test_the_figures_are_those_of_a_plain_search(measured: Evaluation) -> None:
    task = upgrade()
    own, old = task.compatible["bct"].queries.matrix, task.gallery_old.matrix
    labels = classes(task)
    for key, queries, gallery in (
        ("native:bct", own, old),
        ("native-old:bct", old, own),
        ("native-new:bct", own, own),
    ):
        scores = queries @ gallery.T
        np.fill_diagonal(scores, -np.inf)
        first = (labels[scores.argmax(axis=1)] == labels).mean()
        assert measured.tasks[0].row(key).metrics["CMC@1"].value == pytest.approx(first)


def test_the_interpolated_row_mixes_with_a_weight_chosen_on_the_other_half(measured: Evaluation) -> None:
    task = upgrade()
    row = measured.tasks[0].row("interpolate:bct")
    assert "chosen on one half of the queries" in row.note
    mixed = slerp(task.queries_old.matrix, task.compatible["bct"].queries.matrix, row.weight or 0)
    scores = mixed @ task.gallery_old.matrix.T
    np.fill_diagonal(scores, -np.inf)
    labels = classes(task)
    first = (labels[scores.argmax(axis=1)] == labels).mean()
    assert row.metrics["CMC@1"].value == pytest.approx(first, abs=0.05)


def test_the_criterion_is_stated_and_the_verdict_takes_what_meets_it(measured: Evaluation) -> None:
    verdict = measured.verdict
    assert verdict.strategy in ("native", "interpolate")
    assert verdict.row in ("native:bct", "interpolate:bct")
    (claim,) = criterion(measured.tasks)
    assert claim.startswith("M(new→old) > M(old→old), labels mAP: bct 0.")
    assert claim.endswith("]: met.")
    assert verdict.reasons[0] == claim


def test_a_claim_that_does_not_hold_is_said_so() -> None:
    task = upgrade(noise=50.0)
    found = evaluate([task], None, samples=100)
    (claim,) = criterion(found.tasks)
    assert claim.endswith("]: not met.")
    assert found.verdict.row not in ("native:bct", "interpolate:bct")


def test_without_a_gallery_only_the_old_one_is_searched() -> None:
    found = evaluate([upgrade(gallery=False)], None, samples=100)
    assert [row.key for row in found.tasks[0].rows] == [key for key in KEYS if not key.startswith("native-")]


def test_no_weights_no_interpolation() -> None:
    found = evaluate([upgrade()], None, samples=100, weights=())
    assert "interpolate:bct" not in [row.key for row in found.tasks[0].rows]


def test_a_model_in_one_direction_alone_is_measured_and_never_recommended() -> None:
    forward, _ = text_to_image(n=200)
    sharp = vectors(better(np.repeat(forward.gallery_old.matrix, 2, axis=0), noise=0.2), OLD)
    one = replace(forward, compatible={"xbt": Compatible(sharp)})
    other = replace(forward, name="image→text")
    found = evaluate([one, other], None, samples=100)
    assert found.tasks[0].row("native:xbt").against_old["Recall@1"].significantly_better
    assert found.verdict.row != "native:xbt"
    assert len(criterion(found.tasks)) == 1
    both = evaluate([one, replace(one, name="image→text")], None, samples=100)
    assert both.verdict.row == "native:xbt"
    assert both.verdict.sentence.startswith("Search the old gallery with queries of xbt, as they are")
    assert len(criterion(both.tasks)) == 2


def test_an_evaluation_with_a_compatible_model_survives_json(measured: Evaluation) -> None:
    again = Evaluation.from_dict(json.loads(json.dumps(measured.to_dict(), allow_nan=False)))
    assert again == measured


def test_the_report_names_the_model_and_the_claim(measured: Evaluation) -> None:
    from crossfade.report.markdown import render
    from crossfade.report.page import page
    from crossfade.report.samples import bound

    text = render(page(measured), measured.tasks, measured.verdict.row, bound([]))
    assert "compatible model: bct" in text
    assert "gallery embedded by bct, old queries" in text
    assert "M(new→old) &gt; M(old→old), labels mAP" in text


def test_what_cannot_be_compared_is_refused() -> None:
    task = upgrade()
    short = vectors(np.ones((400, 8)), Space("bct", 8))
    with pytest.raises(DimensionMismatch, match=r"bct is said to be compatible with old .* 8 dimensions"):
        replace(task, compatible={"bct": Compatible(short)})
    own = task.compatible["bct"].queries
    with pytest.raises(IdMismatch, match="queries differ at row 0: old id 0, bct id 399"):
        replace(task, compatible={"bct": Compatible(own.take(np.arange(400)[::-1].copy()))})
    for name in ("ridge", "a:b", ""):
        with pytest.raises(UsageError, match="cannot name a compatible model"):
            evaluate([replace(task, compatible={name: Compatible(own)})], None, samples=50)


def test_taking_queries_takes_the_compatible_model_along() -> None:
    rows = np.array([5, 3])
    taken = upgrade().take_queries(rows)
    assert taken.compatible["bct"].queries.ids.to_pylist() == [5, 3]
    dotted = upgrade().with_metric("dot").compatible["bct"]
    assert dotted.gallery is not None
    assert (dotted.queries.space.metric, dotted.gallery.space.metric) == ("dot", "dot")
