"""One collection of a Chroma server or folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.spaces import Metric, Space
from crossfade.stores.chroma_server import ChromaServer
from crossfade.stores.collection import Collection, Points
from crossfade.stores.durable import read_json, write_json
from crossfade.stores.refused import Refused
from crossfade.vectors import BATCH_ROWS, FloatMatrix

SPACE = "crossfade.space"
LEGACY = "hnsw:space"
DOCUMENT, URI = "chroma:document", "chroma:uri"
"""Chroma keeps names that begin so for itself, so that no metadata can have them."""
METRICS: dict[str, Metric] = {"cosine": "cosine", "ip": "dot", "l2": "l2"}
NAMES = {metric: name for name, metric in METRICS.items()}
IDS_AT_ONCE = 100_000
ATTEMPTS = 10
VANISHED = "Error finding id"
SENT_BYTES = 8 << 20
"""Vectors in one call; they travel as text, which is three times as long."""


class ChromaCollection(Collection):
    """The records of a collection, which is known by its UUID: names change.

    Args:
        found: the library's object.
        spaces: file of this machine for the spaces of collections whose metadata cannot be changed.
    """

    keeps_null = False

    def __init__(self, server: ChromaServer, found: Any, spaces: Path) -> None:
        self._server, self._found, self._spaces = server, found, spaces
        self.name = str(found.id)
        self.configuration: dict[str, Any] = dict(found.configuration_json)
        index = self.configuration.get("hnsw") or self.configuration.get("spann") or {}
        self.metric: Metric = METRICS.get(index.get("space", "l2"), "l2")
        first = server.ask(found.get, limit=1, include=["embeddings"])["embeddings"]
        recorded = self.space()  # Chroma learns the dimension with the first record
        self.dimension = len(first[0]) if len(first) else recorded.dimension if recorded else 0
        self.gives_back = self.metric != "cosine"  # by cosine they come back rounded, from unit length
        self.rows_at_once = max(1, min(BATCH_ROWS, SENT_BYTES // (4 * (self.dimension or 1))))
        self._most = int(server.ask(server.client.get_max_batch_size))

    @property
    def called(self) -> str:
        """The name that it has now."""
        return str(self._found.name)

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._server.ask(self._found.modify, name=name)

    # --- reading ------------------------------------------------------------------------------

    def scan(self, rows: int = BATCH_ROWS) -> Iterator[Points]:
        rows, start = min(rows, self.rows_at_once), 0
        while True:
            points = self._get(limit=rows, offset=start)
            if len(points):
                yield points
            if len(points) < rows:
                return
            start += rows

    def get(self, ids: Sequence[Any]) -> Points:
        wanted = [one for one in ids if isinstance(one, str)]
        parts = [
            self._get(ids=wanted[start : start + self.rows_at_once])
            for start in range(0, len(wanted), self.rows_at_once)
        ] or [Points([], np.empty((0, self.dimension), np.float32), np.empty(0, bool), [])]
        vectors = np.concatenate([one.vectors for one in parts])
        null = np.concatenate([one.null for one in parts])
        ids = [one for part in parts for one in part.ids]
        return Points(ids, vectors, null, [one for part in parts for one in part.payloads])

    def ids(self) -> list[Any]:
        found: list[Any] = []
        while True:
            page = self._server.ask(self._found.get, include=[], limit=IDS_AT_ONCE, offset=len(found))["ids"]
            found += page
            if len(page) < IDS_AT_ONCE:
                return found

    def present(self, ids: Sequence[Any]) -> set[Any]:
        wanted = [one for one in ids if isinstance(one, str)]
        found: set[Any] = set()
        for start in range(0, len(wanted), self.rows_at_once):
            chosen = wanted[start : start + self.rows_at_once]
            found.update(self._server.ask(self._found.get, ids=chosen, include=[])["ids"])
        return found

    def _get(self, **which: Any) -> Points:
        include = ["embeddings", "metadatas", "documents", "uris"]
        found = self._read(include=include, **which)
        vectors = np.asarray(found["embeddings"], dtype=np.float32).reshape(-1, self.dimension or 1)
        columns = (found[name] or [None] * len(found["ids"]) for name in ("metadatas", "documents", "uris"))
        payloads = [_payload(*one) for one in zip(*columns, strict=True)]
        return Points(list(found["ids"]), vectors, np.zeros(len(vectors), dtype=bool), payloads)

    def _read(self, **which: Any) -> Any:
        """Records; the server fails to give any if one of them is deleted while it collects them."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._server.ask(self._found.get, **which)
            except Refused as error:
                if VANISHED not in str(error):
                    raise
        return self._server.ask(self._found.get, **which)

    def count(self) -> int:
        return int(self._server.ask(self._found.count))

    # --- writing ------------------------------------------------------------------------------

    def put(self, points: Points) -> None:
        at_once = min(self.rows_at_once, self._most)
        for start in range(0, len(points), at_once):
            part = points.select(range(start, min(start + at_once, len(points))))
            self.forget_further_names(part)
            self._put(part)

    def _put(self, points: Points) -> None:
        """Records that have the same of metadata, document and URI go together: Chroma takes all or none."""
        alike: dict[tuple[bool, ...], list[int]] = {}
        kinds = [_columns(one) for one in points.payloads]
        for row, columns in enumerate(kinds):
            alike.setdefault(tuple(one is not None for one in columns), []).append(row)
        for has, rows in alike.items():
            names = ("metadatas", "documents", "uris")
            chosen = {name: [kinds[row][n] for row in rows] for n, name in enumerate(names) if has[n]}
            ids = [points.ids[row] for row in rows]
            self._server.ask(self._found.upsert, ids=ids, embeddings=points.vectors[rows], **chosen)

    def put_payloads(self, points: Points) -> None:
        there = self.get(points.ids)
        wanted = dict(zip(points.ids, points.payloads, strict=True))
        self.put(Points(there.ids, there.vectors, there.null, [wanted[one] for one in there.ids]))

    def delete(self, ids: Sequence[Any]) -> None:
        for start in range(0, len(ids), self._most):
            self._server.ask(self._found.delete, ids=list(ids[start : start + self._most]))

    # --- space and search ---------------------------------------------------------------------

    @property
    def metadata(self) -> dict[str, Any]:
        """Of the collection itself, without what Crossfade keeps there."""
        return {name: value for name, value in (self._found.metadata or {}).items() if name != SPACE}

    def space(self) -> Space | None:
        kept = (self._found.metadata or {}).get(SPACE)
        found = json.loads(kept) if kept else (read_json(self._spaces) or {}).get(self.name)
        return Space.from_dict(found) if found else None

    def record_space(self, space: Space) -> None:
        if self.space() == space:
            return
        if LEGACY in self.metadata:  # Chroma then lets nobody change the metadata without losing that entry
            write_json(self._spaces, {**(read_json(self._spaces) or {}), self.name: space.to_dict()})
            return
        kept = {**self.metadata, SPACE: json.dumps(space.to_dict())}
        self._server.ask(self._found.modify, metadata=kept)

    def ranked(
        self, queries: FloatMatrix, k: int, metric: Metric, exact: bool
    ) -> list[tuple[list[Any], Any]]:
        if exact:
            return self.ranked_by_reading(queries, k, metric)
        return super().ranked(queries, k, metric, exact)

    def nearest(
        self, query: NDArray[np.float32], k: int, exact: bool
    ) -> tuple[list[Any], NDArray[np.float32]]:
        found = self._server.ask(
            self._found.query, query_embeddings=[query], n_results=k, include=["distances"]
        )
        distances = np.array(found["distances"][0], dtype=np.float32)
        return list(found["ids"][0]), -distances if self.metric == "l2" else 1 - distances


def _payload(metadata: Any, document: Any, uri: Any) -> dict[str, Any]:
    others = {DOCUMENT: document, URI: uri}
    return {**(metadata or {}), **{name: value for name, value in others.items() if value is not None}}


def _columns(payload: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None, str | None]:
    """Metadata, document and URI of a record; None for each that it does not have."""
    metadata = {name: value for name, value in payload.items() if name not in (DOCUMENT, URI)}
    return metadata or None, payload.get(DOCUMENT), payload.get(URI)
