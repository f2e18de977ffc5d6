"""New vectors of a Lance fragment as a data file of their own.

A fragment's columns may lie in several files. The new vectors of a fragment get one file that no
reader knows until a commit attaches it, so old files are never touched and a broken run leaves
nothing but a file without a name in any manifest.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import InvalidVectors, NotSupported
from crossfade.extras import load
from crossfade.stores.durable import bring_to_disk
from crossfade.stores.records import Produce, Produced, Receipt, Rows
from crossfade.vectors import FloatMatrix
from crossfade.vectors.channel import write_behind
from crossfade.vectors.columns import to_matrix

READ_AHEAD_BYTES = 32 << 20
READ_AHEAD_BATCHES = 2
TOMBSTONE = -2
"""How Lance marks a field of a data file whose values were replaced by another file."""


def read_vectors(column: pa.Array, dimension: int, what: str) -> tuple[FloatMatrix, NDArray[np.bool_]]:
    """A column of vectors as (n, d) float32, NaN where null, and which are null."""
    null: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    if not null.any():
        return to_matrix(column, dimension, what), null
    matrix = np.full((len(column), dimension), np.nan, dtype=np.float32)
    matrix[~null] = to_matrix(column.drop_null(), dimension, what)
    return matrix, null


class FragmentFile:
    """Writes the new vectors of one fragment.

    Args:
        fragment: the fragment, of the version that is read.
        dimensions: of the old and the new vectors.
        names: columns of the old vectors and of the new ones; the latter None where there are none yet.
        switched: whether the new vectors are the application's by now, so that none is replaced.
        id_column: where ids come from.
        what: the store, for messages.
    """

    def __init__(
        self,
        fragment: Any,
        dimensions: tuple[int, int],
        names: tuple[str, str | None],
        switched: bool,
        id_column: str,
        what: str,
    ) -> None:
        self._switched = switched
        self._fragment, self._what, self._id_column = fragment, what, id_column
        self._dimensions, (self._old, self._new) = dimensions, names

    def write(self, path: Path, produce: Produce, columns: Sequence[str], rows: int) -> dict[str, Any]:
        """Write `path` and bring it to disk; returns rows, nulls, bytes and checksum."""
        lance_file = load("lance.file", "lance")
        schema = pa.schema([pa.field("vector", pa.list_(pa.float32(), self._dimensions[1]))])
        counts = {"rows": 0, "nulls": 0}

        def batches() -> Iterator[pa.RecordBatch]:
            for size, offsets, batch in self._windows(columns, rows):
                produced = self._produce(batch, produce, columns)
                counts["rows"] += len(offsets)
                counts["nulls"] += int(np.count_nonzero(~produced.valid))
                yield pa.record_batch([_spread(produced, offsets, size)], schema=schema)

        with lance_file.LanceFileWriter(str(path), schema, version=self._format()) as writer:
            write_behind(batches(), partial(_write_all, writer))
        return {**counts, **bring_to_disk(path)}

    def _format(self) -> str:
        files = self._fragment.metadata.to_json()["files"]
        major, minor = files[0]["file_major_version"], files[0]["file_minor_version"]
        if major < 2:
            raise NotSupported(
                f"{self._what}: the table is in Lance's format {major}.{minor}, version 2.0 is needed; "
                "copy it into a new table with a current version of LanceDB"
            )
        return f"{major}.{minor}"

    def _windows(
        self, columns: Sequence[str], rows: int
    ) -> Iterator[tuple[int, NDArray[np.int64], pa.RecordBatch | None]]:
        """Fixed windows of physical rows: their size, the offsets of live rows in them, and those rows.

        Boundaries do not depend on deletions, so deleting a row changes no other window.
        """
        names = [self._old, *([self._new] if self._new else []), self._id_column, *columns]
        scanner = self._fragment.scanner(
            columns=list(dict.fromkeys(names)),
            batch_size=rows,
            with_row_address=True,
            batch_readahead=READ_AHEAD_BATCHES,
            io_buffer_size=READ_AHEAD_BYTES,
        )
        total = self._fragment.physical_rows
        starts = iter(range(0, total, rows))
        for held in _regroup(scanner.to_batches(), rows, -(-total // rows)):
            start = next(starts)
            size = min(rows, total - start)
            if held is None:
                yield size, np.empty(0, dtype=np.int64), None
            else:
                yield size, _offsets(held) - start, held

    def _produce(self, batch: pa.RecordBatch | None, produce: Produce, columns: Sequence[str]) -> Produced:
        if batch is None:
            return Produced(np.empty((0, self._dimensions[1]), np.float32), np.empty(0, bool))
        old, null = read_vectors(batch.column(self._old), self._dimensions[0], self._what)
        further = {name: batch.column(name) for name in columns}
        written, kept = self._written_by_others(batch, null)
        produced = produce(Rows(batch.column(self._id_column), old, null, further, kept))
        self._check(produced, len(old))
        if kept is None or written is None:
            return produced
        vectors = np.where(kept[:, None], written, produced.vectors)
        return Produced(vectors, produced.valid | kept)

    def _written_by_others(
        self, batch: pa.RecordBatch, null: NDArray[np.bool_]
    ) -> tuple[FloatMatrix | None, NDArray[np.bool_] | None]:
        """New vectors that an application wrote itself: at least those of rows without an old one."""
        if self._new is None or not (self._switched or null.any()):
            return None, None
        written, missing = read_vectors(batch.column(self._new), self._dimensions[1], self._what)
        return written, ~missing if self._switched else null & ~missing

    def _check(self, produced: Produced, rows: int) -> None:
        expected = (rows, self._dimensions[1])
        if produced.vectors.shape != expected:
            raise InvalidVectors(
                f"{self._what}: expected new vectors {expected}, got {produced.vectors.shape}"
            )


def _write_all(writer: Any, batches: Iterator[pa.RecordBatch]) -> None:
    for batch in batches:
        writer.write_batch(batch)


def _regroup(batches: Iterator[pa.RecordBatch], rows: int, windows: int) -> Iterator[pa.RecordBatch | None]:
    """Batches of a scan as one batch per window of `rows` physical rows; None for an empty window."""
    held: list[pa.RecordBatch] = []
    window = 0
    for batch in batches:
        while len(batch):
            cut = int(np.searchsorted(_offsets(batch), (window + 1) * rows))
            if cut:
                held.append(batch.slice(0, cut))
            batch = batch.slice(cut)
            if len(batch):
                yield _joined(held)
                held, window = [], window + 1
    for _ in range(window, windows):
        yield _joined(held)
        held = []


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch | None:
    if len(batches) < 2:
        return batches[0] if batches else None
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _offsets(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Physical offset of each row in its fragment: the lower half of its row address."""
    addresses = batch.column("_rowaddr").to_numpy()
    offsets: NDArray[np.int64] = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return offsets


def _spread(produced: Produced, offsets: NDArray[np.int64], size: int) -> pa.Array:
    """The vectors at their offsets in a window of `size` rows; deleted and invalid rows are null."""
    vectors, valid = np.ascontiguousarray(produced.vectors, dtype=np.float32), produced.valid
    if len(offsets) != size:
        vectors = np.zeros((size, produced.vectors.shape[1]), dtype=np.float32)
        vectors[offsets] = produced.vectors
        valid = np.zeros(size, dtype=bool)
        valid[offsets] = produced.valid
    if not valid.all():
        vectors = np.where(valid[:, None], vectors, np.float32(0))
    values = pa.array(vectors.reshape(-1))
    mask = None if valid.all() else pa.array(~valid)
    return pa.FixedSizeListArray.from_arrays(values, vectors.shape[1], mask=mask)


def source_of(fragment: Any, *fields: int) -> str:
    """What the values of some fields of a fragment are: the files that hold them, and its physical rows."""
    metadata = fragment.metadata.to_json()
    holders = [file["path"] for file in metadata["files"] if not set(fields).isdisjoint(file["fields"])]
    overlays = json.dumps(metadata.get("overlays") or [], sort_keys=True)
    return f"{'+'.join(holders)}:{metadata['physical_rows']}{overlays if overlays != '[]' else ''}"


def attached(metadata: dict[str, Any], field: int, receipt: Receipt) -> bool:
    """Whether the fragment reads the field from the file of this receipt."""
    return any(
        field in file["fields"] and file["path"] == receipt.location["path"] for file in metadata["files"]
    )


def attach(metadata: dict[str, Any], field: int, receipt: Receipt) -> dict[str, Any]:
    """The fragment's metadata with the field read from the file of `receipt`."""
    changed = copy.deepcopy(metadata)
    template = changed["files"][0]
    for file in changed["files"]:
        file["fields"] = [TOMBSTONE if one == field else one for one in file["fields"]]
    kept = [file for file in changed["files"] if any(one != TOMBSTONE for one in file["fields"])]
    new = {
        "fields": [field],
        "column_indices": [0],
        "file_major_version": template["file_major_version"],
        "file_minor_version": template["file_minor_version"],
        "file_size_bytes": receipt.location["bytes"],
        "base_id": None,
        "path": receipt.location["path"],
    }
    return {**changed, "files": [*kept, new]}


def live_rows(fragment: Any) -> int:
    """Rows of a fragment that are not deleted."""
    return int(fragment.physical_rows - fragment.num_deletions)


def random_rows(dataset: Any, count: int, seed: int, parts: Collection[str]) -> NDArray[np.int64]:
    """Positions of random rows of the fragments named in `parts`, in order."""
    start, ranges = 0, [np.empty(0, dtype=np.int64)]
    for one in dataset.get_fragments():
        rows = live_rows(one)
        if str(one.fragment_id) in parts:
            ranges.append(np.arange(start, start + rows))
        start += rows
    candidates = np.concatenate(ranges)
    chosen = np.random.default_rng(seed).choice(len(candidates), min(count, len(candidates)), replace=False)
    return candidates[np.sort(chosen)]


def with_vectors(metadata: dict[str, Any], field: int, receipt: Receipt | None) -> dict[str, Any]:
    """The fragment's metadata with its new vectors, if they are written."""
    if receipt is None or not receipt.location or attached(metadata, field, receipt):
        return metadata
    return attach(metadata, field, receipt)


def content(fragments: Sequence[Any], field: int) -> str:
    """Changes when rows of the fragments are added, deleted or rewritten."""
    digest = hashlib.sha256()
    for one in fragments:
        deletions = json.dumps(one.metadata.to_json().get("deletion_file"), sort_keys=True)
        digest.update(f"{one.fragment_id} {source_of(one, field)} {deletions}\n".encode())
    return digest.hexdigest()[:16]
