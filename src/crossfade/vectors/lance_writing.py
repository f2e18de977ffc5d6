"""Write vectors as a new LanceDB table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossfade.errors import UsageError
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.vectors.base import VectorBatch
from crossfade.vectors.channel import Consumer
from crossfade.vectors.location import LanceLocation
from crossfade.vectors.writing import (
    VectorWriter,
    empty_record_batch,
    full_disk_as_error,
    sync,
    to_record_batch,
)


class LanceVectorWriter(VectorWriter):
    """A new table of ids, float32 vectors and the batches' further columns; the space in its metadata.

    The table exists when the writer commits, in one step, and not before.

    Args:
        location: ``lancedb://DIR#table.column``; the column is ``vector`` unless named.
        space: space of the vectors.
        id_column: name of the id column.

    Raises:
        UsageError: there is such a table already.
        MissingExtra: pylance is not installed.
    """

    def __init__(self, location: LanceLocation | str, space: Space, *, id_column: str = "id") -> None:
        self._location = LanceLocation.parse(location) if isinstance(location, str) else location
        self.name = str(self._location)
        self.space = space
        self.id_column, self.vector_column = id_column, self._location.column or "vector"
        self._lance = load("lance", "lance")
        self._consumer: Consumer[pa.RecordBatch] | None = None
        self._refuse_existing()

    def _refuse_existing(self) -> None:
        try:
            self._lance.dataset(self._location.dataset)
        except (ValueError, OSError):
            return
        raise UsageError(f"{self.name}: there is such a table already; choose another name or drop it first")

    def _write(self, batch: VectorBatch) -> None:
        self._put(to_record_batch(batch, self.space, self.id_column, self.vector_column))

    def _put(self, batch: pa.RecordBatch) -> None:
        if self._consumer is None:
            schema = batch.schema
            self._consumer = Consumer(lambda batches: self._write_dataset(schema, batches))
        with full_disk_as_error(self.name, self.rows):
            self._consumer.put(batch)

    def _write_dataset(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Any:
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        return self._lance.write_dataset(reader, self._location.dataset, mode="create")

    def commit(self) -> None:
        if self._consumer is None:
            self._put(empty_record_batch(self.space, self.id_column, self.vector_column))
        assert self._consumer is not None
        with full_disk_as_error(self.name, self.rows):
            self._consumer.finish()
            if self._folder is not None:
                _sync_folder(self._folder)

    def abort(self) -> None:
        if self._consumer is None:
            return
        self._consumer.abandon()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path | None:
        """The dataset's folder; None on object storage, where uncommitted files are never visible."""
        return None if "://" in self._location.directory else Path(self._location.dataset)


def _sync_folder(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder, folder.parent]:
        sync(path)
