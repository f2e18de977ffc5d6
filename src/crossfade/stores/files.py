"""Vectors in a file: the new ones go into a new file beside it, and the two exchange names.

A file has neither transactions nor a record of changes. So an upgrade first writes the new vectors part
by part into files of their own, then the new file as a whole from these and from what else the old one
holds. At the switch the file must be the one that the new one was made from; if somebody has replaced it,
what differs is written first. Who replaces the file last, before the switch, wins.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import DimensionMismatch, StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores.address import Address
from crossfade.stores.base import (
    Description,
    Hits,
    IndexInfo,
    Part,
    PartGone,
    Pause,
    Produce,
    Receipt,
    Rows,
    Staged,
    Store,
)
from crossfade.stores.durable import read_json, write_json
from crossfade.stores.file_content import Content, Positions, identity
from crossfade.stores.file_parts import Listing, Span
from crossfade.stores.file_vectors import PartFile, check_vectors_file
from crossfade.stores.file_versions import Versions, file_name, remove_folder
from crossfade.stores.id_cache import IdCache
from crossfade.vectors import BATCH_ROWS, FloatMatrix

PART_ROWS = 65_536
ATTEMPTS = 10
EXCHANGE_SECONDS = 0.1
"""Looking at the file once more and exchanging two names."""


class FileStore(Store):
    """A column of vectors in a file.

    A subclass opens a version of the file (`_open_file`) and writes a new one (`_write_file`).

    Args:
        address: the file, and the name of the vectors.
        id_column: where ids come from.

    Attributes:
        part_rows: rows that are written together.
    """

    part_rows = PART_ROWS

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        if address.column:
            raise UsageError(
                f"{address}: a file holds one table; write {address.scheme}://FILE#COLUMN, "
                "with a name that holds dots in double quotes"
            )
        self.column = address.table
        self.uri = str(replace(address, id_column=id_column or ""))
        self._chosen_id = id_column
        path = Path(address.place)
        if not path.is_file():
            raise StoreError(f"{address.place}: no such file; check the path")
        self._live = path.resolve()
        self._versions = Versions(self._live, self.column)
        self._opened: dict[Path, tuple[str, Content]] = {}
        self._found: dict[int, object] = {}
        self._content()

    # --- for subclasses -----------------------------------------------------------------------

    @abstractmethod
    def _open_file(self, path: Path, live: Path) -> Content:
        """Open a version of the file; `live` is the one in use, beside which others may lie."""

    @abstractmethod
    def _write_file(
        self,
        target: Path,
        content: Content,
        vectors: Callable[[], Iterator[FloatMatrix]],
        staged: Staged,
        like: IndexInfo | None,
    ) -> None:
        """Write `target`: the rows of `content` with these vectors (NaN where a row has none) instead."""

    def _version_of(self, path: Path) -> str:
        """Changes when what is read with the file at `path` is written; begins with the file's identity."""
        return identity(path)

    @staticmethod
    def _file_part(version: str) -> str:
        return version.partition(" ")[0]

    def _give_rows_back(self, staged: Staged) -> None:
        """Before the old file is put in use again: bring rows into it that were written since the switch."""

    # --- reading ------------------------------------------------------------------------------

    def describe(self) -> Description:
        content, version = self._content(), self._version_of(self._live)
        return Description(
            uri=self.uri,
            column=self.column,
            rows=content.rows,
            dimension=content.dimension,
            column_type=content.column_type,
            id_column=content.id_column,
            payload=content.payload,
            index=content.index(),
            space=self.space(),
            version=version,
            content=version,
            parts=max(1, -(-content.rows // self.part_rows)),
            writable=os.access(self._live.parent, os.W_OK) and os.access(self._live, os.W_OK),
        )

    def scan(
        self, column: str | None = None, *, rows: int = BATCH_ROWS, columns: Sequence[str] = ()
    ) -> Iterator[Rows]:
        live, name = self._content(), column or self.column
        if name == self.column:
            yield from live.batches(rows, columns)
            return
        other, start = self._content(name), 0
        for batch in live.batches(rows, columns):
            vectors, null = other.vectors_of(batch.ids, start)
            yield Rows(batch.ids, vectors, null, batch.columns)
            start += len(batch)

    def sample(
        self, count: int, seed: int, vectors: Sequence[str], columns: Sequence[str], parts: Collection[str]
    ) -> tuple[Rows, ...]:
        live = self._content()
        spans = [one for one in self._last_spans() if one.key in parts]
        ranges = [np.arange(one.start, one.stop) for one in spans] or [np.empty(0, dtype=np.int64)]
        candidates = np.concatenate(ranges)
        candidates = candidates[candidates < live.rows]
        chosen = np.random.default_rng(seed).choice(
            len(candidates), min(count, len(candidates)), replace=False
        )
        rows = live.take(candidates[np.sort(chosen)], columns)
        return tuple(self._also(name, rows) for name in vectors)

    def _also(self, name: str, rows: Rows) -> Rows:
        if name == self.column:
            return rows
        vectors, null = self._content(name).vectors_of(rows.ids, -len(rows))
        return Rows(rows.ids, vectors, null, rows.columns)

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
        name = None if column in (None, self.column) else column
        content = self._content(name)
        if queries.ndim != 2 or queries.shape[1] != content.dimension:
            raise DimensionMismatch(
                f"{self.uri}: queries must be (n, {content.dimension}), got {queries.shape}; "
                "embed them with the model that made the vectors"
            )
        recorded = self._versions.space(name)
        if recorded is not None:
            recorded.require_same(space, "queries")
        ranked = content.nearest(queries, k, space.metric, exact)
        self._found = {}
        return [self._hits(content, positions, scores, columns) for positions, scores in ranked]

    def _hits(
        self, content: Content, positions: Positions, scores: NDArray[np.float32], columns: Sequence[str]
    ) -> Hits:
        rows = content.take(positions, columns)
        self._found.update(zip(positions.tolist(), rows.ids.to_pylist(), strict=True))
        return Hits(rows.ids, scores, positions.astype(np.uint64), rows.columns)

    def fetch(self, handles: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        content = self._content()
        ids = pa.array([self._found.get(int(one)) for one in handles], type=content.id_type)
        positions = np.full(len(ids), -1)
        if not ids.null_count:
            positions = content.find(ids)
        gone = int(np.count_nonzero(positions < 0))
        if gone:
            raise StoreError(f"{self.uri}: {gone} rows were deleted while they were searched; search again")
        return pa.table(dict(content.take(positions, columns).columns))

    def space(self) -> Space | None:
        return self._versions.space()

    # --- writing ------------------------------------------------------------------------------

    def record_space(self, space: Space) -> None:
        self._versions.record(space)

    def parts(self, staged: Staged) -> list[Part]:
        return [one.part for one in self._spans(staged)]

    def pending(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        """Parts that are not written, or were before they changed; after the switch none is."""
        if self.switched(staged):
            return []
        return [
            one.part
            for one in self._spans(staged)
            if not self._is_written(receipts.get(one.key), one, staged)
        ]

    def _is_written(self, receipt: Receipt | None, span: Span, staged: Staged) -> bool:
        if receipt is None or receipt.source != span.source:
            return False
        if not receipt.location:
            return True
        path = self._parts_folder(staged) / receipt.location["path"]
        return bool(path.exists() and path.stat().st_size == receipt.location["bytes"])

    def write_part(self, part: Part, staged: Staged, produce: Produce, *, rows: int = BATCH_ROWS) -> Receipt:
        old = self.columns_of(staged)[0]
        span = next((one for one in self._spans(staged) if one.key == part.key), None)
        if span is None:
            raise PartGone(f"{self.uri}: part {part.key} is gone: the file was rewritten; run apply again")
        content = self._content(old)
        path = self._parts_folder(staged) / f"{span.key}-{span.source}.npy"
        file = PartFile(path, staged.new.dimension, self.uri)
        written = file.write(content, span, produce, staged.reads, rows, self._written_new(staged))
        location = {"path": path.name, "bytes": written["bytes"]}
        return Receipt(span.key, span.source, span.rows, written["nulls"], written["checksum"], location)

    def _written_new(self, staged: Staged) -> Content | None:
        """New vectors that exist already, some of which only the application can have written."""
        return self._content(staged.name) if self._versions.place(staged.name).exists() else None

    def publish(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        self._versions.settle()
        missing = self.pending(staged, receipts)
        if not missing and not self.switched(staged):
            self._assemble(staged, receipts, self._like(staged))
        return missing

    def _assemble(self, staged: Staged, receipts: Mapping[str, Receipt], like: IndexInfo | None) -> None:
        """Write the new file, unless there is one that was made from the same."""
        content, spans = self._content(), self._spans(staged)
        made_from = {"version": self._version_of(self._live), "index": str(like)}
        target, facts = self._versions.place(staged.name), self._assembly(staged)
        if target.exists() and read_json(facts) == made_from:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        self._versions.begin(staged)
        vectors = partial(self._written_vectors, staged, spans, receipts)
        self._write_file(target, content, vectors, staged, like)
        write_json(facts, made_from)

    def _written_vectors(
        self, staged: Staged, spans: Sequence[Span], receipts: Mapping[str, Receipt]
    ) -> Iterator[FloatMatrix]:
        for span in spans:
            location = receipts[span.key].location
            if location:
                path = self._parts_folder(staged) / location["path"]
                yield from PartFile.read(path, span.rows, staged.new.dimension)
            else:
                yield from self._kept_vectors(staged, span)

    def _kept_vectors(self, staged: Staged, span: Span) -> Iterator[FloatMatrix]:
        new = self._content(staged.name)
        for batch in self._content().batches(start=span.start, stop=span.stop):
            yield new.vectors_of(batch.ids, span.start)[0]

    def _like(self, staged: Staged) -> IndexInfo | None:
        """What the index of the new file is to be like."""
        return self._content().index()

    def check_part(self, receipt: Receipt) -> str | None:
        if not receipt.location:
            return None
        found = list(self._versions.neighbourhood.glob(f"*/parts/{receipt.location['path']}"))
        return check_vectors_file(found[0] if found else None, receipt)

    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        """The index is a part of the file, which `publish` writes."""

    def switch(self, staged: Staged, receipts: Mapping[str, Receipt], *, strict: bool = True) -> list[Part]:
        """Files are always switched strictly: what is not in the new file would be lost with the name."""
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            if missing := self.publish(staged, receipts):
                if not strict:
                    raise self._never_still(time.perf_counter() - started)
                return missing
            if self.switched(staged):
                return []
            made_from = read_json(self._assembly(staged))["version"]
            if self._versions.exchange(staged.name, staged.previous, self._file_part(made_from)):
                return []
        raise self._never_still(time.perf_counter() - started)

    def pause(self, staged: Staged, rows_per_second: float) -> Pause | None:
        anew = self._content().rows / rows_per_second
        why = f"let writers stand still; {anew:.1f} s if the file was replaced since apply"
        return Pause(EXCHANGE_SECONDS, why)

    def _never_still(self, seconds: float) -> StoreError:
        return StoreError(
            f"{self.uri}: the file was replaced each time before its new version was complete; nothing was "
            f"switched: let its writers pause for about {seconds + 1:.0f} s and run crossfade cutover again"
        )

    def switch_back(self, staged: Staged) -> None:
        self._versions.settle()
        if self.switched(staged):
            self._give_rows_back(staged)
            self._versions.exchange(staged.previous, staged.name)
            made_from = {"version": self._version_of(self._live), "index": str(self._like(staged))}
            write_json(self._assembly(staged), made_from)

    def switched(self, staged: Staged) -> bool:
        return self._versions.switched(staged)

    def drop_old(self, staged: Staged) -> None:
        self._versions.settle()
        self._versions.end(staged)
        self._versions.drop(staged.previous)
        self._forget(staged)

    def drop_new(self, staged: Staged) -> None:
        self._versions.settle()
        if self.switched(staged):
            raise StoreError(f"{self.uri}: the new vectors are in use; roll back before they are dropped")
        self._versions.end(staged)
        self._forget(staged)
        self._versions.drop(staged.name)

    def _forget(self, staged: Staged) -> None:
        self._assembly(staged).unlink(missing_ok=True)
        remove_folder(self._parts_folder(staged))

    # --- surroundings -------------------------------------------------------------------------

    @property
    def neighbourhood(self) -> Path:
        return self._versions.neighbourhood

    @property
    def journal(self) -> Path:
        return self.neighbourhood / f"{file_name(self._live.name)}.{file_name(self.column)}.sqlite"

    def bytes_for(self, rows: int, dimension: int) -> int:
        """The vectors twice, as parts and in the new file, and there whatever else the file holds."""
        content = self._content()
        besides = max(0, self._live.stat().st_size - content.rows * content.dimension * 4)
        return 2 * super().bytes_for(rows, dimension) + besides

    def count_null(self, column: str) -> int:
        return sum(int(np.count_nonzero(batch.null)) for batch in self.scan(column))

    def cache(self, name: str, space: Space) -> IdCache:
        return IdCache(
            self.neighbourhood / f"{file_name(self._live.name)}.{file_name(name)}.cache.sqlite", space
        )

    def _parts_folder(self, staged: Staged) -> Path:
        return self.neighbourhood / staged.upgrade / "parts"

    def _assembly(self, staged: Staged) -> Path:
        return self._versions.folder / f"{file_name(staged.name)}.json"

    def _spans(self, staged: Staged) -> list[Span]:
        """Parts of the old vectors as they are now."""
        old = self.columns_of(staged)[0]
        path = self._live if old == self.column else self._versions.place(old)
        listing = Listing(self._parts_folder(staged), self.part_rows)
        content, self._listed = self._content(old), None
        spans = listing.spans(content, self._version_of(path), staged.reads)
        self._listed = spans
        return spans

    _listed: list[Span] | None = None

    def _last_spans(self) -> list[Span]:
        if self._listed is None:
            raise UsageError(f"{self.uri}: list the parts of an upgrade before a sample of them is taken")
        return self._listed

    def _content(self, name: str | None = None) -> Content:
        """The vectors called `name`, of the version that is there now."""
        path = self._live if name in (None, self.column) else self._versions.place(str(name))
        if not path.exists():
            raise StoreError(
                f"{self.uri}: no vectors {name!r}, only {self.column!r}; if the file was replaced too often "
                "for its new version to be written, let its writers pause and run crossfade apply again"
            )
        version = self._version_of(path)
        held = self._opened.get(path)
        if held is None or held[0] != version:
            if held is not None:
                held[1].close()
            held = self._opened[path] = (version, self._open_file(path, self._live))
        return held[1]
