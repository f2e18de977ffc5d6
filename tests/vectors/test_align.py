"""Pairing two sources by id."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crossfade.errors import DuplicateIds, IdMismatch, OutOfSpace
from crossfade.spaces import Space
from crossfade.vectors import ParquetVectorWriter, VectorBatch, Vectors, VectorSource, align, open_vectors
from crossfade.vectors.align import _Reordered

NEW = Space("made-up/new", 3)


class InBatchesOf(VectorSource):
    """A source that cuts its batches where it likes."""

    def __init__(self, vectors: Vectors, rows: int) -> None:
        self._vectors, self._rows = vectors, rows
        self.name = vectors.name

    @property
    def space(self) -> Space:
        return self._vectors.space

    def __len__(self) -> int:
        return len(self._vectors)

    def batches(self, rows: int = 8192, columns: tuple[str, ...] = ()) -> Iterator[VectorBatch]:
        return self._vectors.batches(min(rows, self._rows), columns)


@pytest.fixture
def new(vectors: Vectors) -> Vectors:
    return Vectors(vectors.ids, np.arange(300).reshape(100, 3), NEW, name="new")


def same_pairs(old: Vectors, new: Vectors, rows: np.ndarray, read: object) -> None:
    np.testing.assert_array_equal(read.X, old.matrix[rows])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(read.Y, new.matrix[rows])  # type: ignore[attr-defined]


def test_same_order_is_streamed_side_by_side(vectors: Vectors, new: Vectors) -> None:
    pairs = align(InBatchesOf(vectors, 7), InBatchesOf(new, 11))

    assert not isinstance(pairs.old, _Reordered)
    assert (pairs.source, pairs.target, pairs.dimensions) == (vectors.space, NEW, (6, 3))
    assert max(len(x) for x, _ in pairs.batches(rows=5)) <= 5
    same_pairs(vectors, new, np.arange(100), pairs.read())


def test_another_order_is_put_in_order(vectors: Vectors, new: Vectors) -> None:
    rows = np.random.default_rng(0).permutation(100)

    pairs = align(InBatchesOf(vectors, 7), InBatchesOf(new.take(rows), 11))

    assert isinstance(pairs.old, _Reordered)
    same_pairs(vectors, new, rows, pairs.read())
    same_pairs(vectors, new, rows, pairs.read())
    x, _ = next(pairs.batches(rows=4))
    assert len(x) == 4


@pytest.mark.parametrize("sample", [1, 40])
def test_a_sample_is_picked_out_of_a_gallery(vectors: Vectors, new: Vectors, sample: int) -> None:
    rows = np.sort(np.random.default_rng(1).choice(100, sample, replace=False))
    pairs = align(vectors, new.take(rows))
    assert len(pairs) == sample
    same_pairs(vectors, new, rows, pairs.read())


def test_the_aligned_old_vectors_are_a_source(vectors: Vectors, new: Vectors) -> None:
    rows = np.array([5, 3, 99])
    old = align(vectors, new.take(rows)).old
    assert old.read().ids.to_pylist() == ["item-5", "item-3", "item-99"]
    assert old.space == vectors.space


def test_reversed_pairs_swap_sides(vectors: Vectors, new: Vectors) -> None:
    pairs = align(vectors, new).reversed()
    assert (pairs.source, pairs.target) == (NEW, vectors.space)
    np.testing.assert_array_equal(pairs.read().X, new.matrix)


def test_integer_ids(space: Space) -> None:
    old = Vectors(np.arange(50) * 10, np.random.default_rng(0).standard_normal((50, 6)), space)
    new = Vectors([490, 0, 70], np.ones((3, 3)), NEW)
    np.testing.assert_array_equal(align(old, new).read().X, old.matrix[[49, 0, 7]])


def test_missing_ids_are_counted_and_named(vectors: Vectors, new: Vectors) -> None:
    wrong = Vectors(["item-1", "x", "y"], np.ones((3, 3)), NEW, name="new.parquet")
    message = r"2 of 3 ids of new\.parquet are not among the 100 ids of vectors; first ids: 'x', 'y'; pass"
    with pytest.raises(IdMismatch, match=message):
        align(vectors, wrong)


def test_integers_are_not_strings(vectors: Vectors) -> None:
    with pytest.raises(
        IdMismatch, match=r"old\.parquet has ids of type string, new\.parquet of type int64; they"
    ):
        align(
            Vectors(vectors.ids, vectors.matrix, vectors.space, name="old.parquet"),
            Vectors([1, 2], np.ones((2, 3)), NEW, name="new.parquet"),
        )


def test_repeated_ids_are_refused_on_either_side(vectors: Vectors, new: Vectors) -> None:
    twice = new.take(np.array([4, 5, 4]))
    with pytest.raises(DuplicateIds, match=r"new: 1 ids occur more than once; first ids: 'item-4'"):
        align(vectors, twice)
    gallery = vectors.take(np.array([9, 4, 5, 4]))
    with pytest.raises(DuplicateIds, match=r"vectors: 1 ids occur more than once; first ids: 'item-4'"):
        align(gallery, new.take(np.array([4, 5])))


def test_files_are_aligned_without_reading_them_whole(
    tmp_path: Path, vectors: Vectors, new: Vectors, space: Space
) -> None:
    rows = np.random.default_rng(4).permutation(100)[:60]
    for path, source in ((tmp_path / "old.parquet", vectors), (tmp_path / "new.parquet", new.take(rows))):
        with ParquetVectorWriter(path, source.space) as writer:
            for batch in source.batches(rows=13):
                writer.write(batch)

    pairs = align(open_vectors(tmp_path / "old.parquet"), open_vectors(tmp_path / "new.parquet"))

    same_pairs(vectors, new, rows, pairs.read())


def test_the_temporary_file_has_no_name(tmp_path: Path, vectors: Vectors, new: Vectors) -> None:
    pairs = align(vectors, new.take(np.array([5, 3])), spill_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(pairs.read()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
def test_full_disk(vectors: Vectors, new: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("wb", buffering=0))  # noqa: SIM115
    with pytest.raises(OutOfSpace, match="the disk was full"):
        align(vectors, new.take(np.array([5, 3])))
