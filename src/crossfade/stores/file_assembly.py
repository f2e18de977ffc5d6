"""What the new file was made from, and the vectors on their way into it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.stores.durable import read_json, write_json
from crossfade.stores.file_content import Content, identity
from crossfade.stores.file_parts import Digests, Span
from crossfade.stores.file_vectors import PartFile, Piece, pieces_to_make, with_nan
from crossfade.stores.records import Produced, Receipt
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.channel import read_ahead, write_behind

Form = Callable[[FloatMatrix], FloatMatrix]
"""Turns new vectors into what the file gives back for them."""
Vectors = Callable[[], Generator[FloatMatrix, None, None]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part lies that has no file of its own: `rows` of the new file from `start` on.

    `start` is None where others may have written since; `checksum` is that of the vectors as stored.
    """

    checksum: str
    start: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class Assembly:
    """Facts of a whole new file, written after it.

    Attributes:
        version: of the old file that it was made from.
        index: that it was told to have.
        identity: of the new file itself; one with another is not the one that was written.
        parts: those without a file of their own.
    """

    version: str
    index: str
    identity: str = ""
    parts: Mapping[str, Place] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Assembly | None:
        """What `write` wrote, if anything."""
        facts = read_json(path)
        if facts is None:
            return None
        parts = {key: Place(**place) for key, place in facts.pop("parts", {}).items()}
        return cls(**facts, parts=parts)

    def damage(self, file: Path) -> str | None:
        """What is wrong with the new file as a whole, or None."""
        if not file.exists():
            return f"file {file.name} is gone"
        same = identity(file) == self.identity
        return None if same else f"file {file.name} has other content than was written"

    def write(self, path: Path) -> None:
        """Replace the facts at `path`."""
        write_json(path, asdict(self))


@dataclass(frozen=True)
class Feed:
    """The rows of the new file in their order.

    Attributes:
        content, spans: the old file.
        receipts: of parts that have been written.
        places: of those of them that lie in the new file that is there already.
        lacking: keys of the parts whose vectors are to be made.
        written: the new file that is there already.
        folder: of the parts' own files.
        form, dimension: of new vectors.
        digests: takes those of the lacking parts as they are read.
    """

    content: Content
    spans: Sequence[Span]
    receipts: Mapping[str, Receipt]
    places: Mapping[str, Place]
    lacking: frozenset[str]
    written: Content | None
    folder: Path
    form: Form
    dimension: int
    digests: Digests = field(default_factory=Digests)

    def _pieces(self, columns: Sequence[str], rows: int) -> Iterator[Piece]:
        """Vectors that exist, and rows from which the others are made, at most `rows` at a time."""
        for span in self.spans:
            if span.key in self.lacking:
                yield from self._digested(pieces_to_make(self.content, span, columns, rows, self.written))
            else:
                yield from (Piece(span, None, vectors) for vectors in self._existing(span))

    def _digested(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The pieces of a lacking part, whose rows are digested on the way if they never were."""
        for piece in pieces:
            if piece.rows is not None and not piece.span.digested:
                self.digests.add(piece.span, piece.rows)
            yield piece

    def _existing(self, span: Span) -> Iterator[FloatMatrix]:
        location = self.receipts[span.key].location
        if "path" not in location:
            yield from self._kept(span)
            return
        for vectors in PartFile.read(self.folder / location["path"], span.rows, self.dimension):
            yield self.form(vectors)

    def _kept(self, span: Span) -> Iterator[FloatMatrix]:
        """From the new file that is there; looked for first where the part began in it."""
        assert self.written is not None
        place = self.places.get(span.key)
        start = span.start if place is None or place.start is None else place.start
        for batch in self.content.batches(start=span.start, stop=span.stop):
            yield self.written.vectors_of(batch.ids, start)[0]
            start += len(batch)

    def flow(
        self,
        write: Callable[[Vectors], None],
        tally: Tally,
        columns: Sequence[str],
        rows: int,
        make: Callable[[Piece], Produced] | None,
    ) -> None:
        """Let `write` take the vectors once, in a thread of its own, while others are read and made."""
        with closing(read_ahead(self._pieces(columns, rows))) as ahead:
            write_behind(self._made(ahead, make), lambda made: write(lambda: tally.passing(made)))

    def stock(self, tally: Tally) -> Generator[FloatMatrix, None, None]:
        """The vectors, which all exist already."""
        with closing(read_ahead(self._pieces((), BATCH_ROWS))) as ahead:
            yield from tally.passing(self._made(ahead, None))

    def _made(
        self, pieces: Iterable[Piece], make: Callable[[Piece], Produced] | None
    ) -> Iterator[tuple[Span, FloatMatrix]]:
        """The new vectors of pieces; NaN where a row has none."""
        for piece in pieces:
            if piece.rows is None:
                assert piece.vectors is not None
                yield piece.span, piece.vectors
            else:
                assert make is not None
                yield piece.span, self.form(with_nan(make(piece)))


@dataclass
class _Count:
    digest: Any = field(default_factory=hashlib.sha256)
    rows: int = 0
    nulls: int = 0


class Tally:
    """Counts and digests what goes into the new file, part by part, as it should come back.

    Args:
        nulls_lie_there: whether rows without a vector have a place in the file.
    """

    def __init__(self, nulls_lie_there: bool) -> None:
        self._nulls_lie_there, self._counts = nulls_lie_there, dict[str, _Count]()

    def passing(self, pieces: Iterable[tuple[Span, FloatMatrix]]) -> Generator[FloatMatrix, None, None]:
        """The vectors, which are counted on the way; the last time they pass is the one that counts."""
        self._counts.clear()
        for span, vectors in pieces:
            count = self._counts.setdefault(span.key, _Count())
            null = np.isnan(vectors[:, 0])
            lying = vectors if self._nulls_lie_there or not null.any() else vectors[~null]
            count.digest.update(_bytes(lying))
            count.rows += len(lying)
            count.nulls += int(np.count_nonzero(null))
            yield vectors

    def receipt(self, span: Span, name: str, dimension: int) -> Receipt:
        """For a part that lies in the new file of the vectors called `name`."""
        count = self._counts[span.key]
        location = {"file": name, "bytes": count.rows * dimension * 4}
        return Receipt(span.key, span.source, span.rows, count.nulls, count.digest.hexdigest(), location)

    def places(
        self, spans: Sequence[Span], receipts: Mapping[str, Receipt], before: Mapping[str, Place]
    ) -> dict[str, Place]:
        """Where the parts lie that have no file of their own; of those from `before` maybe nobody knows."""
        start, places = 0, {}
        for span in spans:
            rows, receipt = self._counts[span.key].rows, receipts[span.key]
            if "file" in receipt.location:
                known = span.key not in before or before[span.key].start is not None
                places[span.key] = Place(receipt.checksum, start if known else None, rows)
            start += rows
        return places


def unknown(places: Mapping[str, Place]) -> dict[str, Place]:
    """The places of parts in a file that others may have written."""
    return {key: replace(one, start=None) for key, one in places.items()}


def checksum_of(batches: Iterable[FloatMatrix]) -> str:
    """What `Tally` found if these are the vectors that went through it."""
    digest = hashlib.sha256()
    for vectors in batches:
        digest.update(_bytes(vectors))
    return digest.hexdigest()


def _bytes(vectors: FloatMatrix) -> memoryview:
    null = np.isnan(vectors[:, 0])
    made = np.where(null[:, None], np.float32(np.nan), vectors) if null.any() else vectors
    return np.ascontiguousarray(made, dtype="<f4").reshape(-1).data
