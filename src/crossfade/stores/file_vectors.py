"""New vectors of one part in a file of their own; NaN stands for a row without a vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import InvalidVectors
from crossfade.stores.base import Produce, Produced, Receipt, Rows
from crossfade.stores.durable import bring_to_disk, checksum
from crossfade.stores.file_content import Content
from crossfade.stores.file_parts import Span
from crossfade.vectors import BATCH_ROWS, FloatMatrix
from crossfade.vectors.writing import full_disk_as_error


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
        draft, nulls, start = self._path.with_suffix(".new"), 0, span.start
        with full_disk_as_error(self._what, span.rows), draft.open("wb") as file:
            _write_header(file, span.rows, self._dimension)
            for batch in content.batches(rows, columns, span.start, span.stop):
                made = self._produced(batch, produce, written, start)
                nulls += int(np.count_nonzero(~made.valid))
                file.write(_with_nan(made).data)
                start += len(batch)
        facts = bring_to_disk(draft)
        draft.replace(self._path)
        return {"nulls": nulls, **facts}

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


def _write_header(file: IO[bytes], rows: int, dimension: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
    np.lib.format.write_array_header_1_0(file, header)


def _with_nan(made: Produced) -> FloatMatrix:
    vectors: FloatMatrix = np.ascontiguousarray(made.vectors, dtype="<f4")
    return vectors if made.valid.all() else np.where(made.valid[:, None], vectors, np.float32(np.nan))
