"""Vectors that no search can use (NaN, infinite, zero), and ids that occur twice."""

from __future__ import annotations

import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import DuplicateIds, InvalidVectors, UsageError
from crossfade.spaces import Space
from crossfade.vectors.base import BATCH_ROWS, FloatMatrix, VectorBatch, VectorSource
from crossfade.vectors.ids import Keys, first_few, id_keys
from crossfade.vectors.writing import full_disk_as_error

OnInvalid = Literal["refuse", "skip"]
Fault = Literal["NaN", "infinite", "zero"]
KEYS_IN_MEMORY = 1 << 24


@dataclass(frozen=True, slots=True)
class InvalidVector:
    """A vector that no search can use."""

    row: int
    id: int | str
    fault: Fault


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a pass over a source found.

    Attributes:
        rows: rows seen.
        invalid: the unusable vectors, in order; all of them, they are what is skipped.
    """

    rows: int
    invalid: tuple[InvalidVector, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of unusable vectors by fault."""
        counted = Counter(one.fault for one in self.invalid)
        return {fault: counted[fault] for fault in ("NaN", "infinite", "zero")}

    def __str__(self) -> str:
        found = ", ".join(f"{count} {fault}" for fault, count in self.counts.items() if count)
        return f"{len(self.invalid)} of {self.rows} vectors are unusable ({found or 'none'})"


def find_invalid(vectors: FloatMatrix) -> dict[int, Fault]:
    """Rows with NaN, infinity or nothing but zeros, by row number.

    One pass: the sum of squares of a row is NaN, infinite or zero if the row is (the converse is
    checked for the few rows that it points at, since large finite values overflow too).
    """
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        suspects = np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))
    found = {int(row): _fault(vectors[row]) for row in suspects}
    return {row: fault for row, fault in found.items() if fault is not None}


def _fault(vector: NDArray[np.float32]) -> Fault | None:
    if np.isnan(vector).any():
        return "NaN"
    if np.isinf(vector).any():
        return "infinite"
    return None if vector.any() else "zero"


class Checker:
    """Checks a stream batch by batch.

    Args:
        name: where the vectors come from, for messages.
        on_invalid: ``refuse`` raises at the end, with counts; ``skip`` drops the rows and lists them.
        unique_ids: whether an id that occurs twice is an error.
    """

    def __init__(self, name: str, *, on_invalid: OnInvalid = "refuse", unique_ids: bool = True) -> None:
        if on_invalid not in ("refuse", "skip"):
            raise UsageError(f"on_invalid must be 'refuse' or 'skip', got {on_invalid!r}")
        self._name, self._on_invalid = name, on_invalid
        self._rows = 0
        self._invalid: list[InvalidVector] = []
        self._keys = KeyLog() if unique_ids else None

    @property
    def refused(self) -> bool:
        """Whether `finish` will raise InvalidVectors, so that no more work is worth doing."""
        return self._on_invalid == "refuse" and bool(self._invalid)

    def check(self, batch: VectorBatch) -> VectorBatch:
        """Note what is wrong; returns the batch without its unusable rows."""
        found = find_invalid(batch.vectors)
        self._invalid += [
            InvalidVector(self._rows + row, batch.ids[row].as_py(), fault) for row, fault in found.items()
        ]
        self._rows += len(batch)
        if self._keys is not None:
            self._keys.add(id_keys(batch.ids))
        return without_rows(batch, list(found)) if found else batch

    def finish(self, source: VectorSource) -> CheckReport:
        """The report on the whole stream, which came from `source`.

        Raises:
            InvalidVectors: unusable vectors, and the policy is to refuse them.
            DuplicateIds: an id occurs more than once.
        """
        report = CheckReport(self._rows, tuple(self._invalid))
        if self.refused:
            raise InvalidVectors(
                f"{self._name}: {report}; first ids: {first_few(one.id for one in report.invalid)}; "
                "embed these items again, or leave them out with --on-invalid skip"
            )
        if self._keys is not None:
            _refuse_duplicates(source, self._keys.repeated(), self._name)
        return report


def check(source: VectorSource, *, on_invalid: OnInvalid = "refuse", unique_ids: bool = True) -> CheckReport:
    """Pass over a source once (twice if ids seem to repeat).

    Raises:
        InvalidVectors: unusable vectors, and the policy is to refuse them.
        DuplicateIds: an id occurs more than once.
    """
    checker = Checker(source.name, on_invalid=on_invalid, unique_ids=unique_ids)
    for batch in source.batches():
        checker.check(batch)
    return checker.finish(source)


def checked(
    source: VectorSource, *, on_invalid: OnInvalid = "refuse", unique_ids: bool = True
) -> tuple[VectorSource, CheckReport]:
    """The source, without the rows that are skipped, and the report that lists them.

    Raises:
        InvalidVectors, DuplicateIds: see `check`.
    """
    report = check(source, on_invalid=on_invalid, unique_ids=unique_ids)
    if not report.invalid:
        return source, report
    return WithoutRows(source, [one.row for one in report.invalid]), report


class WithoutRows(VectorSource):
    """A source without some of its rows.

    Args:
        source: the source.
        rows: row numbers to leave out.
    """

    def __init__(self, source: VectorSource, rows: Sequence[int]) -> None:
        self._source = source
        self._left_out = np.unique(np.array(rows, dtype=np.int64))
        self.name = source.name

    @property
    def space(self) -> Space:
        return self._source.space

    def __len__(self) -> int:
        return len(self._source) - len(self._left_out)

    def batches(self, rows: int = BATCH_ROWS, columns: tuple[str, ...] = ()) -> Iterator[VectorBatch]:
        start = 0
        for batch in self._source.batches(rows, columns):
            first, last = np.searchsorted(self._left_out, [start, start + len(batch)])
            kept = without_rows(batch, self._left_out[first:last] - start) if last > first else batch
            start += len(batch)
            if len(kept):
                yield kept


def without_rows(batch: VectorBatch, rows: Sequence[int] | NDArray[np.int64]) -> VectorBatch:
    """The batch without the given rows."""
    keep = np.ones(len(batch), dtype=bool)
    keep[np.asarray(rows)] = False
    mask = pa.array(keep)
    columns = {name: values.filter(mask) for name, values in batch.columns.items()}
    return VectorBatch(batch.ids.filter(mask), batch.vectors[keep], columns)


@dataclass
class KeyLog:
    """Finds repeated 64-bit keys in a stream, holding `in_memory` of them; the rest goes to disk."""

    in_memory: int = KEYS_IN_MEMORY
    _recent: list[Keys] = field(default_factory=list)
    _recent_count: int = 0
    _spilled: IO[bytes] | None = None
    _spilled_count: int = 0

    def add(self, keys: Keys) -> None:
        self._recent.append(keys.copy())
        self._recent_count += len(keys)
        if self._recent_count > self.in_memory:
            self._spill()

    def repeated(self) -> Keys:
        """Keys that were added more than once, sorted."""
        if self._spilled is None:
            return _repeated(np.concatenate([np.empty(0, np.uint64), *self._recent]))
        self._spill()
        parts = -(-self._spilled_count * 2 // self.in_memory)
        return np.concatenate([_repeated(self._in_part(part, parts)) for part in range(parts)])

    def _spill(self) -> None:
        if self._spilled is None:
            self._spilled = tempfile.TemporaryFile(prefix="crossfade-ids-")  # noqa: SIM115
            weakref.finalize(self, self._spilled.close)
        with full_disk_as_error(tempfile.gettempdir(), self._spilled_count):
            for keys in self._recent:
                self._spilled.write(keys.tobytes())
        self._spilled_count += self._recent_count
        self._recent, self._recent_count = [], 0

    def _in_part(self, part: int, parts: int) -> Keys:
        """The spilled keys in one of `parts` equal ranges, so that equal keys meet in one part."""
        assert self._spilled is not None
        self._spilled.seek(0)
        chosen = [np.empty(0, np.uint64)]
        while raw := self._spilled.read(8 * BATCH_ROWS * 16):
            keys = np.frombuffer(raw, np.uint64)
            spread = (keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
            chosen.append(keys[(spread * np.uint64(parts)) >> np.uint64(32) == part])
        return np.concatenate(chosen)


def _repeated(keys: Keys) -> Keys:
    ordered = np.sort(keys)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _refuse_duplicates(source: VectorSource, suspects: Keys, name: str) -> None:
    if len(suspects) == 0:
        return
    counts: Counter[Any] = Counter()
    for ids in source.ids_in_batches():
        at = np.searchsorted(suspects, keys := id_keys(ids))
        hits = np.flatnonzero(suspects[np.minimum(at, len(suspects) - 1)] == keys)
        counts.update(ids.take(pa.array(hits)).to_pylist())
    repeated = {one: count for one, count in counts.items() if count > 1}
    if repeated:
        raise DuplicateIds(
            f"{name}: {len(repeated)} ids occur more than once, {sum(repeated.values())} rows in all; "
            f"first ids: {first_few(repeated)}; keep one row of each"
        )
