"""The parts of a collection: runs of points whose starts are remembered, with digests of their points."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.stores.collection import Collection, Points, in_order
from crossfade.stores.durable import read_json, write_json
from crossfade.stores.ledger import combined, payload_digests, vector_digests
from crossfade.stores.records import Part

READERS = 2
"""Calls at a time, so that the server works while what it gave is digested; batches of as many are held."""
TIMED_ROWS = 4096
"""Points that are read to tell how long all would take."""


@dataclass(slots=True)
class Members:
    """Ids of a part's points, in order, and a digest of each, if they have been read."""

    key: str
    ids: list[Any] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)

    @property
    def part(self) -> Part:
        """The part that they are; one whose points have not been read is like none that was written."""
        return Part(self.key, len(self.ids), source_of(self.ids, self.digests))


def source_of(ids: Sequence[Any], digests: Sequence[int]) -> str:
    """Changes when a point is added, deleted or changed."""
    digest = hashlib.blake2b("\n".join(map(repr, ids)).encode(), digest_size=12)
    digest.update(np.asarray(digests, dtype="<i8").tobytes())
    return digest.hexdigest()


def checksum_of(digests: Sequence[int]) -> str:
    """Of the new vectors of a part, from those of its points."""
    return hashlib.sha256(np.asarray(digests, dtype="<i8").tobytes()).hexdigest()


def digests_of(points: Points) -> tuple[list[int], list[int]]:
    """Of all that each point is, and of its payload alone."""
    payloads = payload_digests(points.payloads)
    vectors = vector_digests(points.vectors, points.null)
    return [combined(*both) for both in zip(vectors, payloads, strict=True)], payloads


def read_points(collection: Collection, ids: Sequence[Any], rows: int) -> Generator[Points, None, None]:
    """Those of these points that are there, in order; each batch comes from `rows` of the ids."""
    for start in range(0, len(ids), rows):
        wanted = ids[start : start + rows]
        points = collection.get(wanted)
        yield points.select([one for one in in_order(points, wanted) if one >= 0])


def read_digests(collection: Collection, parts: Iterable[Members]) -> None:
    """Read the points of parts that were only listed; those deleted since are left out."""
    rows = collection.rows_at_once

    def read(batch: tuple[Members, int]) -> tuple[list[Any], list[int]]:
        part, start = batch
        [points] = read_points(collection, part.ids[start : start + rows], rows)
        return points.ids, digests_of(points)[0]

    batches = [(one, start) for one in parts if not one.digests for start in range(0, len(one.ids), rows)]
    found = {one.key: Members(one.key) for one, _ in batches}
    with ThreadPoolExecutor(READERS, "crossfade-read") as readers:
        for (part, _), (ids, digests) in zip(batches, readers.map(read, batches), strict=True):
            found[part.key].ids += ids
            found[part.key].digests += digests
    for part, _ in batches:
        part.ids, part.digests = found[part.key].ids, found[part.key].digests


def seconds_to_read(collection: Collection) -> float:
    """How long it takes to list all points and to read and digest them, from doing so with some."""
    started = time.perf_counter()
    ids = collection.ids()
    listed = time.perf_counter()
    step = max(1, len(ids) // TIMED_ROWS)
    some = Members("", ids[::step][:TIMED_ROWS])
    read_digests(collection, [some])
    share = len(ids) / max(1, len(some.ids))
    return listed - started + share * (time.perf_counter() - listed)


class Membership:
    """Lists the parts of a collection; ids and digests of all points are in memory, vectors are not.

    Args:
        folder: where the starts of the parts are remembered.
        part_rows: points of a part when it is first listed.
    """

    def __init__(self, folder: Path, part_rows: int) -> None:
        self._marks, self._part_rows = folder / "parts.json", part_rows

    def outline(self, collection: Collection) -> dict[str, Members]:
        """The parts by key, from ids alone: without digests."""
        known = read_json(self._marks) or []
        marks, parts = list(known), {"0": Members("0")}
        ahead = {one: str(number) for number, one in enumerate(known, start=1)}
        current, limit = parts["0"], 2 * self._part_rows if known else self._part_rows
        for one in collection.ids():
            if following := ahead.pop(one, ""):
                current = parts[following] = Members(following)
            elif int(current.key) == len(marks) and len(current.ids) == limit:
                marks.append(one)
                current = parts[str(len(marks))] = Members(str(len(marks)))
            current.ids.append(one)
        if marks != known:
            write_json(self._marks, marks)
        return {key: members for key, members in parts.items() if members.ids}
