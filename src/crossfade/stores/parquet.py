"""A plain Parquet file: the new file is written beside it and takes its name.

Everything else in the file is copied as it is: columns, their order, metadata, compression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.errors import InvalidVectors
from crossfade.spaces import Space
from crossfade.stores.file_assembly import Form, Vectors
from crossfade.stores.file_content import Content
from crossfade.stores.files import FileStore
from crossfade.stores.parquet_content import ParquetContent
from crossfade.stores.records import Capabilities, IndexInfo, Staged
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.metadata import SPACE_KEY, record_space, recorded_space

GROUP_BYTES = 32 << 20
"""Row groups are as long as in the old file, up to this many bytes of new vectors, in whole batches."""


class ParquetFile(FileStore):
    """A column of vectors in a Parquet file, ``parquet://FILE#column``.

    Raises:
        StoreError: no such file, or it cannot be read.
        UsageError: no such column.
    """

    capabilities = Capabilities(
        beside="file",
        switch="exchange of two file names",
        catches_up=(
            "whole file: a part whose rows differ is written again; who replaces the file last, before the "
            "switch, wins, and no replaced file is lost"
        ),
        cannot=(
            "be searched through an index: every search reads the whole file",
            "wait for writers: one that read the file before the switch and replaces it afterwards undoes "
            "the switch, so let writers pause for the cutover (milliseconds) or look at the file before "
            "they replace it",
            "keep the batches of a part when a row in it is deleted: those after it are embedded again",
            "share pages with the old file: the other columns are copied, too",
            "go on in the middle of a lift: its vectors are written into the new file alone, so one that is "
            "killed starts over (an embedding goes on from its last part)",
        ),
        lacks=("index", "steady batches"),
    )

    def _open_file(self, path: Path, live: Path) -> ParquetContent:
        return ParquetContent(path, self.column, self._chosen_id, self.uri)

    def space(self) -> Space | None:
        content = self._content()
        assert isinstance(content, ParquetContent)
        return super().space() or recorded_space(content.schema, self.column)

    def stored(self, vectors: FloatMatrix, staged: Staged) -> FloatMatrix:
        return self._form(self._content(self.columns_of(staged)[0]), staged)(vectors)

    def _form(self, content: Content, staged: Staged) -> Form:
        """Vectors of a column of half precision are rounded."""
        assert isinstance(content, ParquetContent)
        half = pa.types.is_float16(content.schema.field(self.column).type.value_type)
        return _rounded if half else super()._form(content, staged)

    def _write_file(
        self,
        target: Path,
        content: Content,
        vectors: Vectors,
        staged: Staged,
        like: IndexInfo | None,
    ) -> None:
        assert isinstance(content, ParquetContent)
        field = _vector_field(content.schema.field(self.column), staged.new)
        rows = self._rows_at_once(content, staged.new)
        with closing(vectors()) as batches:
            self._replaced(target, content, _in_step(content.twin(), batches, field, rows))

    def _rows_at_once(self, content: ParquetContent, new: Space) -> int:
        groups = content.file.metadata
        longest = max([groups.row_group(one).num_rows for one in range(groups.num_row_groups)] or [1])
        most = GROUP_BYTES // (4 * new.dimension)
        return max(1, min(int(longest), most // BATCH_ROWS * BATCH_ROWS or most))

    def _replaced(self, target: Path, content: ParquetContent, groups: Iterator[pa.Table]) -> None:
        """Write row groups with the settings of `content`'s file."""
        first = next(groups, None)
        schema = first.schema if first is not None else content.schema
        with (
            self._versions.draft(target, self.uri, content.rows) as draft,
            pq.ParquetWriter(draft, schema, **_settings(content, self.column)) as writer,
        ):
            for group in chain([first] if first is not None else [], groups):
                writer.write_table(group, row_group_size=max(1, len(group)))

    def _give_rows_back(self, staged: Staged) -> None:
        """Write the old file again from the one in use, if that was replaced since the switch.

        Rows that only the new file has come without an old vector; those that it has no longer go.
        """
        live, old = self._content(), self._content(staged.previous)
        assert isinstance(live, ParquetContent)
        assert isinstance(old, ParquetContent)
        if _same_payload(live, old):
            return
        rows = self._rows_at_once(old, staged.old)
        batches = _with_vectors_of(live, old, old.schema.field(self.column), rows)
        self._replaced(self._versions.place(staged.previous), old, batches)


def _rounded(vectors: FloatMatrix) -> FloatMatrix:
    return vectors.astype(np.float16).astype(np.float32)


def _same_payload(one: ParquetContent, other: ParquetContent) -> bool:
    """Whether two versions have the same rows but for their vectors."""
    names = tuple(dict.fromkeys([one.id_column, *one.payload]))
    if one.rows != other.rows or one.payload != other.payload:
        return False
    both = zip(one.record_batches(names, 8192), other.record_batches(names, 8192), strict=True)
    return all(left.equals(right) for left, right in both)


def _in_step(
    content: ParquetContent, vectors: Iterator[FloatMatrix], field: pa.Field, rows: int
) -> Iterator[pa.Table]:
    """All columns of the file, with the new vectors in place of the old ones, a row group at a time."""
    held: FloatMatrix | None = None
    for batch in content.record_batches(_others(content, field), rows):
        pieces, wanted = list[FloatMatrix](), len(batch)
        while wanted:
            held = next(vectors) if held is None or not len(held) else held
            pieces.append(held[:wanted])
            held = held[wanted:]
            wanted -= len(pieces[-1])
        yield _with_column(batch, content.schema, field, pieces)


def _with_vectors_of(
    content: ParquetContent, other: ParquetContent, field: pa.Field, rows: int
) -> Iterator[pa.Table]:
    """All columns of one version with the vectors of another, a row group at a time."""
    start = 0
    for batch in content.record_batches(_others(content, field), rows):
        vectors, _ = other.vectors_of(_ids(content, batch), start)
        yield _with_column(batch, content.schema, field.with_nullable(True), [vectors])
        start += len(batch)


def _ids(content: ParquetContent, batch: pa.RecordBatch) -> pa.Array:
    return batch.column(content.id_column).cast(content.id_type)


def _others(content: ParquetContent, field: pa.Field) -> tuple[str, ...]:
    return tuple(one for one in content.schema.names if one != field.name)


def _with_column(
    batch: pa.RecordBatch, schema: pa.Schema, field: pa.Field, vectors: Sequence[FloatMatrix]
) -> pa.Table:
    """The columns of `schema`, of which `batch` has all but the vectors; these come in pieces."""
    column = pa.chunked_array([_to_column(piece, field.type) for piece in vectors], type=field.type)
    if column.null_count and not field.nullable:
        raise InvalidVectors(
            f"column {field.name!r} is declared to hold no nulls, and {column.null_count} rows would have no "
            "vector; correct these rows, or write the file with a column that may hold nulls"
        )
    columns = [column if one == field.name else batch.column(one) for one in schema.names]
    fields = _without_old_space(schema.set(schema.get_field_index(field.name), field))
    return pa.Table.from_arrays(columns, schema=fields)


def _without_old_space(schema: pa.Schema) -> pa.Schema:
    """A space recorded for the table would be that of the old vectors; the column carries its own."""
    kept = {key: value for key, value in (schema.metadata or {}).items() if key != SPACE_KEY}
    return schema.with_metadata(kept or None)


def _to_column(vectors: FloatMatrix, column_type: pa.DataType) -> pa.Array:
    """Vectors as a column of the old one's kind; NaN becomes null."""
    null = np.isnan(vectors[:, 0]) if len(vectors) else np.zeros(0, bool)
    width = vectors.shape[1]
    if null.any():
        vectors = np.where(null[:, None], np.float32(0), vectors)
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1)).cast(column_type.value_type)
    mask = pa.array(null) if null.any() else None
    if pa.types.is_fixed_size_list(column_type):
        return pa.FixedSizeListArray.from_arrays(values, type=column_type, mask=mask)
    offsets = pa.array(np.arange(0, (len(vectors) + 1) * width, width), type=_offset_type(column_type))
    kind = pa.LargeListArray if pa.types.is_large_list(column_type) else pa.ListArray
    return kind.from_arrays(offsets, values, type=column_type, mask=mask)


def _offset_type(column_type: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_large_list(column_type) else pa.int32()


def _vector_field(old: pa.Field, new: Space) -> pa.Field:
    """The old field for vectors of the new space."""
    column_type = old.type
    if pa.types.is_fixed_size_list(column_type):
        column_type = pa.list_(column_type.value_field, new.dimension)
    field = old.with_type(column_type)
    recorded = record_space(pa.schema([field]), new, field.name).field(0)
    return recorded


def _settings(content: ParquetContent, column: str) -> dict[str, Any]:
    """Compression of each column as it was.

    Vectors neither shrink nor repeat, so they have no dictionary, and nobody looks for the smallest and the
    largest of their numbers, so they have no statistics.
    """
    meta = content.file.metadata
    codecs, dictionary, others = {}, [], []
    for number in range(meta.num_columns if meta.num_row_groups else 0):
        chunk = meta.row_group(0).column(number)
        codecs[chunk.path_in_schema] = "none" if chunk.compression == "UNCOMPRESSED" else chunk.compression
        if chunk.path_in_schema.partition(".")[0] != column:
            others.append(chunk.path_in_schema)
            if chunk.has_dictionary_page:
                dictionary.append(chunk.path_in_schema)
    kept = {"use_dictionary": dictionary, "write_statistics": others}
    return {"compression": codecs or "snappy", **kept, "version": "2.6"}
