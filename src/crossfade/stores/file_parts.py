"""The parts of a file of vectors: runs of rows whose starts are remembered by id.

A file says nothing about which of its rows changed, so each part has a digest of its ids and vectors.
A row that is deleted or added changes the part that it is in and no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossfade.stores.base import Part, Rows
from crossfade.stores.durable import read_json, write_json
from crossfade.stores.file_content import Content
from crossfade.vectors.channel import read_ahead


@dataclass(frozen=True, slots=True)
class Span:
    """A part and where it stands in one version of the file."""

    key: str
    start: int
    rows: int
    source: str

    @property
    def stop(self) -> int:
        """Position after its last row."""
        return self.start + self.rows

    @property
    def part(self) -> Part:
        """The part that it is."""
        return Part(self.key, self.rows, self.source)


class RowsDigest:
    """Of rows, however they are cut into batches."""

    def __init__(self) -> None:
        # SHA-256 has instructions of its own on most processors: twice the speed of BLAKE2 there.
        self._streams = [hashlib.sha256() for _ in range(4)]

    def add(self, rows: Rows) -> None:
        """Further rows."""
        ids, vectors, null, columns = self._streams
        ids.update(_text(rows.ids))
        vectors.update(np.ascontiguousarray(rows.vectors).data)
        null.update(rows.null.tobytes())
        for name, values in rows.columns.items():
            columns.update(name.encode() + _text(values))

    def hexdigest(self) -> str:
        """Of all rows so far."""
        joined = b"".join(one.digest() for one in self._streams)
        return hashlib.sha256(joined).hexdigest()[:24]


def _text(values: pa.Array) -> bytes:
    if pa.types.is_integer(values.type) and not values.null_count:
        return bytes(values.to_numpy().astype("<i8", casting="unsafe").tobytes())
    return b"".join(f"{one!r}\n".encode() for one in values.to_pylist())


class Listing:
    """Lists the parts of a file's versions, and remembers where they start and the last list.

    Args:
        folder: what is remembered is kept there.
        part_rows: rows of a part when it is first listed.
    """

    def __init__(self, folder: Path, part_rows: int) -> None:
        self._marks, self._last, self._part_rows = folder / "marks.json", folder / "parts.json", part_rows

    def spans(self, content: Content, version: str, reads: Sequence[str]) -> list[Span]:
        """The parts of `content`, whose identity is `version`."""
        last = read_json(self._last)
        if last and last["version"] == version and last["reads"] == list(reads):
            return [Span(*one) for one in last["spans"]]
        marks = read_json(self._marks) or []
        bounds = _known(content, marks)
        spans = _digested(content, [*bounds, *self._growth(content, marks, bounds[-1])], reads)
        write_json(self._marks, marks)
        kept = [[one.key, one.start, one.rows, one.source] for one in spans]
        write_json(self._last, {"version": version, "reads": list(reads), "spans": kept})
        return spans

    def _growth(self, content: Content, marks: list[Any], last: tuple[int, int]) -> list[tuple[int, int]]:
        """Further parts where the last one has grown too long, as it has when nothing is remembered yet."""
        key, start = last
        limit = 2 * self._part_rows if marks else self._part_rows
        if key != len(marks) or content.rows - start <= limit:
            return []
        starts = np.arange(start + limit, content.rows, limit)
        marks += content.take(starts).ids.to_pylist()
        return [(key + number, int(one)) for number, one in enumerate(starts, start=1)]


def _known(content: Content, marks: Sequence[Any]) -> list[tuple[int, int]]:
    """Key and position of each remembered part that still begins somewhere; the head is part 0."""
    bounds, position = [(0, 0)], 0
    ahead = {one: number for number, one in enumerate(marks, start=1)}
    for ids in content.ids_in_batches() if marks else ():
        known = pc.is_in(ids, value_set=pa.array(marks, type=ids.type))
        for row in np.flatnonzero(known.to_numpy(zero_copy_only=False)).tolist():
            if number := ahead.pop(ids[row].as_py(), 0):
                bounds.append((number, position + row))
        position += len(ids)
    return bounds


def _digested(content: Content, bounds: Sequence[tuple[int, int]], reads: Sequence[str]) -> list[Span]:
    """The parts with the digests of their rows, in one pass."""
    stops = [start for _, start in bounds[1:]] + [content.rows]
    spans = []
    with closing(read_ahead(content.batches(columns=reads))) as ahead:
        batches = _Cuttable(ahead)
        for (key, start), stop in zip(bounds, stops, strict=True):
            digest = RowsDigest()
            for piece in batches.next_rows(stop - start):
                digest.add(piece)
            if stop > start:
                spans.append(Span(str(key), start, stop - start, digest.hexdigest()))
    return spans


class _Cuttable:
    """A stream of batches from which any number of rows is taken at a time."""

    def __init__(self, batches: Iterator[Rows]) -> None:
        self._batches = batches
        self._held: Rows | None = None

    def next_rows(self, count: int) -> Iterator[Rows]:
        """The next `count` rows."""
        while count:
            batch = self._held or next(self._batches)
            taken = min(count, len(batch))
            self._held = cut(batch, taken, len(batch)) if taken < len(batch) else None
            yield cut(batch, 0, taken)
            count -= taken


def cut(rows: Rows, start: int, stop: int) -> Rows:
    """Some neighbouring rows."""
    columns = {name: values.slice(start, stop - start) for name, values in rows.columns.items()}
    return Rows(rows.ids.slice(start, stop - start), rows.vectors[start:stop], rows.null[start:stop], columns)
