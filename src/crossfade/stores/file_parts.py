"""The parts of a file of vectors: runs of rows whose starts are remembered by id.

A file says nothing about which of its rows changed, so each part has a digest of its ids and vectors.
A row that is deleted or added changes the part that it is in and no other. Until the first vectors are made,
no digest is there to compare with: a part is then known by the version of the file and its place in it, and
its digest is taken while its rows are read to make its vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossfade.stores.durable import read_json, write_json
from crossfade.stores.file_content import Content
from crossfade.stores.records import Part, Rows
from crossfade.vectors.channel import read_ahead

_UNREAD = "unread "


@dataclass(frozen=True, slots=True)
class Span:
    """A part and where it stands in one version of the file.

    `source` is the digest of its rows, or names version and place while that is not known.
    """

    key: str
    start: int
    rows: int
    source: str

    @property
    def digested(self) -> bool:
        """Whether its rows have been read."""
        return not self.source.startswith(_UNREAD)

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

    def spans(self, content: Content, version: str, reads: Sequence[str], digested: bool) -> list[Span]:
        """The parts of `content`, whose identity is `version`.

        Args:
            digested: read all rows if their digests are not known, also when there are none to compare with.
        """
        last = self._read(reads)
        known = all(one.digested for one in last[1]) if last else False
        if last and last[0] == version and (known or not digested):
            return last[1]
        marks = read_json(self._marks) or []
        bounds = _known(content, marks)
        spans = _between([*bounds, *self._growth(content, marks, bounds[-1])], content.rows, version)
        write_json(self._marks, marks)
        if known or digested:
            spans = _digested(content, spans, reads)
        self.remember(version, reads, spans)
        return spans

    def _read(self, reads: Sequence[str]) -> tuple[str, list[Span]] | None:
        """Version and parts that were remembered last."""
        last = read_json(self._last)
        if last is None or last["reads"] != list(reads):
            return None
        return last["version"], [Span(*one) for one in last["spans"]]

    def remember(self, version: str, reads: Sequence[str], spans: Sequence[Span]) -> None:
        """The parts of a version, for when they are asked for again."""
        kept = [[one.key, one.start, one.rows, one.source] for one in spans]
        write_json(self._last, {"version": version, "reads": list(reads), "spans": kept})

    def _growth(self, content: Content, marks: list[Any], last: tuple[int, int]) -> list[tuple[int, int]]:
        """Further parts where the last one has grown too long, as it has when nothing is remembered yet."""
        key, start = last
        limit = 2 * self._part_rows if marks else self._part_rows
        if key != len(marks) or content.rows - start <= limit:
            return []
        starts = np.arange(start + limit, content.rows, limit)
        marks += content.ids_at(starts)[0].to_pylist()
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


def _between(bounds: Sequence[tuple[int, int]], rows: int, version: str) -> list[Span]:
    """The parts that begin at `bounds`, of which nothing but version and place is known."""
    stops = [start for _, start in bounds[1:]] + [rows]
    return [
        Span(str(key), start, stop - start, f"{_UNREAD}{version} from {start}")
        for (key, start), stop in zip(bounds, stops, strict=True)
        if stop > start
    ]


def _digested(content: Content, spans: Sequence[Span], reads: Sequence[str]) -> list[Span]:
    """The parts with the digests of their rows, in one pass."""
    digests = Digests()
    with closing(read_ahead(content.batches(columns=reads))) as ahead:
        batches = _Cuttable(ahead)
        for span in spans:
            for piece in batches.next_rows(span.rows):
                digests.add(span, piece)
    return digests.of(spans)


class Digests:
    """Digests of the rows of parts, taken as they pass."""

    def __init__(self) -> None:
        self._streams = dict[str, RowsDigest]()

    def add(self, span: Span, rows: Rows) -> None:
        """Further rows of a part."""
        self._streams.setdefault(span.key, RowsDigest()).add(rows)

    def of(self, spans: Sequence[Span]) -> list[Span]:
        """The parts, those with their digests as source whose rows have passed; these must be whole."""
        return [
            replace(one, source=self._streams[one.key].hexdigest()) if one.key in self._streams else one
            for one in spans
        ]


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
