"""Lift stored vectors into another space: read, map and write, all three at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from crossfade.errors import DataError, InvalidVectors
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, FloatMatrix, VectorBatch, VectorSource
from crossfade.vectors.channel import read_ahead, write_behind
from crossfade.vectors.checks import Checker, CheckReport, OnInvalid, find_invalid
from crossfade.vectors.columns import to_matrix
from crossfade.vectors.ids import first_few
from crossfade.vectors.metadata import is_vector_type
from crossfade.vectors.writing import VectorWriter

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LiftReport:
    """What `lift` did.

    Attributes:
        written: rows written.
        checks: rows read, and the unusable vectors that were left out.
        seconds: wall-clock time.
    """

    written: int
    checks: CheckReport
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rows written per second."""
        return self.written / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; every vector that was left out is listed."""
        return {
            "read": self.checks.rows,
            "written": self.written,
            "seconds": self.seconds,
            "skipped": [{"row": one.row, "id": one.id, "fault": one.fault} for one in self.checks.invalid],
        }


def lift(
    source: VectorSource,
    transform: Callable[..., FloatMatrix],
    target: Space,
    writer: VectorWriter,
    *,
    progress: Progress | None = None,
    on_invalid: OnInvalid = "refuse",
    columns: tuple[str, ...] = (),
    side: str | None = None,
    rows: int = BATCH_ROWS,
) -> LiftReport:
    """Map every vector of `source` with `transform` and write it; all or nothing.

    Memory holds a few batches. `lift` enters the writer's context itself: afterwards the output is
    complete, or, after any error, absent.

    Args:
        transform: maps (n, d_source) to (n, d_target), float32; takes the side-information (n, d_side) as
            its second argument if there is any.
        target: the space that `transform` maps into; must be the writer's.
        progress: called with the rows done and the rows there are, after each batch.
        on_invalid: ``refuse`` NaN, infinite and zero vectors, or ``skip`` and list them.
        columns: further columns to carry over.
        side: column of the source that holds side-information.
        rows: rows of a batch.

    Raises:
        SpaceError: the writer is for another space than `target`.
        InvalidVectors: unusable vectors in the source, or made by the map.
        DuplicateIds: an id occurs more than once.
        OutOfSpace: the disk is full.
    """
    writer.space.require_same(target, writer.name)
    started = time.perf_counter()
    checker = Checker(source.name, on_invalid=on_invalid)
    read = columns if side is None or side in columns else (*columns, side)
    with writer, closing(read_ahead(source.batches(rows, read))) as batches:
        lifted = (
            _map(batch, transform, columns, side, source.name)
            for batch in _usable(batches, checker, len(source), progress)
        )
        write_behind(lifted, partial(_write_all, writer))
        report = checker.finish(source)
    return LiftReport(writer.rows, report, time.perf_counter() - started)


def _usable(
    batches: Iterable[VectorBatch], checker: Checker, total: int, progress: Progress | None
) -> Iterator[VectorBatch]:
    done = 0
    for batch in batches:
        usable = checker.check(batch)
        # After a refusal the rest is read only to count what else is wrong.
        if len(usable) and not checker.refused:
            yield usable
        done += len(batch)
        if progress is not None:
            progress(done, total)


def _map(
    batch: VectorBatch,
    transform: Callable[..., FloatMatrix],
    columns: tuple[str, ...],
    side: str | None,
    name: str,
) -> VectorBatch:
    beside = () if side is None else (_side_of(batch, side, name),)
    vectors = transform(batch.vectors, *beside)
    if vectors.ndim != 2 or len(vectors) != len(batch):
        raise DataError(f"the map made shape {vectors.shape} of {batch.vectors.shape}; it must keep the rows")
    broken = find_invalid(vectors)
    if broken:
        ids = first_few(batch.ids[row].as_py() for row in broken)
        raise InvalidVectors(
            f"the map made {len(broken)} NaN, infinite or zero vectors of usable ones; first ids: {ids}; "
            "fit the map again"
        )
    return VectorBatch(batch.ids, vectors, {column: batch.columns[column] for column in columns})


def _side_of(batch: VectorBatch, side: str, name: str) -> FloatMatrix:
    column = batch.columns[side]
    first = column.drop_null()[:1]
    dimension = len(first[0]) if len(first) and is_vector_type(column.type) else 0
    return to_matrix(column, dimension, f"{name}, column {side!r}")


def _write_all(writer: VectorWriter, batches: Iterator[VectorBatch]) -> None:
    for batch in batches:
        writer.write(batch)
