"""One collection of a Milvus server, or of Milvus Lite."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import StoreError
from crossfade.spaces import Metric, Space
from crossfade.stores.collection import Collection, Points
from crossfade.stores.milvus_schema import EXACT, METRICS, SPACES, FieldIndex, indexes
from crossfade.stores.milvus_server import MilvusServer
from crossfade.stores.records import IndexInfo
from crossfade.vectors import BATCH_ROWS, FloatMatrix

STRONG = {"consistency_level": "Strong"}
IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True"}
"""With a limit, the rows of the smallest ids."""
SENT_BYTES = 8 << 20
"""Vectors in one call: a server takes and gives 64 MB, unless it is set otherwise, with the other fields."""
IDS_AT_ONCE = 16_384
"""The most that a server gives in one page."""
INDEX_SECONDS = 3600
POLL_SECONDS = 0.5


class MilvusCollection(Collection):
    """The rows of the collection `name`; their vectors are in the field `field`."""

    gives_back = True

    def __init__(self, server: MilvusServer, name: str, field: str) -> None:
        self._server, self.name, self.field = server, name, field
        self.described: dict[str, Any] = dict(server.call("describe_collection", name))
        fields = {one["name"]: one for one in self.described["fields"]}
        self.dimension = int(fields[field]["params"]["dim"])
        self.keeps_null = bool(fields[field].get("nullable"))
        self.id_name = next(one for one in fields if fields[one].get("is_primary"))
        sizes = [int(one["params"].get("dim", 0)) for one in self.described["fields"]]
        self.rows_at_once = max(1, min(BATCH_ROWS, SENT_BYTES // (4 * sum(sizes))))
        self._made_by_server = {
            one for made in self.described.get("functions", []) for one in made["output_field_names"]
        }
        self._load()

    def _load(self) -> None:
        """Only what is loaded can be read."""
        state = str(self._server.call("get_load_state", self.name).get("state"))
        if "NotLoad" in state and (self._server.is_lite or self._index):
            self._server.call("load_collection", self.name)

    @cached_property
    def _index(self) -> FieldIndex | None:
        """Asked for where it is needed: Milvus Lite counts all rows to answer."""
        return next((one for one in indexes(self._server, self.name) if one.field == self.field), None)

    @cached_property
    def metric(self) -> Metric:  # type: ignore[override]
        return METRICS.get(self._index.metric if self._index else "", "cosine")

    # --- reading ------------------------------------------------------------------------------

    def scan(self, rows: int = BATCH_ROWS) -> Iterator[Points]:
        rows = min(rows, self.rows_at_once)
        if self._server.is_lite:
            yield from self._scan_by_id(rows)
            return
        for found in self._pages(rows, ["*"]):
            yield self._points(found)

    def _scan_by_id(self, rows: int) -> Iterator[Points]:
        """Milvus Lite goes through all rows for each page of them, but not for rows by their ids."""
        ids = self.ids()
        for start in range(0, len(ids), rows):
            points = self.get(ids[start : start + rows])
            if len(points):
                yield points

    def ids(self) -> list[Any]:
        if self._server.is_lite:
            self._server.call("flush", self.name)  # it reads its memory many times slower than its files
            found = self._server.call("query", self.name, output_fields=[self.id_name], **STRONG)
            return sorted(one[self.id_name] for one in found)
        pages = self._pages(IDS_AT_ONCE, [self.id_name])
        return [one[self.id_name] for page in pages for one in page]

    def _pages(self, rows: int, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        """All rows in the order of their ids; the library's own iterator does not escape these."""
        after = ""
        while True:
            found = self._server.call(
                "query", self.name, filter=after, limit=rows, output_fields=fields, **IN_ORDER, **STRONG
            )
            if not found:
                return
            yield (page := sorted(found, key=lambda one: one[self.id_name]))
            after = f"{self.id_name} > {_literal(page[-1][self.id_name])}"

    def get(self, ids: Sequence[Any]) -> Points:
        return self._points(self._by_id(ids, ["*"]))

    def present(self, ids: Sequence[Any]) -> set[Any]:
        return {one[self.id_name] for one in self._by_id(ids, [self.id_name])}

    def _by_id(self, ids: Sequence[Any], fields: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for start in range(0, len(ids), self.rows_at_once):
            chosen = self._filter(ids[start : start + self.rows_at_once])
            found += self._server.call("query", self.name, filter=chosen, output_fields=fields, **STRONG)
        return found

    def _filter(self, ids: Sequence[Any]) -> str:
        return f"{self.id_name} in [{', '.join(map(_literal, ids))}]"

    def _points(self, found: list[dict[str, Any]]) -> Points:
        vectors = np.full((len(found), self.dimension), np.nan, dtype=np.float32)
        payloads = []
        for row, one in enumerate(found):
            if one.get(self.field) is not None:
                vectors[row] = one[self.field]
            own = {self.field, self.id_name} | self._made_by_server
            payloads.append({name: _plain(value) for name, value in one.items() if name not in own})
        return Points([one[self.id_name] for one in found], vectors, np.isnan(vectors[:, 0]), payloads)

    def count(self) -> int:
        found = self._server.call("query", self.name, output_fields=["count(*)"], **STRONG)
        return int(found[0]["count(*)"])

    # --- writing ------------------------------------------------------------------------------

    def put(self, points: Points) -> None:
        for start in range(0, len(points), self.rows_at_once):
            part = points.select(range(start, min(start + self.rows_at_once, len(points))))
            if self._server.is_lite and self.described.get("enable_dynamic_field"):
                self.forget_further_names(part)
            self._server.call("upsert", self.name, self._rows(part))

    @property
    def payload(self) -> tuple[str, ...]:
        """Names of the fields beside the ids and the vectors."""
        own = {self.field, self.id_name} | self._made_by_server
        return tuple(one["name"] for one in self.described["fields"] if one["name"] not in own)

    def _rows(self, points: Points) -> list[dict[str, Any]]:
        made = []
        rows = zip(points.ids, points.vectors, points.null, points.payloads, strict=True)
        for one, vector, null, payload in rows:
            if null and not self.keeps_null:
                raise StoreError(
                    f"{self.name}: row {one!r} has no vector, and field {self.field!r} is not nullable"
                )
            made.append({self.id_name: one, self.field: None if null else vector, **payload})
        return made

    def put_payloads(self, points: Points) -> None:
        there = self.get(points.ids)
        wanted = dict(zip(points.ids, points.payloads, strict=True))
        self.put(Points(there.ids, there.vectors, there.null, [wanted[one] for one in there.ids]))

    def delete(self, ids: Sequence[Any]) -> None:
        for start in range(0, len(ids), BATCH_ROWS):
            self._server.call("delete", self.name, filter=self._filter(ids[start : start + BATCH_ROWS]))

    # --- space, index, search -----------------------------------------------------------------

    def space(self) -> Space | None:
        kept = self._spaces().get(self.field)
        return Space.from_dict(kept) if kept else None

    def _spaces(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.described.get("properties", {}).get(SPACES) or "{}")
        return found

    def record_space(self, space: Space) -> None:
        kept = json.dumps({**self._spaces(), self.field: space.to_dict()})
        self._server.call("alter_collection_properties", self.name, {SPACES: kept})
        self.described["properties"] = {**self.described.get("properties", {}), SPACES: kept}

    def index(self) -> IndexInfo | None:
        return None if self._index is None or self._index.type in EXACT else self._index.info()

    @property
    def field_index(self) -> FieldIndex | None:
        """The index of the vectors, one that compares with every row included."""
        return self._index

    def settle(self) -> None:
        """Wait until what has been written is indexed.

        Raises:
            StoreError: the server takes too long.
        """
        deadline = time.monotonic() + INDEX_SECONDS
        while any(one.pending for one in indexes(self._server, self.name)):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"the server is still indexing {self.name!r} after {INDEX_SECONDS} s; "
                    "nothing was switched: run crossfade cutover again later"
                )
            time.sleep(POLL_SECONDS)

    def ranked(
        self, queries: FloatMatrix, k: int, metric: Metric, exact: bool
    ) -> list[tuple[list[Any], Any]]:
        approximates = self._index is not None and self._index.type not in EXACT
        if (exact and approximates) or self._index is None:
            return self.ranked_by_reading(queries, k, metric)
        return super().ranked(queries, k, metric, exact)

    def nearest(
        self, query: NDArray[np.float32], k: int, exact: bool
    ) -> tuple[list[Any], NDArray[np.float32]]:
        assert self._index is not None
        graph = {"ef": max(2 * k, 64)} if "HNSW" in self._index.type else {}
        found = self._server.call(
            "search",
            self.name,
            data=[query.tolist()],
            anns_field=self.field,
            limit=k,
            search_params={"metric_type": self._index.metric, "params": graph},
            **STRONG,
        )[0]
        scores = np.array([one["distance"] for one in found], dtype=np.float32)
        return [one[self.id_name] for one in found], -scores if self.metric == "l2" else scores


def _literal(one: Any) -> str:
    """An id as it stands in an expression."""
    return json.dumps(one, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """A value as Python's own, where the library has a list of its own."""
    return (
        list(value)
        if not isinstance(value, str | bytes | dict | list) and hasattr(value, "__iter__")
        else value
    )
