"""One version of a FAISS index, with the table of ids and payload that may lie beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossfade.errors import StoreError, UsageError
from crossfade.evaluation.search import search
from crossfade.extras import load
from crossfade.spaces import Metric
from crossfade.stores.faiss_kinds import describe_index, has_lists, is_flat, require_known, unit, unwrapped
from crossfade.stores.file_content import Content, Positions, Ranked, Unreadable, ids_of
from crossfade.stores.records import IndexInfo, Rows
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.columns import ROW_NUMBERS, describe_columns


class FaissContent(Content):
    """The vectors of the index at `path`.

    Args:
        path: the index.
        table: Parquet file of ids and payload, if there is one.
        id_column: column of the ids in it.
        what: the store, for messages.

    Raises:
        Unreadable: it cannot be read.
        StoreError: index and table do not fit each other.
        NotSupported: an index of another kind.
        UsageError: no such column.
    """

    def __init__(self, path: Path, table: Path | None, id_column: str | None, what: str) -> None:
        self._faiss, self._what = load("faiss", "faiss"), what
        self.whole = self._read(path)
        self._inner, mapped = unwrapped(self.whole)
        require_known(self._inner, what)
        self.dimension = int(self._inner.d)
        self.column_type = f"fixed_size_list<float>[{self.dimension}]"
        self.keys = self._own_ids(mapped)
        self._table = table
        if table is None:
            self._without_table(id_column)
        else:
            self._with_table(table, id_column)
        self.rows = len(self.ids)
        self.id_type = self.ids.type

    def _read(self, path: Path) -> Any:
        # Not mapped into memory: an application that writes the file in place would crash the reader.
        try:
            self._owner = self._faiss.read_index(str(path))  # the downcast one does not own its memory
        except (RuntimeError, MemoryError) as error:  # garbled sizes ask for more memory than there is
            text = str(error).partition("\n")[0] or "not enough memory"
            raise Unreadable(f"{path}: cannot be read as a FAISS index: {text}") from None
        return self._faiss.downcast_index(self._owner)

    def _own_ids(self, mapped: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Ids that the index has, by position; in rising order if it has lists; None if it has none."""
        if mapped is not None:
            if has_lists(self._inner):
                self._inner.set_direct_map_type(self._faiss.DirectMap.Hashtable)
            return mapped
        if not has_lists(self._inner):
            return None
        self._inner.set_direct_map_type(self._faiss.DirectMap.Hashtable)
        lists = self._inner.invlists
        sizes = [(one, lists.list_size(one)) for one in range(lists.nlist)]
        ids = [self._faiss.rev_swig_ptr(lists.get_ids(one), size).copy() for one, size in sizes if size]
        return np.sort(np.concatenate(ids)) if ids else np.empty(0, dtype=np.int64)

    def _slots(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """What `reconstruct` calls the vectors of these ids: ids in a plain IVF, else positions."""
        return keys if self._lists_alone else np.arange(len(keys))

    @property
    def _lists_alone(self) -> bool:
        return self._inner is self.whole and has_lists(self._inner)

    def _without_table(self, id_column: str | None) -> None:
        if id_column:
            raise UsageError(
                f"{self._what}: there is no table beside the index that could hold a column {id_column!r}; "
                "write one row of ids per vector into a Parquet file of the same name"
            )
        self.payload, self.id_column = (), "id" if self.keys is not None else ROW_NUMBERS
        keys = np.arange(self.whole.ntotal) if self.keys is None else self.keys
        self.ids, self.slots = pa.array(keys), self._slots(keys)

    def _with_table(self, table: Path, id_column: str | None) -> None:
        schema = pq.read_schema(table)
        if id_column and id_column not in schema.names:
            raise UsageError(
                f"{self._what}: no column {id_column!r} for the ids in {table.name}; "
                f"it has {describe_columns(schema)}"
            )
        name = id_column or ("id" if "id" in schema.names else "")
        self.id_column = name or ROW_NUMBERS
        self.payload = tuple(one for one in schema.names if one != name)
        rows = pq.read_metadata(table).num_rows
        self.ids = ids_of(_column(table, name), self._what) if name else pa.array(np.arange(rows))
        self.slots = self._by_row(rows) if self.keys is None else self._by_id(self.keys)

    def _by_row(self, rows: int) -> NDArray[np.int64]:
        """Row i of the table is vector i; rows at its end may have none yet."""
        if self.whole.ntotal > rows:
            raise StoreError(
                f"{self._what}: the index has {self.whole.ntotal} vectors, the table beside it {rows} rows; "
                "write them together, or give the index an id map"
            )
        slots = np.arange(rows)
        return np.where(slots < self.whole.ntotal, slots, -1)

    def _by_id(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        if not pa.types.is_integer(self.ids.type):
            raise StoreError(
                f"{self._what}: the index has integer ids, those of the table beside it are {self.ids.type}; "
                "name the column that holds the index's ids: ?id=NAME"
            )
        order = np.argsort(keys, kind="stable")
        wanted = self.ids.to_numpy()
        if not len(keys):
            return np.full(len(wanted), -1)
        place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        return np.where(keys[order][place] == wanted, self._slots(keys)[order[place]], -1)

    # --- reading ------------------------------------------------------------------------------

    def index(self) -> IndexInfo | None:
        return describe_index(self.whole)

    def batches(
        self, rows: int = BATCH_ROWS, columns: Sequence[str] = (), start: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        stop = self.rows if stop is None else min(stop, self.rows)
        for first in range(start, stop, rows):
            yield self._rows(slice(first, min(first + rows, stop)), columns)

    def _rows(self, chosen: slice, columns: Sequence[str]) -> Rows:
        count = chosen.stop - chosen.start
        vectors, null = self._vectors(self.slots[chosen])
        further = {name: self._payload(name).slice(chosen.start, count) for name in columns}
        return Rows(self.ids.slice(chosen.start, count), vectors, null, further)

    def ids_in_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Array]:
        for start in range(0, self.rows, rows):
            yield self.ids.slice(start, rows)

    nulls_lie_there = False

    def as_written(self, start: int, rows: int) -> Iterator[FloatMatrix]:
        stop = min(start + rows, int(self.whole.ntotal))
        for first in range(start, stop, BATCH_ROWS):
            yield self._vectors(np.arange(first, min(first + BATCH_ROWS, stop)))[0]

    def take(self, positions: Positions, columns: Sequence[str] = ()) -> Rows:
        vectors, null = self._vectors(self.slots[positions])
        chosen = pa.array(positions, type=pa.int64())
        further = {name: self._payload(name).take(chosen) for name in columns}
        return Rows(self.ids.take(chosen), vectors, null, further)

    def _vectors(self, slots: NDArray[np.int64]) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        null: NDArray[np.bool_] = slots < 0
        if len(slots) and not null.any():
            return self._inner.reconstruct_batch(np.ascontiguousarray(slots)), null
        vectors = np.full((len(slots), self.dimension), np.nan, dtype=np.float32)
        if not null.all():
            vectors[~null] = self._inner.reconstruct_batch(np.ascontiguousarray(slots[~null]))
        return vectors, null

    def _payload(self, name: str) -> pa.Array:
        if name == self.id_column:
            return self.ids
        if self._table is None or name not in self.payload:
            has = ", ".join(map(repr, self.payload)) or "none"
            raise UsageError(f"{self._what}: no column {name!r} beside the vectors; there are: {has}")
        return _column(self._table, name)

    def nearest(self, queries: FloatMatrix, k: int, metric: Metric, exact: bool) -> list[Ranked]:
        if exact or is_flat(self._inner) or not len(queries):
            return super().nearest(queries, k, metric, exact)
        _, labels = self.whole.search(unit(queries, metric), min(k, self.rows))
        return [
            self._ranked(query, found[found >= 0], k, metric)
            for query, found in zip(queries, labels, strict=True)
        ]

    def _ranked(
        self, query: NDArray[np.float32], labels: NDArray[np.int64], k: int, metric: Metric
    ) -> Ranked:
        """Rows that the index found, with the scores of the vectors that it holds."""
        rows = labels if self.keys is None else self._rows_of(labels)
        rows = rows[rows >= 0]
        if not len(rows):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores, order = search(query[None], self._vectors(self.slots[rows])[0], k, metric, engine="numpy")
        return rows[order[0]], scores[0]

    def _rows_of(self, labels: NDArray[np.int64]) -> Positions:
        return self.find(pa.array(labels).cast(self.ids.type))

    def close(self) -> None:
        """Nothing: the index is in memory."""


def _column(table: Path, name: str) -> pa.Array:
    return pq.read_table(table, columns=[name]).column(0).combine_chunks()
