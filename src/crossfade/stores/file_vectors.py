"""New vectors of one part in a file of their own; NaN stands for a row without a vector."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import InvalidVectors
from crossfade.stores.durable import checksum
from crossfade.stores.file_content import Content
from crossfade.stores.file_parts import Span
from crossfade.stores.records import Produce, Produced, Receipt, Rows
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.channel import read_ahead, write_behind
from crossfade.vectors.writing import full_disk_as_error, sync


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Neighbouring rows of a part.

    Attributes:
        rows: those that new vectors are made from; None where all have theirs.
        vectors: new vectors that exist already: those of all rows, or of the rows that are `rows.kept`.
    """

    span: Span
    rows: Rows | None
    vectors: FloatMatrix | None


def pieces_to_make(
    content: Content, span: Span, columns: Sequence[str], rows: int, written: Content | None
) -> Iterator[Piece]:
    """The rows of a part, at most `rows` at a time.

    Args:
        written: new vectors that exist already; rows without an old vector keep theirs.
    """
    start = span.start
    for batch in content.batches(rows, columns, span.start, span.stop):
        yield _with_kept(Piece(span, batch, None), batch, start, written)
        start += len(batch)


def _with_kept(piece: Piece, batch: Rows, start: int, written: Content | None) -> Piece:
    if written is None or not batch.null.any():
        return piece
    vectors, missing = written.vectors_of(batch.ids, start)
    kept: NDArray[np.bool_] = batch.null & ~missing
    return Piece(piece.span, Rows(batch.ids, batch.vectors, batch.null, batch.columns, kept), vectors)


def make(piece: Piece, produce: Produce, dimension: int, what: str) -> Produced:
    """The new vectors of a piece of which some are to be made.

    Raises:
        InvalidVectors: vectors of another dimension were made, for the store called `what`.
    """
    assert piece.rows is not None
    made, expected = produce(piece.rows), (len(piece.rows), dimension)
    if made.vectors.shape != expected:
        raise InvalidVectors(f"{what}: expected new vectors {expected}, got {made.vectors.shape}")
    if piece.vectors is None:
        return made
    kept = piece.rows.kept
    assert kept is not None
    return Produced(np.where(kept[:, None], piece.vectors, made.vectors), made.valid | kept)


class PartFile:
    """Writes the new vectors of a part to `path`.

    Args:
        dimension: of the new vectors.
        what: the store, for messages.
    """

    def __init__(self, path: Path, dimension: int, what: str) -> None:
        self._path, self._dimension, self._what = path, dimension, what

    def write(
        self,
        content: Content,
        span: Span,
        produce: Produce,
        columns: Sequence[str],
        rows: int,
        written: Content | None,
    ) -> dict[str, Any]:
        """Write the part; returns nulls, bytes and checksum.

        Args:
            written: new vectors that exist already; rows without an old vector keep theirs.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft, output = self._path.with_suffix(".new"), _Output()
        with (
            full_disk_as_error(self._what, span.rows),
            draft.open("wb") as file,
            closing(read_ahead(pieces_to_make(content, span, columns, rows, written))) as pieces,
        ):
            output.write(file, _header(span.rows, self._dimension))
            made = (make(piece, produce, self._dimension, self._what) for piece in pieces)
            write_behind(made, partial(output.write_all, file))
        sync(draft)
        draft.replace(self._path)
        return {"nulls": output.nulls, "bytes": output.bytes, "checksum": output.digest.hexdigest()}

    @staticmethod
    def read(path: Path, rows: int, dimension: int) -> Iterator[FloatMatrix]:
        """The vectors of a part, in batches."""
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            for start in range(0, rows, BATCH_ROWS):
                count = min(BATCH_ROWS, rows - start)
                yield np.fromfile(file, "<f4", count * dimension).reshape(count, dimension)


def check_vectors_file(path: Path | None, receipt: Receipt) -> str | None:
    """What is wrong with a written part, or None."""
    name, size = receipt.location["path"], receipt.location["bytes"]
    if path is None or not path.exists():
        return f"file {name} is gone"
    if (found := path.stat().st_size) != size:
        return f"file {name} has {found} bytes, {size} were written"
    return None if checksum(path) == receipt.checksum else f"file {name} has other content than was written"


class _Output:
    """Counts and digests what goes into a file, as it should be there: `checksum` finds what is."""

    def __init__(self) -> None:
        self.nulls, self.bytes, self.digest = 0, 0, hashlib.sha256()

    def write(self, file: IO[bytes], data: bytes | memoryview) -> None:
        """Some bytes."""
        file.write(data)
        self.digest.update(data)
        self.bytes += len(data)

    def write_all(self, file: IO[bytes], batches: Iterator[Produced]) -> None:
        """The vectors of batches."""
        for made in batches:
            self.nulls += int(np.count_nonzero(~made.valid))
            self.write(file, with_nan(made).data.cast("B"))


def _header(rows: int, dimension: int) -> bytes:
    header, buffer = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}, io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def with_nan(made: Produced) -> FloatMatrix:
    """Vectors (n, d) in which NaN stands for those that are not valid."""
    vectors: FloatMatrix = np.ascontiguousarray(made.vectors, dtype="<f4")
    return vectors if made.valid.all() else np.where(made.valid[:, None], vectors, np.float32(np.nan))
