"""Open vectors wherever they are."""

from __future__ import annotations

from pathlib import Path

from crossfade.errors import UsageError
from crossfade.spaces import Space
from crossfade.vectors.base import VectorSource
from crossfade.vectors.lance import LanceSource
from crossfade.vectors.location import SCHEME, LanceLocation
from crossfade.vectors.numpy_files import NpySource, NpzSource
from crossfade.vectors.parquet import ParquetSource
from crossfade.vectors.writing import ParquetVectorWriter, VectorWriter


def open_vectors(
    location: str | Path,
    *,
    space: Space | str | None = None,
    id_column: str | None = None,
    vector_column: str | None = None,
) -> VectorSource:
    """Open a ``.parquet``, ``.npy`` or ``.npz`` file, a ``.lance`` dataset or ``lancedb://DIR#table.column``.

    Args:
        location: where the vectors are.
        space: their space, or text for `Space.parse`; None where the file records it.
        id_column: column or array of the ids; ``id`` (``ids`` in ``.npz``) unless given; ``@row``
            numbers the rows.
        vector_column: column or array of the vectors; ``vector`` or the only one there is unless given.

    Raises:
        UnreadableFile: no such file or table, cut short, or of another format.
        UsageError: a format or column that is not known.
        UnknownSpace: nothing says which model made the vectors.
        SpaceMismatch: the file says another space than the caller.
        DimensionMismatch: the vectors are of another length than their space.
        MissingExtra: pylance is needed and not installed.
    """
    text = str(location)
    if text.startswith(SCHEME):
        return _open_table(LanceLocation.parse(text), space, id_column, vector_column)
    suffix = Path(text).suffix.lower()
    if suffix in (".parquet", ".pq"):
        return ParquetSource(text, space=space, id_column=id_column, vector_column=vector_column)
    if suffix == ".npz":
        return NpzSource(text, space=space, id_column=id_column, vector_column=vector_column)
    if suffix == ".npy":
        return NpySource(text, space=space, id_column=id_column)
    if suffix == ".lance":
        return LanceSource(text, space=space, id_column=id_column, vector_column=vector_column)
    raise UsageError(
        f"{text!r}: vectors are read from .parquet, .npy, .npz, .lance or lancedb://DIR#table.column; "
        "convert the file to one of these"
    )


def _open_table(
    location: LanceLocation, space: Space | str | None, id_column: str | None, vector_column: str | None
) -> VectorSource:
    if vector_column and location.column and vector_column != location.column:
        raise UsageError(
            f"{location} names the vector column {location.column!r}, the option {vector_column!r}; "
            "name it once"
        )
    column = vector_column or location.column or None
    return LanceSource(
        location.dataset, space=space, id_column=id_column, vector_column=column, name=str(location)
    )


def open_writer(location: str | Path, space: Space) -> VectorWriter:
    """A writer for a new ``.parquet`` file or a new table ``lancedb://DIR#table.column``.

    Raises:
        UsageError: another format, or there is such a file or table already.
        MissingExtra: pylance is needed and not installed.
    """
    text = str(location)
    if text.startswith(SCHEME):
        from crossfade.vectors.lance_writing import LanceVectorWriter

        return LanceVectorWriter(text, space)
    if Path(text).suffix.lower() in (".parquet", ".pq"):
        return ParquetVectorWriter(text, space)
    raise UsageError(
        f"{text!r}: vectors are written to NAME.parquet or lancedb://DIR#table.column; name one of these"
    )
