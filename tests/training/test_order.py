from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from crossfade.errors import DataError, UsageError
from crossfade.training.order import Balanced, Shuffled


def test_an_epoch_has_every_item_once() -> None:
    order = Shuffled(40, 8, seed=3)
    epoch = np.concatenate([order.rows(step) for step in range(order.steps_per_epoch)])
    assert sorted(epoch) == list(range(40))
    later = np.concatenate([order.rows(step) for step in range(5, 10)])
    assert sorted(later) == list(range(40))
    assert list(epoch) != list(later)


def test_a_step_depends_on_seed_and_number_alone() -> None:
    order, other = Shuffled(40, 8, seed=3), Shuffled(40, 8, seed=4)
    first = [order.rows(step) for step in range(12)]
    fresh = Shuffled(40, 8, seed=3)
    assert all(np.array_equal(fresh.rows(step), first[step]) for step in (11, 2, 7))
    assert any(not np.array_equal(other.rows(step), first[step]) for step in range(12))


def test_balanced_batches_have_the_same_number_of_each_of_a_few_classes() -> None:
    codes = np.repeat(np.arange(6), [20, 20, 20, 20, 20, 3])
    order = Balanced(codes, 12, 4, seed=0)
    seen = set()
    for step in range(3 * order.steps_per_epoch):
        counts = Counter(codes[order.rows(step)].tolist())
        assert sorted(counts.values()) == [4, 4, 4]
        seen |= set(counts)
    assert seen == set(range(6))


def test_batches_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(DataError, match=r"5 images are fewer than a batch of 8; add images or --set batch=5"):
        Shuffled(5, 8, seed=0)
    codes = np.repeat(np.arange(2), 20)
    with pytest.raises(UsageError, match=r"needs 4 classes, there are 2"):
        Balanced(codes, 16, 4, seed=0)
    with pytest.raises(
        UsageError, match=r"images_per_class \(5\) must be at least 2 and divide the batch \(16\)"
    ):
        Balanced(codes, 16, 5, seed=0)
