"""From Arrow columns to ids and float32 matrices, without copies where there need be none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from crossfade.errors import DataError, DimensionMismatch, InvalidVectors, UsageError
from crossfade.vectors.base import FloatMatrix
from crossfade.vectors.metadata import is_vector_type, vector_columns

ROW_NUMBERS = "@row"
"""Given as the id column: items are numbered by their row."""


def choose_id_column(schema: pa.Schema, chosen: str | None, what: str) -> str:
    """The column named by the caller, else ``id``.

    Raises:
        UsageError: there is no such column.
    """
    name = chosen or "id"
    if name == ROW_NUMBERS or name in schema.names:
        return name
    raise UsageError(
        f"{what}: no column {name!r} for the ids; it has {describe_columns(schema)}; "
        f"name one with --id-column, or number the rows with --id-column {ROW_NUMBERS}"
    )


def choose_vector_column(schema: pa.Schema, chosen: str | None, what: str) -> str:
    """The column named by the caller, else ``vector``, else the only one that holds vectors.

    Raises:
        UsageError: there is no such column, or several could be meant.
    """
    candidates = vector_columns(schema)
    if chosen is None and len(candidates) == 1:
        return candidates[0]
    name = chosen or "vector"
    if name in candidates:
        return name
    problem = f"column {name!r} holds no vectors" if name in schema.names else f"no column {name!r}"
    raise UsageError(f"{what}: {problem}; it has {describe_columns(schema)}; name one with --vector-column")


def require_columns(schema: pa.Schema, names: tuple[str, ...], what: str) -> None:
    """Refuse further columns that are not there."""
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise UsageError(f"{what}: no column {missing[0]!r}; it has {describe_columns(schema)}")


def describe_columns(schema: pa.Schema) -> str:
    """Names and types of the columns, for a message."""
    return ", ".join(f"{field.name!r} ({field.type})" for field in schema) or "no columns"


def to_matrix(column: pa.Array, dimension: int, what: str, first_row: int = 0) -> FloatMatrix:
    """A list column as (n, dimension) float32; a view when it holds float32 already.

    Args:
        first_row: row number of the first value in its file, for messages.

    Raises:
        DimensionMismatch: a vector is of another length.
        InvalidVectors: a vector, or a value in one, is null.
    """
    if not is_vector_type(column.type):
        raise DataError(f"{what}: {column.type} is no list of floating-point numbers; cast the column")
    if column.null_count:
        row = first_row + _first(column.is_null())
        raise InvalidVectors(f"{what}: the vector in row {row} is null; embed the item or leave it out")
    _require_length(column, dimension, what, first_row)
    flat = column.flatten()
    if flat.null_count:
        row = first_row + _first(flat.is_null()) // dimension
        raise InvalidVectors(f"{what}: the vector in row {row} holds a null value; embed the item again")
    values = flat.to_numpy(zero_copy_only=True)
    return to_float32(values.reshape(-1, dimension))


def to_float32(values: np.ndarray) -> FloatMatrix:
    """float16 and float64 become float32; what does not fit becomes infinite and is found by the checks."""
    with np.errstate(over="ignore"):
        matrix: FloatMatrix = np.ascontiguousarray(values, dtype=np.float32)
    return matrix


def to_column(matrix: FloatMatrix) -> pa.FixedSizeListArray:
    """A float32 matrix as a fixed-size-list column that shares its memory."""
    values = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, type=vector_type(matrix.shape[1]))


def vector_type(dimension: int) -> pa.DataType:
    """Fixed-size list of float32; no value in it is null."""
    return pa.list_(pa.field("item", pa.float32(), nullable=False), dimension)


def _require_length(column: pa.Array, dimension: int, what: str, first_row: int) -> None:
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.full(min(len(column), 1), column.type.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
    wrong = np.flatnonzero(lengths != dimension)
    if len(wrong):
        raise DimensionMismatch(
            f"{what}: the vector in row {first_row + int(wrong[0])} has {int(lengths[wrong[0]])} dimensions, "
            f"expected {dimension}; all vectors of a column must be of one model"
        )


def _first(mask: pa.Array) -> int:
    return int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])
