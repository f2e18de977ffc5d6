"""A Python function as an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossfade.encoders import CallableEncoder
from crossfade.errors import DataError, DimensionMismatch, InvalidVectors
from crossfade.spaces import Space


def lengths(items: list[str]) -> list[list[float]]:
    return [[len(item), 1.0] for item in items]


def test_the_function_gets_the_items_in_order() -> None:
    encoder = CallableEncoder(lengths, Space("lengths", 2))
    vectors = encoder.encode(("a", "bcd"))
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1, 1], [3, 1]]
    assert "lengths" in repr(encoder)


def test_no_items() -> None:
    def never(_: Any) -> Any:
        raise AssertionError

    assert CallableEncoder(never, Space("m", 2)).encode([]).shape == (0, 2)


def test_a_normalized_space_gets_unit_vectors() -> None:
    vectors = CallableEncoder(lengths, Space("lengths", 2, normalized=True)).encode(["abc", "a"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors[0, 0] / vectors[0, 1], 3, rtol=1e-6)


def test_another_dimension_names_both() -> None:
    encoder = CallableEncoder(lengths, Space("lengths", 3))
    with pytest.raises(DimensionMismatch, match=r"returned vectors of 2 dimensions, its space .* says 3"):
        encoder.encode(["a"])


@pytest.mark.parametrize("output", [[[1.0, 2.0]], [1.0, 2.0], [[[1.0, 2.0]], [[1.0, 2.0]]]])
def test_one_row_per_item(output: Any) -> None:
    with pytest.raises(DataError, match=r"m returned shape .* for 2 items"):
        CallableEncoder(lambda _: output, Space("m", 2)).encode(["a", "b"])


@pytest.mark.parametrize(("value", "fault"), [(np.nan, "NaN"), (np.inf, "infinite"), (0.0, "zero")])
def test_unusable_vectors_name_the_item(value: float, fault: str) -> None:
    encoder = CallableEncoder(lambda _: [[1.0, 2.0], [value, 0.0]], Space("m", 2))
    with pytest.raises(
        InvalidVectors, match=rf"1 unusable vectors for 2 items, the first for item 1 \({fault}\)"
    ):
        encoder.encode(["a", "b"])
