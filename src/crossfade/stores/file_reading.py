"""A column of vectors in a file, and the versions of it: reading."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores.address import Address
from crossfade.stores.base import Store
from crossfade.stores.file_content import Content, Positions, Unreadable, identity
from crossfade.stores.file_parts import Span
from crossfade.stores.file_versions import Versions, file_name
from crossfade.stores.id_cache import IdCache
from crossfade.stores.records import Description, Hits, Rows
from crossfade.vectors import BATCH_ROWS, FloatMatrix

PART_ROWS = 65_536


class FileReader(Store):
    """Reads the vectors in use, and those that lie beside them.

    Args:
        address: the file, and the name of the vectors.
        id_column: where ids come from.

    Attributes:
        part_rows: rows that are written together.
    """

    part_rows = PART_ROWS
    _listed: list[Span] | None = None

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

    @abstractmethod
    def _open_file(self, path: Path, live: Path) -> Content:
        """Open a version of the file; `live` is the one in use, beside which others may lie."""

    def _version_of(self, path: Path) -> str:
        """Changes when what is read with the file at `path` is written; begins with the file's identity."""
        return identity(path)

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
        self._require_queries(queries, content.dimension, self._versions.space(name), space)
        ranked = content.nearest(queries, k, space.metric, exact)
        self._found = {}
        return [self._hits(content, positions, scores, columns) for positions, scores in ranked]

    def _hits(
        self, content: Content, positions: Positions, scores: NDArray[np.float32], columns: Sequence[str]
    ) -> Hits:
        ids, further = content.ids_at(positions, columns)
        self._found.update(zip(positions.tolist(), ids.to_pylist(), strict=True))
        return Hits(ids, scores, positions.astype(np.uint64), further)

    def fetch(self, handles: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        content = self._content()
        ids = pa.array([self._found.get(int(one)) for one in handles], type=content.id_type)
        positions = np.full(len(ids), -1)
        if not ids.null_count:
            positions = content.find(ids)
        gone = int(np.count_nonzero(positions < 0))
        if gone:
            raise StoreError(f"{self.uri}: {gone} rows were deleted while they were searched; search again")
        return pa.table(dict(content.ids_at(positions, columns)[1]))

    def space(self) -> Space | None:
        return self._versions.space()

    def count_null(self, column: str) -> int:
        return sum(int(np.count_nonzero(batch.null)) for batch in self.scan(column))

    # --- surroundings -------------------------------------------------------------------------

    def record_space(self, space: Space) -> None:
        self._versions.record(space)

    @property
    def neighbourhood(self) -> Path:
        return self._versions.neighbourhood

    @property
    def journal(self) -> Path:
        return self.neighbourhood / f"{file_name(self._live.name)}.{file_name(self.column)}.sqlite"

    def cache(self, name: str, space: Space) -> IdCache:
        return IdCache(
            self.neighbourhood / f"{file_name(self._live.name)}.{file_name(name)}.cache.sqlite", space
        )

    def _last_spans(self) -> list[Span]:
        if self._listed is None:
            raise UsageError(f"{self.uri}: list the parts of an upgrade before a sample of them is taken")
        return self._listed

    def _content(self, name: str | None = None) -> Content:
        """The vectors called `name`, of the version that is there now."""
        path = self._live if name in (None, self.column) else self._versions.place(str(name))
        if not path.exists():
            raise Unreadable(
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
