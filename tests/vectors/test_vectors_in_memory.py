"""Vectors and pairs in memory."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.errors import DataError, DimensionMismatch, UsageError
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, Vectors


def test_float32_is_not_copied(space: Space) -> None:
    matrix = np.ones((4, 6), dtype=np.float32)
    assert np.shares_memory(Vectors(range(4), matrix, space).matrix, matrix)


def test_values_beyond_float32_become_infinite_without_a_warning(space: Space) -> None:
    assert np.isinf(Vectors(range(1), np.full((1, 6), 1e300), space).matrix).all()


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6)])
def test_no_matrix(space: Space, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="must be a matrix"):
        Vectors(range(shape[0]), np.ones(shape), space)


def test_dimension_of_the_space(space: Space) -> None:
    with pytest.raises(DimensionMismatch, match=r"vectors have 5 dimensions, their space .* says 6"):
        Vectors(range(2), np.ones((2, 5)), space)


def test_as_many_ids_and_values_as_vectors(space: Space) -> None:
    with pytest.raises(DataError, match="2 vectors but 3 values in 'ids'"):
        Vectors(range(3), np.ones((2, 6)), space)
    with pytest.raises(DataError, match="2 vectors but 1 values in 'label'"):
        Vectors(range(2), np.ones((2, 6)), space, {"label": ["a"]})


def test_take_keeps_ids_vectors_and_columns_together(vectors: Vectors) -> None:
    taken = vectors.take(np.array([8, 2]))
    assert taken.ids.to_pylist() == ["item-8", "item-2"]
    assert taken.columns["label"].to_pylist() == ["class 1", "class 2"]
    np.testing.assert_array_equal(taken.matrix, vectors.matrix[[8, 2]])


def test_no_such_column(vectors: Vectors) -> None:
    with pytest.raises(UsageError, match=r"no column 'caption'; it has \['label'\]"):
        vectors.read(columns=("caption",))


def test_pairs_must_be_as_many() -> None:
    with pytest.raises(DataError, match="2 source vectors but 3 target vectors"):
        ArrayPairs(np.ones((2, 4)), np.ones((3, 5)))
