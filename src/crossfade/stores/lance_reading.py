"""Reading a Lance dataset: streams of rows, samples, nearest rows, rows by the handles of a search."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crossfade.errors import StoreError
from crossfade.spaces import Metric
from crossfade.stores import lance_parts
from crossfade.stores.lance_commit import store_errors
from crossfade.stores.records import Hits, Rows
from crossfade.vectors.columns import describe_columns

EXACT_READING = {"batch_size": 1024, "batch_readahead": 2, "io_buffer_size": lance_parts.READ_AHEAD_BYTES}
"""An exact search reads every vector; without these bounds Lance holds hundreds of megabytes of them."""
SAMPLED_AT_ONCE = 512


def dimension_of(dataset: Any, name: str, uri: str) -> int:
    """Dimension of a column of vectors; 0 if nothing tells it.

    Raises:
        StoreError: no such column.
    """
    if name not in dataset.schema.names:
        raise StoreError(f"{uri}: no column {name!r}; it has {describe_columns(dataset.schema)}")
    column_type = dataset.schema.field(name).type
    if pa.types.is_fixed_size_list(column_type):
        return int(column_type.list_size)
    first = dataset.scanner(columns=[name], filter=f"`{name}` IS NOT NULL", limit=1).to_table()
    return len(first.column(0)[0]) if len(first) else 0


def scan(
    dataset: Any, name: str, id_column: str, rows: int, columns: Sequence[str], uri: str
) -> Iterator[Rows]:
    """Stream the vectors of the column `name`, `rows` at a time, and further columns."""
    dimension = dimension_of(dataset, name, uri)
    scanner = dataset.scanner(
        columns=list(dict.fromkeys([name, id_column, *columns])),
        batch_size=rows,
        scan_in_order=True,
        batch_readahead=lance_parts.READ_AHEAD_BATCHES,
        fragment_readahead=1,
        io_buffer_size=lance_parts.READ_AHEAD_BYTES,
    )
    with store_errors(uri):
        for batch in scanner.to_batches():
            if len(batch):
                vectors, null = lance_parts.read_vectors(batch.column(name), dimension, uri)
                further = {one: batch.column(one) for one in columns}
                yield Rows(batch.column(id_column), vectors, null, further)


def sample(
    dataset: Any,
    count: int,
    seed: int,
    vectors: Sequence[str],
    id_column: str,
    columns: Sequence[str],
    parts: Collection[str],
    uri: str,
) -> tuple[Rows, ...]:
    """Random rows of some fragments, once for each column of `vectors`."""
    names = list(dict.fromkeys([id_column, *vectors, *columns]))
    chosen = lance_parts.random_rows(dataset, count, seed, parts)
    pieces = np.split(chosen, range(SAMPLED_AT_ONCE, len(chosen), SAMPLED_AT_ONCE))
    with store_errors(uri):
        batch = pa.concat_tables([dataset.take(one, columns=names) for one in pieces]).combine_chunks()
    further = {name: _one_chunk(batch.column(name)) for name in columns}
    ids, read = _one_chunk(batch.column(id_column)), []
    for name in vectors:
        column = _one_chunk(batch.column(name))
        matrix, null = lance_parts.read_vectors(column, dimension_of(dataset, name, uri), uri)
        read.append(Rows(ids, matrix, null, further))
    return tuple(read)


def nearest(
    dataset: Any,
    name: str,
    query: NDArray[np.float32],
    k: int,
    metric: Metric,
    id_column: str,
    columns: Sequence[str],
    exact: bool,
) -> Hits:
    """The `k` nearest rows of one query."""
    asked = {"column": name, "q": query, "k": k, "metric": metric, "use_index": not exact}
    wanted = list(dict.fromkeys([id_column, *columns, "_distance"]))
    bounds = EXACT_READING if exact else {}
    table = dataset.scanner(columns=wanted, nearest=asked, with_row_id=True, **bounds).to_table()
    return Hits(
        ids=_one_chunk(table.column(id_column)),
        scores=_similarity(table.column("_distance").to_numpy(), metric),
        handles=table.column("_rowid").to_numpy(),
        columns={one: _one_chunk(table.column(one)) for one in columns},
    )


def fetch(dataset: Any, handles: NDArray[np.uint64], columns: Sequence[str], uri: str) -> pa.Table:
    """Columns of the rows with these handles, in their order.

    Raises:
        StoreError: some were deleted meanwhile.
    """
    chosen = ", ".join(map(str, handles.tolist())) or "NULL"
    scanner = dataset.scanner(columns=list(columns), filter=f"_rowid IN ({chosen})", with_row_id=True)
    with store_errors(uri):
        table = scanner.to_table()
    order = pc.index_in(pa.array(handles), value_set=table.column("_rowid"))
    if order.null_count:
        raise StoreError(
            f"{uri}: {order.null_count} rows were deleted while they were searched; search again"
        )
    return table.take(order).select(list(columns))


def _similarity(distance: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Lance returns 1 - cosine, 1 - dot and the squared distance; scores grow with similarity."""
    scores = -distance if metric == "l2" else 1 - distance
    return np.asarray(scores, dtype=np.float32)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
