"""Vectors in a LanceDB table, or in any Lance dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from crossfade.errors import UnreadableFile
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.vectors.table import TableSource, reading

READ_AHEAD_BYTES = 32 << 20
READ_AHEAD_BATCHES = 2


class LanceSource(TableSource):
    """A Lance dataset as of now: rows that others write later are not seen.

    Args:
        dataset: address of the dataset, e.g. ``DIR/table.lance``.
        space, id_column, vector_column: as for `ParquetSource`.

    Raises:
        MissingExtra: pylance is not installed.
        UnreadableFile: no such dataset, or damaged.
        UsageError, UnknownSpace, SpaceMismatch, DimensionMismatch: as for `ParquetSource`.
    """

    def __init__(
        self,
        dataset: str,
        *,
        space: Space | str | None = None,
        id_column: str | None = None,
        vector_column: str | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or dataset
        self._dataset = _open_dataset(dataset, self.name)
        with reading(self.name):
            self.schema, self._rows = self._dataset.schema, self._dataset.count_rows()
        self._settle(space, id_column, vector_column)

    @property
    def version(self) -> int:
        """Version of the dataset that is read."""
        return int(self._dataset.version)

    def _scan(self, columns: tuple[str, ...], rows: int) -> Iterator[pa.RecordBatch]:
        yield from self._dataset.scanner(
            columns=list(columns),
            batch_size=rows,
            scan_in_order=True,
            batch_readahead=READ_AHEAD_BATCHES,
            fragment_readahead=1,
            io_buffer_size=READ_AHEAD_BYTES,
        ).to_batches()


def _open_dataset(address: str, name: str) -> Any:
    lance = load("lance", "lance")
    with reading(name):
        try:
            return lance.dataset(address)
        except ValueError as error:
            if "not found" not in str(error):
                raise
            raise UnreadableFile(f"{name}: no such table; check the folder and the table's name") from None
