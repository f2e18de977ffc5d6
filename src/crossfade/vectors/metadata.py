"""Which space a file's vectors live in: written into the Arrow schema, read when it is opened."""

from __future__ import annotations

import json

import pyarrow as pa

from crossfade.errors import DataError, DimensionMismatch, SpaceMismatch, UnknownSpace
from crossfade.spaces import Space

SPACE_KEY = b"crossfade.space"


def record_space(schema: pa.Schema, space: Space, column: str | None = None) -> pa.Schema:
    """The schema with `space` recorded in its metadata.

    Args:
        column: record it with this column, as a table with several vector columns needs; None records
            it for the table, whose only vector column it is about.
    """
    record = {SPACE_KEY: json.dumps(space.to_dict()).encode()}
    if column is None:
        return schema.with_metadata({**(schema.metadata or {}), **record})
    position = schema.get_field_index(column)
    field = schema.field(position)
    return schema.set(position, field.with_metadata({**(field.metadata or {}), **record}))


def recorded_space(schema: pa.Schema, column: str) -> Space | None:
    """The space recorded for the vectors in `column`, or None.

    A record on the column itself comes first: it stays with the column when a table renames it. A
    record on the table counts only where the table has a single vector column.
    """
    text = (schema.field(column).metadata or {}).get(SPACE_KEY)
    if text is None and len(vector_columns(schema)) == 1:
        text = (schema.metadata or {}).get(SPACE_KEY)
    return None if text is None else _parse(text)


def vector_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that hold lists of floating-point numbers."""
    return [field.name for field in schema if is_vector_type(field.type)]


def is_vector_type(column_type: pa.DataType) -> bool:
    """Whether a column of this type can hold vectors."""
    is_list = (
        pa.types.is_fixed_size_list(column_type)
        or pa.types.is_list(column_type)
        or pa.types.is_large_list(column_type)
    )
    return bool(is_list and pa.types.is_floating(column_type.value_type))


def settle_space(recorded: Space | None, given: Space | str | None, dimension: int, what: str) -> Space:
    """The space of `what`, from its own record and from what the caller says.

    Args:
        recorded: what the file says, if it says anything.
        given: a space, or text for `Space.parse`, if the caller says anything.
        dimension: length of the vectors in the file.

    Raises:
        UnknownSpace: neither says anything.
        SpaceMismatch: both do, and differ.
        DimensionMismatch: the vectors are of another length than their space.
    """
    if isinstance(given, str):
        given = Space.parse(given, dimension)
    space = given or recorded
    if space is None:
        raise UnknownSpace(
            f"{what}: nothing says which model made these {dimension}-d vectors; name it with "
            "--space NAME[@REVISION][,metric=cosine|dot|l2][,normalized] (space= in Python)"
        )
    if space.dimension != dimension:
        raise DimensionMismatch(
            f"{what}: the vectors have {dimension} dimensions, their space {space} says {space.dimension}; "
            "correct the space or pass the vectors of that model"
        )
    if recorded is not None and recorded != space:
        raise SpaceMismatch(
            f"{what}: its metadata says {recorded}, the option says {space}; "
            "leave the option out or correct it"
        )
    return space


def _parse(text: bytes) -> Space:
    try:
        return Space.from_dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(f"the recorded space {text[:200]!r} cannot be read: {error}") from None
