"""Stores of collections: new vectors go into a new collection, to which the application's name then moves.

Such a server tells neither what changed nor when. So what is written is kept account of by digests
(`ledger`), and all points are read again to find those that others have written. The last pass comes after
the switch, when nobody writes to the old collection any more: what was written in the instant of the
switch is brought over then. Before the switch the old collection's writers win; after it, whatever the
application writes into the new one stays.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Collection as AnyOf
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import StoreError
from crossfade.spaces import Space
from crossfade.stores.base import Store
from crossfade.stores.collection import Collection, Points, as_rows, in_order
from crossfade.stores.collection_parts import Members, Membership, checksum_of, read_digests, seconds_to_read
from crossfade.stores.collection_writing import PointWriter
from crossfade.stores.durable import read_json, write_json
from crossfade.stores.file_versions import remove_folder
from crossfade.stores.id_cache import IdCache
from crossfade.stores.ledger import NOTHING, Ledger, vector_digests
from crossfade.stores.records import (
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
)
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.ids import first_few

PART_ROWS = 16_384
PAYLOAD_ROWS = 256
REHEARSAL = "rehearsal"
"""Stands in the name of a collection in place of an upgrade."""
PASSES = 3
"""Times that all points are read around the switch: twice if nobody writes, four times where others do."""


class CollectionStore(Store):
    """The vectors of a collection.

    A subclass sets `uri`, `column` and `neighbourhood`, and says how collections are found, made, moved.

    Attributes:
        part_rows: points that are written together.
    """

    part_rows = PART_ROWS
    rehearsal_rows = 1024

    def __init__(self) -> None:
        self._members: dict[str, Members] = {}
        self._found: dict[int, Any] = {}

    # --- for subclasses -----------------------------------------------------------------------

    @abstractmethod
    def _live(self) -> Collection:
        """The collection that the application reads now."""

    @abstractmethod
    def _open(self, name: str) -> Collection | None:
        """A collection by its own name."""

    @abstractmethod
    def _create(self, like: Collection, staged: Staged) -> Collection:
        """An empty collection for the new vectors, with the settings of another."""

    @abstractmethod
    def _move(self, staged: Staged, facts: Mapping[str, str], *, back: bool) -> None:
        """Let the application's name mean the new collection, or the old one again."""

    @abstractmethod
    def _drop(self, name: str) -> None:
        """Delete a collection."""

    @abstractmethod
    def _new_name(self, staged: Staged) -> str:
        """Name of the new collection until the switch."""

    def _settled(self, collection: Collection) -> None:
        """Wait until the server has indexed what was written."""

    def _writable(self) -> bool:
        return True

    # --- reading ------------------------------------------------------------------------------

    def describe(self) -> Description:
        live = self._live()
        rows = live.count()
        return Description(
            uri=self.uri,
            column=self.column,
            rows=rows,
            dimension=live.dimension,
            column_type=f"fixed_size_list<float>[{live.dimension}]",
            id_column=live.id_name,
            payload=self._payload(live),
            index=live.index(),
            space=live.space(),
            version=live.name,
            content=f"{live.name} {rows}",
            parts=max(1, -(-rows // self.part_rows)),
            writable=self._writable(),
        )

    def _payload(self, live: Collection) -> tuple[str, ...]:
        """Names in the payloads of the first points; servers keep no list."""
        first = next(live.scan(PAYLOAD_ROWS), None)
        names = [name for one in first.payloads for name in one] if first else []
        return tuple(dict.fromkeys(names))

    def scan(
        self, column: str | None = None, *, rows: int = BATCH_ROWS, columns: Sequence[str] = ()
    ) -> Iterator[Rows]:
        live, other = self._live(), self._named(column)
        if other.name != live.name and not columns:
            ids = live.ids()
            for start in range(0, len(ids), rows):
                yield as_rows(_vectors_for(other, ids[start : start + rows]), {})
            return
        for points in live.scan(rows):
            found = points if other.name == live.name else _vectors_for(other, points.ids)
            yield as_rows(found, live.columns(points, columns))

    def sample(
        self, count: int, seed: int, vectors: Sequence[str], columns: Sequence[str], parts: AnyOf[str]
    ) -> tuple[Rows, ...]:
        live = self._live()
        ids = [one for key, members in self._members.items() if key in parts for one in members.ids]
        chosen = np.random.default_rng(seed).choice(len(ids), min(count, len(ids)), replace=False)
        points = live.get([ids[row] for row in np.sort(chosen)])
        further = live.columns(points, columns)
        named = [self._named(name) for name in vectors]
        found = (points if one.name == live.name else _vectors_for(one, points.ids) for one in named)
        return tuple(as_rows(one, further) for one in found)

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
        collection = self._named(column)
        self._require_queries(queries, collection.dimension, collection.space(), space)
        self._found = {}
        ranked = collection.ranked(queries, k, space.metric, exact)
        return [self._hits(collection, ids, scores, columns) for ids, scores in ranked]

    def _hits(
        self, collection: Collection, ids: list[Any], scores: NDArray[np.float32], columns: Sequence[str]
    ) -> Hits:
        start = len(self._found)
        self._found.update(enumerate(ids, start=start))
        further = {}
        if columns:
            points = collection.get(ids)
            further = collection.columns(points.select(in_order(points, ids)), columns)
        return Hits(pa.array(ids), scores, np.arange(start, start + len(ids), dtype=np.uint64), further)

    def fetch(self, handles: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        live, ids = self._live(), [self._found.get(int(one)) for one in handles]
        points = live.get([one for one in ids if one is not None])
        places = in_order(points, ids)
        if gone := places.count(-1):
            raise StoreError(f"{self.uri}: {gone} rows were deleted while they were searched; search again")
        return pa.table(live.columns(points.select(places), columns))

    def space(self) -> Space | None:
        return self._live().space()

    # --- writing ------------------------------------------------------------------------------

    def record_space(self, space: Space) -> None:
        self._live().record_space(space)

    def parts(self, staged: Staged) -> list[Part]:
        self._members = Membership(self._folder(staged), self.part_rows).outline(self._old(staged))
        return [one.part for one in self._members.values()]

    def rows_in_parts(self, staged: Staged) -> int:
        """Listing the parts takes a pass over all ids, so the last one counts."""
        listed = sum(len(one.ids) for one in self._members.values())
        return listed or super().rows_in_parts(staged)

    def pending(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        """Reads the parts that have been written; after a switch, every one.

        Also those that a rollback left to the application: its own points are known one by one.
        """
        receipts = {key: one for key, one in receipts.items() if one.location}
        self.parts(staged)
        every = self.switched(staged)
        known = [one for key, one in self._members.items() if every or key in receipts]
        read_digests(self._compared() or self._old(staged), known)
        parts = [one.part for one in self._members.values() if one.ids]
        facts = self._facts()
        made = facts.get("made") if self._open(facts.get("new", "")) else None
        return [one for one in parts if not _is_written(receipts.get(one.key), one, made)]

    def _compared(self) -> Collection | None:
        """What tells by its digests which points others have changed, once there are new vectors."""
        return self._open(self._facts().get("old", ""))

    def write_part(self, part: Part, staged: Staged, produce: Produce, *, rows: int = BATCH_ROWS) -> Receipt:
        if part.key not in self._members:
            self.parts(staged)
        members = self._members.get(part.key)
        if members is None:
            raise PartGone(f"{self.uri}: part {part.key} is gone: its points were deleted; run apply again")
        return self._writer(staged).write(members, produce, rows, self._facts()["made"])

    def _writer(self, staged: Staged) -> PointWriter:
        """Brings points of the old vectors over to the new ones."""
        old, new = self._old(staged), self._begun(staged)
        return PointWriter(old, new, self._ledger(staged), staged, self.uri, switched=self.switched(staged))

    def _begun(self, staged: Staged) -> Collection:
        """The new collection, made when first needed; whatever an earlier one left is forgotten."""
        facts = self._facts()
        found = self._open(facts["new"]) if facts else None
        if found is not None:
            return found
        live = self._live()
        self._ledger(staged).drop()
        made = self._create(live, staged)
        names = {"name": staged.name, "previous": staged.previous}
        collections = {"old": live.name, "new": made.name, "made": secrets.token_hex(8)}
        write_json(self._facts_file, {**names, **collections, "upgrade": staged.upgrade})
        made.record_space(staged.new)
        return made

    def publish(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        pending = self.pending(staged, receipts)
        self._remove_deleted(staged)
        if (old := self._old(staged)).space() is None:
            old.record_space(staged.old)
        return pending

    def _remove_deleted(self, staged: Staged) -> None:
        """Delete written points whose old ones are gone, unless the application has written them since."""
        ledger, new = self._ledger(staged), self._begun(staged)
        present = {one for members in self._members.values() for one in members.ids}
        gone = [one for one in ledger.ids() if one not in present]
        for start in range(0, len(gone), BATCH_ROWS):
            ids = gone[start : start + BATCH_ROWS]
            there = self._old(staged).present(ids)  # a scan beside deletions may have passed over them
            ids = [one for one in ids if one not in there]
            points = new.get(ids)
            ours = [entry.new if entry else None for entry in ledger.get(points.ids)]
            same = [a == b for a, b in zip(vector_digests(points.vectors, points.null), ours, strict=True)]
            new.delete([one for one, is_ours in zip(points.ids, same, strict=True) if is_ours])
            ledger.remove(ids)

    def check_part(self, receipt: Receipt) -> str | None:
        if not receipt.location:
            return None
        new = self._open(receipt.location["collection"])
        if new is None:
            return f"collection {receipt.location['collection']!r} is gone"
        members = self._members.get(receipt.part)
        if members is not None and (compared := self._compared()) is not None:
            read_digests(compared, [members])
        if members is None or members.part.source != receipt.source:
            return None  # changed since, and so written again before the switch
        points = _vectors_for(new, members.ids)
        digests = vector_digests(points.vectors, points.null)
        if (gone := digests.count(NOTHING) - receipt.nulls) > 0:
            return f"{gone} points of part {receipt.part} are gone"
        same = checksum_of(digests) == receipt.checksum
        return None if same else f"part {receipt.part} has other content than was written"

    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        """The server indexes a collection by its settings, which the new one got from the old."""

    def switch(self, staged: Staged, receipts: Mapping[str, Receipt], *, strict: bool = True) -> list[Part]:
        missing = self.publish(staged, receipts)
        if self.switched(staged) or (missing and strict):
            return missing
        self._settled(self._begun(staged))
        self._move(staged, self._facts(), back=False)
        return self.publish(staged, receipts)

    def pause(self, staged: Staged, rows_per_second: float) -> Pause | None:
        return Pause(
            PASSES * seconds_to_read(self._live()),
            "nobody has to wait, but a point that was written and deleted around the switch may come back; "
            "let deletions wait to rule that out",
        )

    def rehearse(self, batches: Iterator[FloatMatrix], staged: Staged) -> None:
        """Into a collection on trial, with the application's payloads; one that is left is cleared away."""
        live = self._live()
        try:
            made = self._create(live, replace(staged, upgrade=REHEARSAL))
        except StoreError:  # not allowed, or another plan is at it
            super().rehearse(batches, staged)
            return
        try:
            for vectors, there in zip(batches, live.scan(self.rehearsal_rows), strict=False):
                rows = np.flatnonzero(np.isfinite(vectors[: len(there)]).all(axis=1))
                some = there.select(rows.tolist())
                made.put(Points(some.ids, vectors[rows], np.zeros(len(rows), dtype=bool), some.payloads))
        finally:
            self._drop(made.name)

    def switch_back(self, staged: Staged) -> None:
        if self.switched(staged):
            self._give_back(staged)
            self._move(staged, self._facts(), back=True)

    def _give_back(self, staged: Staged) -> None:
        """Bring what the application did since the switch into the old collection: payloads, deletions."""
        old, new, ledger = self._old(staged), self._begun(staged), self._ledger(staged)
        PointWriter(old, new, ledger, staged, self.uri, switched=True).give_back()

    def drop_old(self, staged: Staged) -> None:
        facts = self._facts()
        if facts:
            self._drop(self._name_of(facts, staged.previous))
        self._forget(staged)

    def drop_new(self, staged: Staged) -> None:
        if self.switched(staged):
            raise StoreError(f"{self.uri}: the new vectors are in use; roll back before they are dropped")
        if waiting := self._waiting():
            raise StoreError(
                f"{self.uri}: {len(waiting)} rows are only in the new collection, which was to be deleted "
                f"({first_few(waiting)}); add them to the old one with vectors of {staged.old.model}, "
                "or delete them from the new one"
            )
        if self._facts():
            self._drop(self._facts()["new"])
        self._forget(staged)

    def _forget(self, staged: Staged) -> None:
        self._ledger(staged).drop()
        self._facts_file.unlink(missing_ok=True)
        remove_folder(self._folder(staged))
        with suppress(OSError):  # not empty: other upgrades, or the journal
            for folder in (self.neighbourhood, *list(self.neighbourhood.parents)[:3]):
                folder.rmdir()

    # --- surroundings -------------------------------------------------------------------------

    @property
    def journal(self) -> Path:
        return self.neighbourhood / "journal.sqlite"

    def free_bytes(self) -> int | None:
        """The server's disk is not seen from here."""
        return None

    def count_null(self, column: str) -> int:
        waiting = len(self._waiting()) if column == self.column else 0
        return waiting + sum(int(np.count_nonzero(batch.null)) for batch in self.scan(column))

    def _waiting(self) -> list[Any]:
        """Rows that came after a switch since undone, without the vector that the old collection asks for."""
        facts = self._facts()
        new = self._open(facts.get("new", ""))
        live = self._live()
        if new is None or new.name == live.name or live.keeps_null:
            return []
        known = set(Ledger(self._ledger_file(facts["upgrade"])).ids())
        found = [one for one in new.ids() if one not in known]
        there = live.present(found)
        return [one for one in found if one not in there]

    def cache(self, name: str, space: Space) -> IdCache:
        return IdCache(self.neighbourhood / f"{name}.cache.sqlite", space)

    @property
    def _facts_file(self) -> Path:
        return self.neighbourhood / "collections.json"

    def _facts(self) -> dict[str, str]:
        """Names of the old and the new collection while an upgrade is under way, else nothing."""
        found: dict[str, str] = read_json(self._facts_file) or {}
        return found

    def _folder(self, staged: Staged) -> Path:
        return self.neighbourhood / staged.upgrade / "parts"

    def _ledger_file(self, upgrade: str) -> Path:
        return self.neighbourhood / upgrade / "parts" / "ledger.sqlite"

    def _ledger(self, staged: Staged) -> Ledger:
        return Ledger(self._ledger_file(staged.upgrade))

    def _name_of(self, facts: Mapping[str, str], vectors: str) -> str:
        """Name that the collection of some vectors has now."""
        return facts["new"] if vectors == facts["name"] else facts["old"]

    def _named(self, vectors: str | None) -> Collection:
        """The collection of the vectors called so."""
        if vectors in (None, self.column):
            return self._live()
        facts = self._facts()
        known = [facts["name"], facts["previous"]] if facts else []
        found = self._open(self._name_of(facts, str(vectors))) if vectors in known else None
        if found is None:
            raise StoreError(f"{self.uri}: no vectors {vectors!r}; there are {self.column!r}")
        return found

    def _old(self, staged: Staged) -> Collection:
        return self._named(staged.previous) if self.switched(staged) else self._live()


def _is_written(receipt: Receipt | None, part: Part, made: str | None) -> bool:
    """Whether a part is in the new collection that there is now."""
    return receipt is not None and receipt.source == part.source and receipt.location["made"] == made


def _vectors_for(collection: Collection, ids: list[Any]) -> Points:
    """Points with the vectors that they have in a collection, which may lack some; without their payloads."""
    there = collection.get(ids)
    places = np.array(in_order(there, ids), dtype=np.int64)
    vectors = np.full((len(ids), collection.dimension), np.nan, dtype=np.float32)
    null = np.ones(len(ids), dtype=bool)
    here = places >= 0
    vectors[here], null[here] = there.vectors[places[here]], there.null[places[here]]
    return Points(ids, vectors, null, [])
