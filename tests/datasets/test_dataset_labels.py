"""Class labels as integer codes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from crossfade.datasets.labels import encode_labels, read_labels
from crossfade.errors import DataError, UsageError
from crossfade.spaces import Space
from crossfade.vectors import Vectors


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "a", "b", "c"], ("a", "b", "c")),
        ([10, -2, 10, 30], (-2, 10, 30)),
        (np.array(["b", "a", "b", "c"]), ("a", "b", "c")),
        (pa.array(["b", "a", "b", "c"]).dictionary_encode(), ("a", "b", "c")),
        (pa.chunked_array([["b", "a"], ["b", "c"]]), ("a", "b", "c")),
    ],
)
def test_codes_are_indices_of_the_names_in_order(values: object, names: tuple[object, ...]) -> None:
    labels = encode_labels(values)  # type: ignore[arg-type]
    assert labels.names == names
    assert labels.codes.tolist() == [1, 0, 1, 2]
    assert len(labels) == 4


def test_null_labels_are_counted() -> None:
    with pytest.raises(DataError, match="labels: 2 of 4 labels are null, the first in row 1"):
        encode_labels(["a", None, "b", None])


def test_measurements_are_no_labels() -> None:
    with pytest.raises(DataError, match="double values are no class labels"):
        encode_labels([0.5, 1.5])


def test_no_labels() -> None:
    assert encode_labels([]).names == ()


def test_labels_beside_vectors() -> None:
    source = Vectors(range(3), np.ones((3, 2)), Space("m", 2), {"kind": ["b", "a", "b"]}, name="gallery")
    assert read_labels(source, "kind").codes.tolist() == [1, 0, 1]
    with pytest.raises(UsageError, match=r"gallery: no column 'label'; it has \['kind'\]"):
        read_labels(source)
    spoiled = Vectors(range(2), np.ones((2, 2)), Space("m", 2), {"label": ["a", None]}, name="gallery")
    with pytest.raises(DataError, match="gallery, column 'label': 1 of 2 labels are null"):
        read_labels(spoiled)
