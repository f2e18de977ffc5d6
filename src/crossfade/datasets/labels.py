"""Class labels of items, as integer codes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crossfade.errors import DataError
from crossfade.vectors import VectorSource


@dataclass(frozen=True, slots=True)
class ClassLabels:
    """A class for every item.

    Attributes:
        codes: (n,) int64, indices into `names`.
        names: the classes, in order (numbers by value, strings by code point).
    """

    codes: NDArray[np.int64]
    names: tuple[int | str, ...]

    def __len__(self) -> int:
        return len(self.codes)


def read_labels(source: VectorSource, column: str = "label") -> ClassLabels:
    """Labels from a column beside the vectors.

    Raises:
        UsageError: no such column.
        DataError: a label is null, or neither integer, boolean nor string.
    """
    parts = [batch.columns[column] for batch in source.batches(columns=(column,))]
    return encode_labels(pa.chunked_array(parts) if parts else [], what=f"{source.name}, column {column!r}")


def encode_labels(values: Iterable[object], *, what: str = "labels") -> ClassLabels:
    """Integer codes for labels of any one kind: integers, booleans or strings.

    Args:
        values: (n,) labels: a list, an array, an Arrow column.
        what: what they are, for messages.

    Raises:
        DataError: a label is null, or neither integer, boolean nor string.
    """
    column = _to_column(values)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(
            f"{what}: {column.null_count} of {len(column)} labels are null, the first in row {row}; "
            "label these items or leave them out"
        )
    if len(column) and not _is_label_type(column.type):
        raise DataError(f"{what}: {column.type} values are no class labels; use integers or strings")
    names = pc.unique(column)
    names = names.take(pc.array_sort_indices(names)) if len(names) else names
    codes = pc.index_in(column, value_set=names).to_numpy().astype(np.int64)
    return ClassLabels(codes, tuple(names.to_pylist()))


def _to_column(values: Iterable[object]) -> pa.ChunkedArray:
    if isinstance(values, pa.ChunkedArray):
        return values
    return pa.chunked_array([values if isinstance(values, pa.Array) else pa.array(values)])


def _is_label_type(label_type: pa.DataType) -> bool:
    checks = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
    return any(is_type(label_type) for is_type in checks)
