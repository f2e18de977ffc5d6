"""Images and captions, both directions, equal captions counted as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.datasets.captions import Captions, captions_from_table, read_captions
from crossfade.datasets.relevance import Relevance
from crossfade.errors import DataError, UnreadableFile, UsageError

ROWS = [("x", "a dog"), ("x", "a dog runs"), ("y", "a cat"), ("y", " a dog "), ("z", "a cat"), ("z", "a cat")]


def table(rows: list[tuple[object, object]]) -> pa.Table:
    return pa.table({"id": [row[0] for row in rows], "caption": [row[1] for row in rows]})


def named(found: Captions, relevance: Relevance, *, images_ask: bool) -> dict[str, set[str]]:
    images, texts = found.image_ids.to_pylist(), found.texts.to_pylist()
    asking, answers = (images, texts) if images_ask else (texts, images)
    assert (relevance.n_queries, relevance.n_gallery) == (len(asking), len(answers))
    right: dict[str, set[str]] = {one: set() for one in asking}
    for query, item in zip(relevance.queries, relevance.items, strict=True):
        assert answers[item] not in right[asking[query]], "a pair counted twice"
        right[asking[query]].add(answers[item])
    return right


def test_equal_captions_are_one_that_is_right_for_several_images() -> None:
    found = captions_from_table(table(ROWS))
    assert named(found, found.text_to_image, images_ask=False) == {
        "a dog": {"x", "y"},
        "a dog runs": {"x"},
        "a cat": {"y", "z"},
    }


def test_images_accept_each_of_their_captions() -> None:
    found = captions_from_table(table(ROWS))
    assert named(found, found.image_to_text, images_ask=True) == {
        "x": {"a dog", "a dog runs"},
        "y": {"a cat", "a dog"},
        "z": {"a cat"},
    }


def test_rows_lead_from_the_table_to_the_texts() -> None:
    found = captions_from_table(table(ROWS))
    texts = found.texts.to_pylist()
    assert [texts[row] for row in found.rows] == [caption.strip() for _, caption in ROWS]
    assert [ROWS[row][1] for row in found.first_rows] == texts


def test_queries_are_in_order() -> None:
    found = captions_from_table(table(ROWS[::-1]))
    for relevance in (found.image_to_text, found.text_to_image):
        assert (np.diff(relevance.queries) >= 0).all()
        assert set(relevance.grades.tolist()) == {1}


def test_one_row_per_image_with_a_list_of_captions() -> None:
    lists = pa.table(
        {"id": ["x", "y", "z"], "caption": [["a dog", "a dog runs"], ["a cat", "a dog"], ["a cat"]]}
    )
    one, other = captions_from_table(lists), captions_from_table(table(ROWS))
    for left, right in ((one.image_to_text, other.image_to_text), (one.text_to_image, other.text_to_image)):
        np.testing.assert_array_equal(left.queries, right.queries)
        np.testing.assert_array_equal(left.items, right.items)


def test_files_and_other_columns(tmp_path: Path) -> None:
    renamed = table(ROWS).rename_columns(["image", "title"]).append_column("more", pa.array(range(6)))
    pq.write_table(renamed, tmp_path / "a.parquet")
    found = read_captions(tmp_path / "a.parquet", image_column="image", caption_column="title")
    assert found.image_ids.to_pylist() == ["x", "y", "z"]
    with pytest.raises(
        UsageError, match=r"no column 'caption' in the captions; they have 'image' \(string\)"
    ):
        read_captions(tmp_path / "a.parquet", image_column="image")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(UnreadableFile, match=r"b\.parquet: cannot be read"):
        read_captions(tmp_path / "b.parquet")


@pytest.mark.parametrize("caption", [None, "", "  \t"])
def test_empty_captions(caption: str | None) -> None:
    rows = [("x", "a dog"), ("y", caption), ("z", caption)]
    with pytest.raises(DataError, match="2 of 3 captions are empty or null, the first is number 1"):
        captions_from_table(table(rows))


@pytest.mark.parametrize("captions", [None, []])
def test_images_without_captions(captions: list[str] | None) -> None:
    lists = pa.table({"id": ["x", "y"], "caption": pa.array([["a dog"], captions], pa.list_(pa.string()))})
    with pytest.raises(DataError, match="1 of 2 images have no caption, the first is 'y'"):
        captions_from_table(lists)


def test_captions_without_images() -> None:
    with pytest.raises(DataError, match="the id in row 1 is null"):
        captions_from_table(table([("x", "a dog"), (None, "a cat")]))


def test_captions_must_be_texts() -> None:
    with pytest.raises(DataError, match="captions are int64; they must be strings"):
        captions_from_table(table([("x", 1)]))
