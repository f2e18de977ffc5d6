"""The parts of a collection: runs of points whose starts are remembered, with digests of their points."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.stores.base import Part
from crossfade.stores.collection import Collection, Points
from crossfade.stores.durable import read_json, write_json
from crossfade.stores.ledger import combined, payload_digests, vector_digests


@dataclass(slots=True)
class Members:
    """Ids of a part's points, in order, and a digest of each."""

    key: str
    ids: list[Any] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)

    @property
    def part(self) -> Part:
        """The part that they are."""
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


class Membership:
    """Lists the parts of a collection; ids and digests of all points are in memory, vectors are not.

    Args:
        folder: where the starts of the parts are remembered.
        part_rows: points of a part when it is first listed.
    """

    def __init__(self, folder: Path, part_rows: int) -> None:
        self._marks, self._part_rows = folder / "parts.json", part_rows

    def list(self, collection: Collection) -> dict[str, Members]:
        """The parts by key, from one pass over all points."""
        known = read_json(self._marks) or []
        marks, parts = list(known), {"0": Members("0")}
        ahead = {one: str(number) for number, one in enumerate(known, start=1)}
        current, limit = parts["0"], 2 * self._part_rows if known else self._part_rows
        for one, digest in _with_digests(collection):
            if following := ahead.pop(one, ""):
                current = parts[following] = Members(following)
            elif int(current.key) == len(marks) and len(current.ids) == limit:
                marks.append(one)
                current = parts[str(len(marks))] = Members(str(len(marks)))
            current.ids.append(one)
            current.digests.append(digest)
        if marks != known:
            write_json(self._marks, marks)
        return {key: members for key, members in parts.items() if members.ids}


def _with_digests(collection: Collection) -> Iterator[tuple[Any, int]]:
    for points in collection.scan():
        yield from zip(points.ids, digests_of(points)[0], strict=True)
