"""pgvector's types ``vector`` and ``halfvec`` in their binary form: two int16, then the components.

Everything is big-endian, as PostgreSQL sends it. A matrix is read and written without a Python object
per vector, which is what makes the bulk path fast.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DimensionMismatch
from crossfade.stores.pg_sql import Query, identifier, text
from crossfade.vectors import FloatMatrix

COMPONENTS = {"vector": ">f4", "halfvec": ">f2"}
MOST_INDEXED = {"vector": 2000, "halfvec": 4000}
"""Dimensions that pgvector's indexes hold."""
MARK_BYTES = 8
OPERATORS = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}


@dataclass(frozen=True, slots=True)
class VectorType:
    """``vector`` or ``halfvec``, as the extension has defined it in this database.

    Attributes:
        name, schema: the type's name, and where the extension is installed.
        oid: of the type.
    """

    name: str
    schema: str
    oid: int

    def sized(self, dimension: int) -> Query:
        """The type of a column of vectors of this dimension."""
        return text("{name}(" + str(int(dimension)) + ")", name=identifier(self.schema, self.name))

    @property
    def array(self) -> Query:
        """The type of arrays of it."""
        return text("{name}[]", name=identifier(self.schema, self.name))

    def operator(self, metric: str) -> Query:
        """The operator that is a distance in this metric."""
        return text("OPERATOR({schema}." + OPERATORS[metric] + ")", schema=identifier(self.schema))

    def mark(self, vector: Query) -> Query:
        """What `marks` makes of a vector, computed by the server."""
        send = identifier(self.schema, f"{self.name}_send")
        return text("substr(sha256({send}({vector})), 1, " + str(MARK_BYTES) + ")", send=send, vector=vector)

    def encode(self, vectors: FloatMatrix) -> NDArray[Any]:
        """Vectors (n, d) as (n,) records of their binary form."""
        count, dimension = vectors.shape
        layout = [("dimension", ">i2"), ("unused", ">i2"), ("values", COMPONENTS[self.name], (dimension,))]
        records = np.zeros(count, dtype=layout)
        records["dimension"], records["values"] = dimension, vectors
        return records

    def decode(
        self, values: Sequence[bytes | None], dimension: int, what: str
    ) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        """Binary forms as (n, dimension) float32, NaN where null, and which are null.

        Raises:
            DimensionMismatch: a vector is of another length.
        """
        null = np.fromiter((one is None for one in values), dtype=bool, count=len(values))
        present = [one for one in values if one is not None]
        component = np.dtype(COMPONENTS[self.name])
        wrong = next((one for one in present if len(one) != 4 + dimension * component.itemsize), None)
        if wrong is not None:
            raise DimensionMismatch(
                f"{what}: a vector has {struct.unpack('>h', wrong[:2])[0]} dimensions, expected {dimension}; "
                "all vectors of a column must be of one model"
            )
        layout = np.dtype([("head", ">i4"), ("values", component, (dimension,))])
        read = np.frombuffer(b"".join(present), dtype=layout)["values"].astype(np.float32)
        if not null.any():
            return read, null
        matrix = np.full((len(values), dimension), np.nan, dtype=np.float32)
        matrix[~null] = read
        return matrix, null


def vector_array(oid: int, records: NDArray[Any], valid: NDArray[np.bool_]) -> bytes:
    """The binary form of an array of vectors of the type `oid`, null where not `valid`."""
    if valid.all():
        return fixed_array(oid, records)
    vectors = (one.tobytes() if good else None for one, good in zip(records, valid.tolist(), strict=True))
    return bytes_array(oid, list(vectors))


def fixed_array(oid: int, values: NDArray[Any]) -> bytes:
    """The binary form of an array of type `oid` from (n,) values that are in their binary form already."""
    items = np.zeros(len(values), dtype=[("length", ">i4"), ("value", values.dtype)])
    items["length"], items["value"] = values.dtype.itemsize, values
    return _HEAD.pack(1, 0, oid, len(values), 1) + items.tobytes()


def bytes_array(oid: int, values: Sequence[bytes | None]) -> bytes:
    """The same from values of any length, with nulls."""
    parts = [_HEAD.pack(1, int(None in values), oid, len(values), 1)]
    for one in values:
        parts += (_NULL,) if one is None else (_LENGTH.pack(len(one)), one)
    return b"".join(parts)


_HEAD, _LENGTH, _NULL = struct.Struct(">iiIii"), struct.Struct(">i"), b"\xff\xff\xff\xff"


def marks(records: NDArray[Any], valid: NDArray[np.bool_]) -> list[bytes]:
    """What a row that was written is recognised by: the start of its vector's SHA-256, nothing for a null."""
    width, content = records.dtype.itemsize, memoryview(records.tobytes())
    return [
        hashlib.sha256(content[row * width : (row + 1) * width]).digest()[:MARK_BYTES] if good else b""
        for row, good in enumerate(valid.tolist())
    ]
