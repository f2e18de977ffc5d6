"""New vectors of one part in a file of their own; NaN stands for a row without a vector."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import InvalidVectors
from crossfade.stores.base import Produce, Produced, Receipt, Rows
from crossfade.stores.durable import checksum
from crossfade.stores.file_content import Content
from crossfade.stores.file_parts import Span
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.channel import read_ahead, write_behind
from crossfade.vectors.writing import full_disk_as_error, sync


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
            closing(read_ahead(content.batches(rows, columns, span.start, span.stop))) as batches,
        ):
            output.write(file, _header(span.rows, self._dimension))
            made = self._made(batches, produce, written, span.start)
            write_behind(made, partial(output.write_all, file))
        sync(draft)
        draft.replace(self._path)
        return {"nulls": output.nulls, "bytes": output.bytes, "checksum": output.digest.hexdigest()}

    def _made(
        self, batches: Iterator[Rows], produce: Produce, written: Content | None, start: int
    ) -> Iterator[Produced]:
        for batch in batches:
            yield self._produced(batch, produce, written, start)
            start += len(batch)

    def _produced(self, batch: Rows, produce: Produce, written: Content | None, start: int) -> Produced:
        if written is None or not batch.null.any():
            return self._checked(produce(batch), len(batch))
        vectors, missing = written.vectors_of(batch.ids, start)
        kept: NDArray[np.bool_] = batch.null & ~missing
        rows = Rows(batch.ids, batch.vectors, batch.null, batch.columns, kept)
        made = self._checked(produce(rows), len(batch))
        return Produced(np.where(kept[:, None], vectors, made.vectors), made.valid | kept)

    def _checked(self, made: Produced, rows: int) -> Produced:
        expected = (rows, self._dimension)
        if made.vectors.shape != expected:
            raise InvalidVectors(f"{self._what}: expected new vectors {expected}, got {made.vectors.shape}")
        return made

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
            self.write(file, _with_nan(made).data.cast("B"))


def _header(rows: int, dimension: int) -> bytes:
    header, buffer = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}, io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _with_nan(made: Produced) -> FloatMatrix:
    vectors: FloatMatrix = np.ascontiguousarray(made.vectors, dtype="<f4")
    return vectors if made.valid.all() else np.where(made.valid[:, None], vectors, np.float32(np.nan))
