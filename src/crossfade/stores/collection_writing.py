"""Write the new vectors of points into another collection, and only of those that changed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from crossfade.errors import InvalidVectors, StoreError
from crossfade.stores.collection import Collection, Points, in_order
from crossfade.stores.collection_parts import Members, checksum_of, digests_of, read_points, source_of
from crossfade.stores.ledger import NOTHING, Entry, Ledger, vector_digests
from crossfade.stores.records import Produce, Receipt, Rows, Staged
from crossfade.vectors.channel import read_ahead, write_behind
from crossfade.vectors.ids import first_few


@dataclass(frozen=True, slots=True)
class _Digested:
    """Points with the digests of all that each is, and of its payload."""

    points: Points
    digests: list[int]
    payloads: list[int]

    def select(self, rows: list[int]) -> _Digested:
        digests, payloads = ([one[row] for row in rows] for one in (self.digests, self.payloads))
        return _Digested(self.points.select(rows), digests, payloads)


@dataclass(frozen=True, slots=True)
class PointWriter:
    """Brings points of `old`, with new vectors, into `new`.

    Attributes:
        ledger: what was written so far.
        what: the store, for messages.
        switched: whether the application reads and writes `new` by now, so that what it wrote stays.
    """

    old: Collection
    new: Collection
    ledger: Ledger
    staged: Staged
    what: str
    switched: bool

    def write(self, members: Members, produce: Produce, rows: int, made: str) -> Receipt:
        """Write a part, at most `rows` points at a time; `made` names this making of the new collection."""
        ids: list[Any] = []
        sources: list[int] = []
        read = self._read(members, min(rows, self.new.rows_at_once), ids, sources)
        if self.switched:  # as little time as can be between looking whether a point is ours and writing it
            self._store(self._made_of(read, produce))
        else:
            with closing(read_ahead(read)) as ahead, closing(self._made_of(ahead, produce)) as made_of:
                write_behind(made_of, self._store)
        written = [entry.new if entry else NOTHING for entry in self.ledger.get(ids)]
        bytes_ = 4 * self.new.dimension * (len(ids) - written.count(NOTHING))
        location = {"collection": self.new.name, "made": made, "bytes": bytes_}
        source, nulls = source_of(ids, sources), written.count(NOTHING)
        return Receipt(members.key, source, len(ids), nulls, checksum_of(written), location)

    def _read(self, members: Members, rows: int, ids: list[Any], sources: list[int]) -> Iterator[_Digested]:
        """The points of a part; what they were is added to `ids` and `sources`."""
        for points in read_points(self.old, members.ids, rows):
            digests, payloads = digests_of(points)
            ids += points.ids
            sources += digests
            yield _Digested(points, digests, payloads)

    def left_behind(self) -> list[Any]:
        """Ids of points written to the old collection, or deleted from it, that were not brought over."""
        seen: set[Any] = set()
        left: list[Any] = []
        for points in self.old.scan():
            seen.update(points.ids)
            left += [points.ids[row] for row in self._to_do(points, digests_of(points)[0])]
        return left + self._deleted([one for one in self.ledger.ids() if one not in seen])

    def _deleted(self, ids: list[Any]) -> list[Any]:
        """Those of these points that the new collection still has as they were written into it."""
        there = self.new.get(ids)
        entries = self.ledger.get(there.ids)
        now = vector_digests(there.vectors, there.null)
        found = zip(there.ids, entries, now, strict=True)
        return [one for one, entry, digest in found if entry and entry.new == digest]

    def _made_of(
        self, batches: Iterable[_Digested], produce: Produce
    ) -> Generator[tuple[_Digested, Points], None, None]:
        """Points that are to be written, and what they become."""
        for batch in batches:
            if chosen := self._to_do(batch.points, batch.digests):
                todo = batch.select(chosen)
                yield todo, self._made(todo.points, produce)

    def _store(self, batches: Iterable[tuple[_Digested, Points]]) -> None:
        """Write points, and only then enter them into the ledger."""
        for todo, made in batches:
            self.new.put(made)
            kept = made if self.new.gives_back else self._read_back(todo.points)
            rows = zip(todo.digests, todo.payloads, vector_digests(kept.vectors, kept.null), strict=True)
            self.ledger.put(made.ids, [Entry(*one) for one in rows])

    def _read_back(self, todo: Points) -> Points:
        """What the server keeps of points that were written."""
        back = self.new.get(todo.ids)
        if len(back) == len(todo):
            return back.select(in_order(back, todo.ids))
        return self._with_gaps(back, todo)

    def _with_gaps(self, back: Points, todo: Points) -> Points:
        """What was read back, where points without a vector are not kept at all."""
        places = np.array(in_order(back, todo.ids))
        vectors = np.full((len(todo), self.new.dimension), np.nan, dtype=np.float32)
        vectors[places >= 0] = back.vectors[places[places >= 0]]
        return Points(todo.ids, vectors, (places < 0) | np.isnan(vectors[:, 0]), todo.payloads)

    def _to_do(self, points: Points, digests: list[int]) -> list[int]:
        """Points not written, or written before they changed; after the switch only while they are ours."""
        known = self.ledger.get(points.ids)
        rows = [
            row
            for row, entry in enumerate(known)
            if entry is None or entry.source != digests[row] or entry.new == NOTHING
        ]
        if not self.switched or not rows:
            return rows
        live = self.new.get([points.ids[row] for row in rows])
        now = dict(zip(live.ids, vector_digests(live.vectors, live.null), strict=True))
        return [row for row in rows if _is_ours(known[row], now.get(points.ids[row]))]

    def _made(self, points: Points, produce: Produce) -> Points:
        kept = np.zeros(len(points), dtype=bool)
        written: np.ndarray | None = None
        if points.null.any():
            written, kept = self._written_by_others(points)
        columns = self.old.columns(points, self.staged.reads)
        rows = Rows(pa.array(points.ids), points.vectors, points.null, columns, kept if kept.any() else None)
        made = produce(rows)
        expected = (len(points), self.new.dimension)
        if made.vectors.shape != expected:
            raise InvalidVectors(f"{self.what}: expected new vectors {expected}, got {made.vectors.shape}")
        vectors = made.vectors if written is None else np.where(kept[:, None], written, made.vectors)
        null = ~(made.valid | kept)
        if null.any() and not self.new.keeps_null:
            without = [points.ids[row] for row in np.flatnonzero(null)]
            raise StoreError(
                f"{self.what}: {len(without)} rows get no new vector ({first_few(without)}), and this "
                "collection keeps no row without one; give them what the new model needs, or delete them"
            )
        return Points(points.ids, vectors, null, points.payloads)

    def _written_by_others(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """New vectors of points without an old one, which only the application can have written."""
        there = self.new.get(points.ids)
        places = np.array(in_order(there, points.ids), dtype=np.int64)
        vectors = np.zeros((len(points), self.new.dimension), dtype=np.float32)
        kept = (places >= 0) & points.null
        kept[kept] = ~there.null[places[kept]]
        vectors[kept] = there.vectors[places[kept]]
        return vectors, kept

    def give_back(self) -> None:
        """Let the old collection have the payloads of the new one, its further points, and its deletions."""
        seen: set[object] = set()
        for points in self.new.scan():
            seen.update(points.ids)
            known, payloads = self.ledger.get(points.ids), digests_of(points)[1]
            changed = [row for row, one in enumerate(known) if one and one.payload != payloads[row]]
            if changed:
                self.old.put_payloads(points.select(changed))
            if self.old.keeps_null:
                self._add(points.select([row for row, one in enumerate(known) if one is None]))
        self.old.delete([one for one in self.ledger.ids() if one not in seen])

    def _add(self, points: Points) -> None:
        """Points that only the new collection has come without an old vector."""
        here = set(self.old.get(points.ids).ids) if len(points) else set()
        rows = [row for row, one in enumerate(points.ids) if one not in here]
        if rows:
            new = points.select(rows)
            nothing = np.full((len(new), self.old.dimension), np.nan, dtype=np.float32)
            self.old.put(Points(new.ids, nothing, np.ones(len(new), dtype=bool), new.payloads))


def _is_ours(entry: Entry | None, now: int | None) -> bool:
    """Whether a point of the collection in use may be written: nobody wrote or deleted it since we did."""
    if entry is None:
        return now is None
    return now == entry.new
