"""Pairs that carry side-information and labels beside the two models' vectors."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.errors import DataError, IdMismatch
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, Vectors, align

OLD, NEW, SIDE = Space("old", 4), Space("new", 3), Space("self-supervised", 2)


def sources(n: int = 40) -> tuple[Vectors, Vectors, Vectors]:
    rng = np.random.default_rng(0)
    ids = [f"item-{row}" for row in range(n)]
    old, new, side = (rng.standard_normal((n, space.dimension)) for space in (OLD, NEW, SIDE))
    return Vectors(ids, old, OLD), Vectors(ids, new, NEW), Vectors(ids, side, SIDE)


def test_side_information_in_another_order_is_brought_into_that_of_the_pairs() -> None:
    old, new, side = sources()
    shuffled = side.take(np.random.default_rng(1).permutation(len(side)))
    pairs = align(old, new.take(np.arange(25, 5, -1)), side=shuffled).read()
    np.testing.assert_array_equal(pairs.S, side.matrix[25:5:-1])
    np.testing.assert_array_equal(pairs.X, old.matrix[25:5:-1])
    assert pairs.side == SIDE
    assert pairs.side_dimension == 2


def test_side_information_of_other_items_is_refused() -> None:
    old, new, side = sources()
    with pytest.raises(IdMismatch, match=r"3 of 40 ids of .* are not among the 37 ids"):
        align(old, new, side=side.take(np.arange(37)))


def test_sources_that_cut_their_batches_differently_stay_in_step() -> None:
    old, new, side = sources()
    pairs = align(old, new, side=side)
    seen = [batch for batch in pairs.full_batches(rows=7)]
    np.testing.assert_array_equal(np.concatenate([batch.side for batch in seen]), side.matrix)
    np.testing.assert_array_equal(np.concatenate([batch.y for batch in seen]), new.matrix)


def test_side_information_of_another_number_of_items_is_refused() -> None:
    old, new, side = sources()
    with pytest.raises(DataError, match="side-information of 39 items, but 40 pairs"):
        ArrayPairs(old.matrix, new.matrix, side=side.matrix[:39])
    with pytest.raises(DataError, match="labels of 41 items, but 40 pairs"):
        ArrayPairs(old.matrix, new.matrix, labels=np.zeros(41, dtype=np.int64))


def test_reversed_pairs_leave_side_information_behind_but_keep_the_classes() -> None:
    old, new, side = sources()
    labels = np.arange(len(old)) % 3
    pairs = ArrayPairs(old.matrix, new.matrix, source=OLD, target=NEW, side=side.matrix, labels=labels)
    back = pairs.reversed().read()
    assert back.side_dimension == 0
    np.testing.assert_array_equal(back.X, new.matrix)
    assert back.labels is not None
    np.testing.assert_array_equal(back.labels, labels)
    taken = pairs.take(np.array([3, 1]))
    np.testing.assert_array_equal(taken.S, side.matrix[[3, 1]])


def test_plain_pairs_have_side_information_without_columns() -> None:
    old, new, _ = sources()
    (batch,) = ArrayPairs(old.matrix, new.matrix).full_batches()
    assert batch.side.shape == (40, 0)
    assert batch.labels is None
