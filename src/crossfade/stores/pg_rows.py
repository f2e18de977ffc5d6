"""Columns of a PostgreSQL table as Arrow arrays, and where ids come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from crossfade.stores.pg_sql import Query, identifier, text
from crossfade.stores.pg_table import Column, Table

_ARROW = {
    "int2": pa.int64(),
    "int4": pa.int64(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "bytea": pa.binary(),
    "_float4": pa.list_(pa.float32()),
    "_float8": pa.list_(pa.float64()),
    "_int8": pa.list_(pa.int64()),
}


@dataclass(frozen=True)
class Field:
    """Something that is selected for each row: its SQL, and how it becomes Arrow."""

    query: Query
    type: pa.DataType
    column: Column | None = None

    def array(self, values: Sequence[Any]) -> pa.Array:
        """The values of some rows."""
        if self.column is None or self.column.vector is None:
            return pa.array(values, type=self.type)
        width = next((len(one) for one in values if one is not None), 4)
        dimension = (width - 4) // (4 if self.column.vector.name == "vector" else 2)
        matrix, null = self.column.vector.decode(values, dimension, self.column.name)
        flat = pa.array(matrix.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, dimension, mask=pa.array(null) if null.any() else None)


def field_of(column: Column) -> Field:
    """A column; what Arrow has no type for comes as text."""
    name = identifier(column.name)
    if column.vector:
        return Field(name, pa.list_(pa.float32()), column)
    if column.type_name in _ARROW:
        return Field(name, _ARROW[column.type_name], column)
    return Field(text("{name}::text", name=name), pa.string(), column)


def id_field(table: Table, chosen: str) -> Field | None:
    """Where ids come from: the column that was chosen, else the key; a key of several columns as text.

    Returns:
        None if the table has no key and none was chosen.
    """
    if chosen:
        return field_of(table.column(chosen))
    if len(table.key) == 1:
        return field_of(table.key[0])
    if table.key:
        return Field(text("ROW({key})::text", key=table.key_columns), pa.string())
    return None


def id_name(table: Table, chosen: str) -> str:
    """The id column's name, for people; empty if there is none."""
    names = [chosen] if chosen else [one.name for one in table.key]
    return names[0] if len(names) == 1 else f"({', '.join(names)})" if names else ""
