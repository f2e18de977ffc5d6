"""LanceDB: new vectors as a second column, switched by renaming both columns in one commit.

The new vectors of every fragment are written as a data file of their own (`lance_parts`) and become
a column in one commit that rewrites nothing. The switch is one more commit: the new column takes
the old one's name and the old one steps aside. Both commits are refused by Lance when somebody else
has written in between, and are then tried again, so no row slips through.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import StoreError, UsageError
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.stores import lance_index, lance_parts, lance_reading
from crossfade.stores.address import Address
from crossfade.stores.base import Store
from crossfade.stores.durable import checksum
from crossfade.stores.lance_cache import LanceCache
from crossfade.stores.lance_commit import committed, first_line, rename, store_errors
from crossfade.stores.records import (
    Capabilities,
    Description,
    Hits,
    IndexInfo,
    Part,
    PartGone,
    Produce,
    Receipt,
    Rows,
    Staged,
)
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.columns import choose_vector_column, describe_columns
from crossfade.vectors.metadata import SPACE_KEY, recorded_space

UPGRADE_KEY = "crossfade.upgrade"


class LanceDB(Store):
    """A column of vectors in a LanceDB table.

    Args:
        address: database folder, table and column.
        id_column: column of the ids; ``id`` unless given.

    Raises:
        MissingExtra: pylance is not installed.
        StoreError: no such table, or it cannot be read.
        UsageError: no such column.
    """

    strict_rounds = 200
    capabilities = Capabilities(
        beside="column",
        switch="rename (one commit)",
        catches_up="fragments: new or rewritten ones are found and written before the switch",
        index=lance_index.TYPES,
        cannot=(
            "see its new vectors in readers that were opened before the switch: they stay on their version",
        ),
    )

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        self._lance = load("lance", "lance")
        self._place = Path(address.place)
        self._table = address.table
        dataset = self._open()
        with store_errors(str(address)):
            self.column = choose_vector_column(dataset.schema, address.column or None, str(address))
        if id_column and id_column not in dataset.schema.names:
            raise UsageError(
                f"{address}: no column {id_column!r} for the ids; it has {describe_columns(dataset.schema)}"
            )
        self._id_column = id_column or ("id" if "id" in dataset.schema.names else "")
        self.uri = str(Address("lancedb", address.place, address.table, self.column, id_column or ""))

    # --- reading ------------------------------------------------------------------------------

    def describe(self) -> Description:
        dataset = self._open()
        schema, column = dataset.schema, dataset.schema.field(self.column)
        fragments = dataset.get_fragments()
        return Description(
            uri=self.uri,
            column=self.column,
            rows=dataset.count_rows(),
            dimension=self._dimension(dataset, self.column),
            column_type=str(column.type),
            id_column=self._id_column,
            payload=tuple(n for n in schema.names if n not in (self.column, self._id_column)),
            index=lance_index.describe_index(dataset, self.column),
            space=recorded_space(schema, self.column),
            version=str(dataset.version),
            content=lance_parts.content(fragments, dataset.lance_schema.field(self.column).id()),
            parts=len(fragments),
            writable=self._writable(),
        )

    def scan(
        self, column: str | None = None, *, rows: int = BATCH_ROWS, columns: Sequence[str] = ()
    ) -> Iterator[Rows]:
        return lance_reading.scan(
            self._open(), column or self.column, self.id_column, rows, columns, self.uri
        )

    def sample(
        self, count: int, seed: int, vectors: Sequence[str], columns: Sequence[str], parts: Collection[str]
    ) -> tuple[Rows, ...]:
        return lance_reading.sample(
            self._open(), count, seed, vectors, self.id_column, columns, parts, self.uri
        )

    def search(
        self,
        queries: FloatMatrix,
        k: int,
        space: Space,
        *,
        column: str | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Hits]:
        dataset, name = self._open(), column or self.column
        recorded = recorded_space(dataset.schema, name)  # of the version that is searched
        self._require_queries(queries, self._dimension(dataset, name), recorded, space)
        with store_errors(self.uri):
            return [
                lance_reading.nearest(dataset, name, one, k, space.metric, self.id_column, columns, exact)
                for one in queries
            ]

    def fetch(self, handles: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        return lance_reading.fetch(self._open(), handles, columns, self.uri)

    def space(self) -> Space | None:
        return recorded_space(self._open().schema, self.column)

    # --- writing ------------------------------------------------------------------------------

    def record_space(self, space: Space) -> None:
        with store_errors(self.uri):
            self._open().update_field_metadata({self.column: _space_metadata(space)})

    def parts(self, staged: Staged) -> list[Part]:
        return self._parts(self._open(), staged)

    def pending(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        return self._missing(self._open(), staged, receipts)

    def _parts(self, dataset: Any, staged: Staged) -> list[Part]:
        return [
            Part(str(one.fragment_id), lance_parts.live_rows(one), self._source(dataset, one, staged))
            for one in dataset.get_fragments()
        ]

    def _source(self, dataset: Any, fragment: Any, staged: Staged) -> str:
        names = (self._names(dataset, staged)[0], *staged.reads)
        found = [field for name in names if (field := dataset.lance_schema.field(name))]
        return lance_parts.source_of(fragment, *(field.id() for field in found))

    def write_part(self, part: Part, staged: Staged, produce: Produce, *, rows: int = BATCH_ROWS) -> Receipt:
        dataset = self._open()
        old, new = self._names(dataset, staged)
        fragment = dataset.get_fragment(int(part.key))
        if fragment is None:
            raise PartGone(f"{self.uri}: part {part.key} is gone: the table was compacted; run apply again")
        dimensions = (self._dimension(dataset, old), staged.new.dimension)
        switched = staged.previous in dataset.schema.names
        file = lance_parts.FragmentFile(fragment, dimensions, (old, new), switched, self.id_column, self.uri)
        source = self._source(dataset, fragment, staged)
        path = self._part_path(staged, part.key, source)
        with store_errors(self.uri):
            written = file.write(path, produce, staged.reads, rows)
        location = {"path": path.name, "bytes": written["bytes"]}
        return Receipt(part.key, source, written["rows"], written["nulls"], written["checksum"], location)

    def publish(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        return committed(lambda: self._publish_once(staged, receipts), self.uri)

    def _publish_once(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        self._add_column(self._open(), staged)
        dataset = self._open()
        missing = self._missing(dataset, staged, receipts)
        not_written = {part.key for part in missing}
        field = dataset.lance_schema.field(self._names(dataset, staged)[1]).id()
        before = [one.metadata.to_json() for one in dataset.get_fragments()]
        written = {key: one for key, one in receipts.items() if key not in not_written}
        after = [lance_parts.with_vectors(one, field, written.get(str(one["id"]))) for one in before]
        if after != before:
            self._merge(dataset, after)
        return missing

    def _missing(self, dataset: Any, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        """Parts without a receipt, rewritten since, or whose file somebody has cleaned away.

        After a switch, a part that has no old vectors at all is the application's own.
        """
        switched = staged.previous in dataset.schema.names
        return [
            part
            for part in self._parts(dataset, staged)
            if not self._is_written(receipts.get(part.key), part)
            and not (switched and part.source.startswith(":"))
        ]

    def _is_written(self, receipt: Receipt | None, part: Part) -> bool:
        return receipt is not None and receipt.source == part.source and self._file_exists(receipt)

    def _file_exists(self, receipt: Receipt) -> bool:
        if not receipt.location:
            return True
        path = self._data / receipt.location["path"]
        return bool(path.exists() and path.stat().st_size == receipt.location["bytes"])

    def _add_column(self, dataset: Any, staged: Staged) -> None:
        if self._names(dataset, staged)[1] is not None:
            return
        dataset.update_field_metadata({self.column: _space_metadata(staged.old)})
        metadata = {**_space_metadata(staged.new), UPGRADE_KEY: staged.upgrade}
        vector = pa.list_(pa.float32(), staged.new.dimension)
        dataset.add_columns(pa.schema([pa.field(staged.name, vector, metadata=metadata)]))

    def _merge(self, dataset: Any, fragments: list[dict[str, Any]]) -> None:
        metadata = load("lance.fragment", "lance").FragmentMetadata
        changed = [metadata.from_json(json.dumps(one)) for one in fragments]
        operation = self._lance.LanceOperation.Merge(changed, dataset.lance_schema)
        self._lance.LanceDataset.commit(dataset, operation, read_version=dataset.version, max_retries=0)

    def check_part(self, receipt: Receipt) -> str | None:
        if not receipt.location:
            return None
        path = self._data / receipt.location["path"]
        if not path.exists():
            return f"file {path.name} is gone"
        size = path.stat().st_size
        if size != receipt.location["bytes"]:
            return f"file {path.name} has {size} bytes, {receipt.location['bytes']} were written"
        same = checksum(path) == receipt.checksum
        return None if same else f"file {path.name} has other content than was written"

    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        name = f"{self.column}_{staged.upgrade}_idx"
        with store_errors(self.uri):
            dataset = self._open()
            old, new = self.columns_of(staged)
            dimensions = (self._dimension(dataset, old), staged.new.dimension)
            lance_index.build_index(dataset, new, name, like, staged.new.metric, dimensions)
            self._shelf(staged).take(self._open(), new, "new")

    def switch(self, staged: Staged, receipts: Mapping[str, Receipt], *, strict: bool = True) -> list[Part]:
        """Always strict: what is committed late, under the names from before, would stay stale."""

        def attempt() -> list[Part]:
            missing = self._publish_once(staged, receipts)
            if self.switched(staged) or missing:
                return missing
            self._shelf(staged).put_back(self._open(), staged.name, "new")
            dataset = self._open()
            if missing := self._missing(dataset, staged, receipts):
                return missing
            names = {self.column: staged.previous, staged.name: self.column}
            rename(dataset, names, self._scratch(staged))
            return self._missing(self._open(), staged, receipts)

        missing = committed(attempt, self.uri)
        if missing and not strict and not self.switched(staged):
            raise StoreError(
                f"{self.uri}: others wrote each time before the last rows were; nothing was switched: "
                "let writers pause for about a second and run crossfade cutover again"
            )
        if not missing:
            with store_errors(self.uri):
                self._shelf(staged).take(self._open(), staged.previous, "old")
        return missing

    def switch_back(self, staged: Staged) -> None:
        def attempt() -> None:
            if not self.switched(staged):
                return
            self._shelf(staged).put_back(self._open(), staged.previous, "old")
            names = {self.column: staged.name, staged.previous: self.column}
            rename(self._open(), names, self._scratch(staged))

        committed(attempt, self.uri)
        with store_errors(self.uri):
            dataset = self._open()
            if staged.name in dataset.schema.names:
                self._shelf(staged).take(dataset, staged.name, "new")

    def switched(self, staged: Staged) -> bool:
        return staged.previous in self._open().schema.names

    def drop_old(self, staged: Staged) -> None:
        self._drop_column(staged.previous)
        self._clear(staged)

    def drop_new(self, staged: Staged) -> None:
        if self.switched(staged):
            raise StoreError(f"{self.uri}: the new vectors are in use; roll back before they are dropped")
        published = staged.name in self._open().schema.names
        self._drop_column(staged.name)
        self._clear(staged)
        if not published:
            for path in self._data.glob(f"crossfade-{staged.upgrade}-*.lance"):
                path.unlink()

    def _drop_column(self, name: str) -> None:
        def attempt() -> None:
            dataset = self._open()
            if name in dataset.schema.names:
                dataset.drop_columns([name])

        committed(attempt, self.uri)

    def _clear(self, staged: Staged) -> None:
        self._shelf(staged).clear()
        shutil.rmtree(self._scratch(staged), ignore_errors=True)

    def _scratch(self, staged: Staged) -> Path:
        return self.neighbourhood / staged.upgrade / "clone"

    def _shelf(self, staged: Staged) -> lance_index.IndexShelf:
        return lance_index.IndexShelf(self.neighbourhood / staged.upgrade / "indexes")

    # --- surroundings -------------------------------------------------------------------------

    @property
    def neighbourhood(self) -> Path:
        return self._place / ".crossfade"

    @property
    def journal(self) -> Path:
        return self.neighbourhood / f"{_file_name(self._table)}.{_file_name(self.column)}.sqlite"

    def count_null(self, column: str) -> int:
        with store_errors(self.uri):
            return int(self._open().count_rows(f"`{column}` IS NULL"))

    @property
    def id_column(self) -> str:
        """Column of the ids.

        Raises:
            UsageError: the table has no column ``id`` and none was named.
        """
        if not self._id_column:
            raise UsageError(
                f"{self.uri}: no column 'id'; name the one that identifies rows: {self.uri}?id=NAME"
            )
        return self._id_column

    def cache(self, name: str, space: Space) -> LanceCache:
        return LanceCache(self._place / f"{self._table}__crossfade_{name}.lance", space)

    @property
    def _path(self) -> Path:
        return self._place / f"{self._table}.lance"

    @property
    def _data(self) -> Path:
        return self._path / "data"

    def _part_path(self, staged: Staged, key: str, source: str) -> Path:
        digest = hashlib.sha256(source.encode()).hexdigest()[:8]
        return self._data / f"crossfade-{staged.upgrade}-{key}-{digest}.lance"

    def _open(self) -> Any:
        try:
            return self._lance.dataset(str(self._path))
        except ValueError as error:
            if "not found" not in str(error):
                raise StoreError(f"{self._path}: cannot be read: {first_line(error)}") from None
            raise StoreError(f"{self._path}: no such table; check the folder and the table's name") from None
        except (OSError, RuntimeError) as error:
            raise StoreError(f"{self._path}: cannot be read: {first_line(error)}") from None

    def _names(self, dataset: Any, staged: Staged) -> tuple[str, str | None]:
        """Columns of the old and the new vectors in this version; None where there are no new ones yet."""
        names = dataset.schema.names
        if staged.previous in names:
            return staged.previous, self.column
        return self.column, staged.name if staged.name in names else None

    def _dimension(self, dataset: Any, name: str) -> int:
        return lance_reading.dimension_of(dataset, name, self.uri)

    def _writable(self) -> bool:
        folders = (self._place, self._path, self._data, self._path / "_versions")
        return all(os.access(folder, os.W_OK) for folder in folders if folder.exists())


def _space_metadata(space: Space) -> dict[str, str]:
    return {SPACE_KEY.decode(): json.dumps(space.to_dict())}


def _file_name(name: str) -> str:
    """A name as part of a file name, without dots, so that two parts stay apart."""
    return quote(name, safe=" ").replace(".", "%2E")
