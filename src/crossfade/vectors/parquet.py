"""Vectors in a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.spaces import Space
from crossfade.vectors.table import TableSource, reading

READ_BUFFER_BYTES = 1 << 20


class ParquetSource(TableSource):
    """A Parquet file with an id column and a list column; memory holds one batch, not one row group.

    Args:
        path: the file.
        space: space of the vectors, or text for `Space.parse`; None where the file records it.
        id_column: ``id`` unless given; `ROW_NUMBERS` numbers the rows.
        vector_column: ``vector`` or the only list column unless given.

    Raises:
        UnreadableFile: no such file, cut short, or no Parquet.
        UsageError: no such column.
        UnknownSpace, SpaceMismatch, DimensionMismatch: see `settle_space`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        space: Space | str | None = None,
        id_column: str | None = None,
        vector_column: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        with reading(self.name), self._open() as file:
            self.schema, self._rows = file.schema_arrow, file.metadata.num_rows
        self._settle(space, id_column, vector_column)

    def _open(self) -> pq.ParquetFile:
        # Pre-buffering would hold whole row groups; a buffered stream holds a page of each column.
        return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=READ_BUFFER_BYTES)

    def _scan(self, columns: tuple[str, ...], rows: int) -> Iterator[pa.RecordBatch]:
        with self._open() as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns))
