from __future__ import annotations

import numpy as np
import pytest
from planted import NEW, OLD, labelled_upgrade, unit, vectors

from crossfade.datasets.captions import captions_from_table
from crossfade.errors import DataError, DimensionMismatch, IdMismatch, SpaceMismatch, TooFewPairs, UsageError
from crossfade.evaluation import Judgements, Labels, RetrievalTask, labelled_task
from crossfade.spaces import Space
from crossfade.vectors import Vectors


def test_labels_of_any_kind_grade_equal_classes() -> None:
    truth = Labels(["shoe", "hat"], ["hat", "shoe", "shoe"])
    np.testing.assert_array_equal(truth.grades(slice(0, 2)), [[False, True, True], [True, False, False]])
    np.testing.assert_array_equal(truth.take(np.array([1])).grades(slice(0, 1)), [[True, False, False]])
    assert (truth.primary, truth.description, truth.kind) == ("mAP", "class labels", "labels")


def test_judgements_are_graded_and_taken_by_query() -> None:
    truth = Judgements(3, 4, [2, 0, 0, 1], [1, 3, 0, 2], [2, 1, 0, 3])
    expected = [[0, 0, 0, 1], [0, 0, 3, 0], [0, 2, 0, 0]]
    np.testing.assert_array_equal(truth.grades(slice(0, 3)), expected)
    np.testing.assert_array_equal(truth.grades(slice(1, 2)), expected[1:2])
    np.testing.assert_array_equal(
        truth.take(np.array([2, 0])).grades(slice(0, 2)), [expected[2], expected[0]]
    )


def test_equal_captions_count_as_one_and_any_right_caption_is_enough() -> None:
    import pyarrow as pa

    table = pa.table({"id": ["a", "a", "b", "b"], "caption": ["a dog", "a brown dog", "a dog", "a cat"]})
    captions = captions_from_table(table)
    truth = Judgements.from_relevance(captions.image_to_text, captions=True)
    assert (truth.n_queries, truth.n_gallery) == (2, 3)
    np.testing.assert_array_equal(truth.grades(slice(0, 2)), [[1, 1, 0], [1, 0, 1]])
    assert [metric.name for metric in truth.metrics] == ["Recall@1", "Recall@5", "Recall@10"]
    assert truth.metrics[0](
        np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3]]), truth.grades(slice(0, 2))
    ).tolist() == [1, 1]


def test_captions_of_one_image_are_a_group() -> None:
    truth = Judgements(5, 3, [0, 1, 2, 4, 4], [2, 2, 0, 1, 2], captions=True)
    groups = truth.query_groups()
    assert groups is not None
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4
    assert Judgements(5, 3, [0, 1], [2, 2]).query_groups() is None
    assert Labels([1, 1], [1, 1]).query_groups() is None


def test_judgements_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="position 4, but there are 4 gallery items; count from 0"):
        Judgements(3, 4, [0], [4])


def test_the_primary_metric_must_be_measured() -> None:
    with pytest.raises(UsageError, match="'nDCG@10' is not measured here; one of CMC@1, CMC@5, mAP"):
        Labels([1], [1], primary="nDCG@10")


def parts() -> dict[str, object]:
    rng = np.random.default_rng(0)
    old, new = (
        vectors(unit(rng.standard_normal((5, 24))), OLD),
        vectors(unit(rng.standard_normal((5, 32))), NEW),
    )
    return {
        "name": "t",
        "queries_old": old,
        "queries_new": new,
        "gallery_old": old,
        "gallery_new": new,
        "ground_truth": Labels(range(5), range(5)),
    }


def test_other_ids_on_the_new_side_are_refused() -> None:
    values = parts()
    new = values["gallery_new"]
    assert isinstance(new, Vectors)
    values["gallery_new"] = Vectors([0, 1, 2, 4, 3], new.matrix, NEW)
    with pytest.raises(IdMismatch, match="gallery items differ at row 3: old id 3, new id 4"):
        RetrievalTask(**values)  # type: ignore[arg-type]


def test_other_numbers_of_rows_are_refused() -> None:
    with pytest.raises(DataError, match="4 gallery items judged, expected 5"):
        RetrievalTask(**{**parts(), "ground_truth": Labels(range(5), range(4))})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="position 5, but the gallery has 5 items"):
        RetrievalTask(**{**parts(), "query_positions": np.arange(1, 6)})  # type: ignore[arg-type]


def test_queries_and_gallery_of_one_model_share_a_space_up_to_the_prompt() -> None:
    values = parts()
    new = values["queries_new"]
    assert isinstance(new, Vectors)
    asked = Space("new", 32, prompt="query: ")
    RetrievalTask(**{**values, "queries_new": Vectors(new.ids, new.matrix, asked)})  # type: ignore[arg-type]
    other = Vectors(new.ids, new.matrix, Space("newer", 32))
    with pytest.raises(SpaceMismatch, match="t: new queries"):
        RetrievalTask(**{**values, "queries_new": other})  # type: ignore[arg-type]
    with pytest.raises(DimensionMismatch):
        RetrievalTask(**{**values, "queries_old": new})  # type: ignore[arg-type]


def test_another_metric_changes_every_space() -> None:
    task, _ = labelled_upgrade(n=20)
    changed = task.with_metric("l2")
    sides = (changed.queries_old, changed.queries_new, changed.gallery_old, changed.gallery_new)
    assert {side.space.metric for side in sides} == {"l2"}
    assert task.queries_old.space.metric == "cosine"


def test_a_labelled_set_is_split_so_that_no_fitted_item_is_searched() -> None:
    rng = np.random.default_rng(0)
    old, new = vectors(rng.standard_normal((50, 24)), OLD), vectors(rng.standard_normal((50, 32)), NEW)
    task, pairs = labelled_task(old, new, rng.integers(4, size=50), 30, seed=3)
    assert (len(pairs), task.n_queries, task.n_gallery) == (30, 20, 20)
    fitted, searched = {row.tobytes() for row in pairs.X}, {row.tobytes() for row in task.gallery_old.matrix}
    assert not fitted & searched
    assert len(fitted | searched) == 50
    assert (pairs.source, pairs.target) == (OLD, NEW)
    again, _ = labelled_task(old, new, rng.integers(4, size=50), 30, seed=3)
    assert again.gallery_old.ids.equals(task.gallery_old.ids)
    with pytest.raises(TooFewPairs, match="49 pairs of 50 items leave too few"):
        labelled_task(old, new, np.zeros(50), 49)
