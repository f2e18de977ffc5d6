"""Write the new vectors of points beside their old ones."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfade.stores.collection import Points, in_order
from crossfade.stores.collection_parts import Members, checksum_of, digests_of, read_points, source_of
from crossfade.stores.collection_writing import PointWriter
from crossfade.stores.ledger import NOTHING, Entry, combined, vector_digests
from crossfade.stores.qdrant_vector import NamedVector, VectorPair, joined
from crossfade.stores.records import Produce, Receipt
from crossfade.vectors.channel import read_ahead

NOT_OURS = 1
"""Digest in the ledger of a new vector that was never written by us."""
TINY = 1e-30
ROUNDED = 0.01
"""Relative difference of a vector that a server gives back with fewer bits."""


@dataclass(frozen=True)
class VectorWriter(PointWriter):
    """Gives points, which stay the same ones, the new vectors that they lack or that are out of date.

    Attributes:
        pair: both vectors of the points.
        used: whether the new vectors have been in use before, so that the application may have written some.
    """

    new: NamedVector
    pair: VectorPair
    used: bool

    def write(self, members: Members, produce: Produce, rows: int, made: str) -> Receipt:
        ids, sources, written = list[Any](), list[int](), list[int]()
        batches = read_points(self.pair, members.ids, rows)
        with closing(batches if self.switched else read_ahead(batches)) as read:
            for points in read:
                after = self._brought(points, produce)
                new = self.pair.halves(after)[1]
                ids += after.ids
                sources += digests_of(after)[0]
                written += vector_digests(new.vectors, new.null)
        nulls = written.count(NOTHING)
        location = {
            "collection": self.new.name,
            "made": made,
            "bytes": 4 * self.new.dimension * (len(ids) - nulls),
        }
        return Receipt(members.key, source_of(ids, sources), len(ids), nulls, checksum_of(written), location)

    def _brought(self, points: Points, produce: Produce) -> Points:
        """The points as they are once their new vectors are written, without those deleted meanwhile.

        A point whose new vector others have changed again by then is given back as it was written, so that
        its part, listed again, differs from this.
        """
        old, new = self.pair.halves(points)
        digests, payloads = digests_of(old)
        chosen = self._stale(old, digests, vector_digests(new.vectors, new.null))
        if not chosen:
            return points
        made = self._made(old.select(chosen), produce)
        self._put(made, new.select(chosen))
        back = self.new.get(made.ids)
        places = np.array(in_order(back, made.ids), dtype=np.int64)
        vectors, entries = new.vectors.copy(), dict[Any, Entry]()
        now = vector_digests(back.vectors, back.null)
        for row, place, intended, null in zip(chosen, places, made.vectors, made.null, strict=True):
            wanted = np.full_like(intended, np.nan) if null else intended
            kept = place >= 0 and self._is_kept(back.vectors[place], wanted)
            vectors[row] = back.vectors[place] if kept else wanted
            if kept:
                ours = null or not old.null[row]  # else it is the application's, which stays
                entries[points.ids[row]] = Entry(
                    digests[row], payloads[row], now[place] if ours else NOT_OURS
                )
        self.ledger.put(list(entries), list(entries.values()))
        gone = {row for row, place in zip(chosen, places, strict=True) if place < 0}
        both = joined(old, Points(new.ids, vectors, new.null, new.payloads))
        return both.select([row for row in range(len(points)) if row not in gone])

    def _put(self, made: Points, before: Points) -> None:
        """Write; after the switch, unless the application has written since it was seen `before`.

        A server can be told to write what is missing only. For other points, looking again leaves the
        application a moment in which its vector is lost.
        """
        if not self.switched:
            self.new.put(made)
            return
        self.new.put_missing(made.select(np.flatnonzero(before.null).tolist()))
        there = np.flatnonzero(~before.null)
        again = self.new.get([before.ids[row] for row in there])
        now = dict(zip(again.ids, again.vectors, strict=True))
        same = [
            row
            for row in there.tolist()
            if before.ids[row] in now and np.array_equal(now[before.ids[row]], before.vectors[row])
        ]
        self.new.put(made.select(same))

    def _is_kept(self, found: np.ndarray, written: np.ndarray) -> bool:
        """Whether this is what was written, as the server rounds and scales it."""
        if self.new.metric == "cosine":
            written = written / max(float(np.linalg.norm(written)), TINY)
        return bool(np.allclose(found, written, rtol=ROUNDED, atol=ROUNDED * _size(written), equal_nan=True))

    def _stale(self, old: Points, digests: list[int], now: list[int]) -> list[int]:
        """Points whose new vector is missing or out of date; `digests` of the old ones, `now` of the new."""
        vectors = vector_digests(old.vectors, old.null)
        rows = zip(self.ledger.get(old.ids), digests, vectors, now, strict=True)
        return [row for row, one in enumerate(rows) if self._is_stale(*one)]

    def _is_stale(self, entry: Entry | None, source: int, vector: int, now: int) -> bool:
        """Of one point, by the digests of all that it is, of its old `vector`, of its new one `now`."""
        if self.switched and vector == NOTHING:
            return False
        if now == NOTHING:
            return True
        if entry is None:  # not written by us, or not to the end
            return not self.switched and (vector == NOTHING or not self.used)
        if entry.new == now:
            return entry.source != source
        if self.switched:  # what the application writes stays
            return False
        return not self.used or vector == NOTHING or combined(vector, entry.payload) != entry.source

    def give_back(self) -> None:
        """Note which new vectors are the application's own, and beside what: going forward leaves them."""
        for points in self.pair.scan():
            old, new = self.pair.halves(points)
            rows = zip(
                old.ids,
                *digests_of(old),
                vector_digests(new.vectors, new.null),
                self.ledger.get(old.ids),
                strict=True,
            )
            own = {
                one: Entry(source, payload, entry.new if entry else NOT_OURS)
                for one, source, payload, now, entry in rows
                if now != NOTHING and (entry is None or entry.new != now)
            }
            self.ledger.put(list(own), list(own.values()))

    def left_behind(self) -> list[Any]:
        """Ids of points that others wrote under the old name alone since the switch."""
        left = []
        for points in self.pair.scan():
            old, new = self.pair.halves(points)
            digests, now = digests_of(old)[0], vector_digests(new.vectors, new.null)
            stale = self._stale(old, digests, now)
            known = self.ledger.get([old.ids[row] for row in stale])
            left += [
                old.ids[row]
                for row, entry in zip(stale, known, strict=True)
                if entry is None or entry.new != NOTHING or entry.source != digests[row]
            ]
        return left


def _size(vector: np.ndarray) -> float:
    return float(np.nan_to_num(np.abs(vector)).max())
