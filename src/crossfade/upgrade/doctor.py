"""Examine a gallery for vectors of another model: what a botched earlier upgrade leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.encoders.base import Encoder
from crossfade.errors import UsageError
from crossfade.evaluation.estimates import Estimate
from crossfade.evaluation.origin import Origins, find_origins, wilson
from crossfade.stores import Rows, Store
from crossfade.upgrade.producing import select
from crossfade.vectors import FloatMatrix

SAMPLE = 3000
EMBEDDED = 200
SAME_VECTOR = 0.99
"""Cosine from which a stored vector counts as what the encoder makes of its item; below it, as another's."""
SHOWN = 5
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        origins: by the geometry of a sample.
        foreign: share of rows whose vector is not what the encoder makes of the item; None without encoder.
        embedded: rows that were embedded again.
        examples: ids of vectors that are not of the largest origin, or not the encoder's.
    """

    origins: Origins
    foreign: Estimate | None
    embedded: int
    examples: tuple[Any, ...]

    @property
    def mixed(self) -> bool:
        """Whether vectors of another model were found; the encoder's word counts before geometry's."""
        if self.foreign is not None:
            return self.foreign.value > 0
        return self.origins.verdict == "mixed"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "mixed": self.mixed,
            **self.origins.to_dict(),
            "embedded": self.embedded,
            "foreign": self.foreign.to_dict() if self.foreign else None,
            "examples": list(self.examples),
        }


def examine(
    store: Store,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    encoder: Encoder | None = None,
    items: str | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Look at a random sample of the store's vectors; nothing is written.

    Args:
        sample: vectors to look at.
        encoder: the model that the gallery is said to be of; with it, some items are embedded again.
        items: column of the raw items, for the encoder.

    Raises:
        UsageError: an encoder without a column of items.
        SpaceError: the encoder is not of the space that is recorded for the gallery.
        DataError: too few vectors.
    """
    if encoder is not None and not items:
        raise UsageError("an encoder embeds the gallery's items; name their column (--items COLUMN)")
    recorded = store.space()
    if encoder is not None and recorded is not None:
        recorded.require_same(encoder.space, "encoder")
    rows = sample_rows(store, sample, seed, [items] if encoder is not None and items else [], progress)
    origins = find_origins(rows.vectors)
    if encoder is None or items is None:
        apart = np.flatnonzero(origins.groups > 0) if origins.verdict == "mixed" else np.empty(0, dtype=int)
        return Diagnosis(origins, None, 0, _ids(rows, apart))
    count = min(EMBEDDED, len(rows))
    again = encoder.encode(rows.columns[items].slice(0, count).to_pylist())
    foreign = np.flatnonzero(_cosines(rows.vectors[:count], again) < SAME_VECTOR)
    return Diagnosis(origins, wilson(len(foreign), count), count, _ids(rows, foreign))


def write_origins(store: Store, origins: Origins, path: str | Path, progress: Progress | None = None) -> int:
    """Write the origin of every row, 0 for the largest, to a Parquet file of id and origin.

    Returns:
        The number of rows.

    Raises:
        UsageError: the file exists.
    """
    target = Path(path)
    if target.exists():
        raise UsageError(f"{target}: exists already; choose another file")
    partial, done = target.with_name(f".{target.name}.partial"), 0
    total = store.describe().rows
    writer: pq.ParquetWriter | None = None
    try:
        for batch in store.scan():
            table = pa.table(
                {"id": batch.ids, "origin": pa.array(_assigned(batch, origins), mask=batch.null)}
            )
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            done += len(batch)
            if progress is not None:
                progress(done, total)
    finally:
        if writer is not None:
            writer.close()
    partial.replace(target)
    return done


def _assigned(batch: Rows, origins: Origins) -> np.ndarray:
    vectors = np.nan_to_num(batch.vectors)
    return origins.assign(vectors).astype(np.int32)


def sample_rows(
    store: Store, count: int, seed: int, columns: list[str], progress: Progress | None = None
) -> Rows:
    """Random rows with a vector, in random order; one pass, memory for the sample alone."""
    rng, total = np.random.default_rng(seed), store.describe().rows
    keys = np.empty(0)
    kept: list[Rows] = []
    for batch in _with_progress(store.scan(columns=columns), total, progress):
        usable = np.flatnonzero(~batch.null & (np.abs(batch.vectors).sum(axis=1) > 0))
        drawn = rng.random(len(usable))
        keys = np.concatenate([keys, drawn])
        kept.append(select(batch, usable))
        if sum(map(len, kept)) > 4 * count:
            keys, kept = _smallest(keys, kept, count, columns)
    return _smallest(keys, kept, count, columns)[1][0]


def _smallest(
    keys: np.ndarray, kept: list[Rows], count: int, columns: list[str]
) -> tuple[np.ndarray, list[Rows]]:
    """The rows with the `count` smallest keys, in the order of their keys."""
    order = np.argsort(keys, kind="stable")[:count]
    joined = Rows(
        pa.concat_arrays([one.ids for one in kept]),
        np.concatenate([one.vectors for one in kept]),
        np.concatenate([one.null for one in kept]),
        {name: pa.concat_arrays([one.columns[name] for one in kept]) for name in columns},
    )
    return keys[order], [select(joined, order)]


def _with_progress(batches: Iterable[Rows], total: int, progress: Progress | None) -> Iterator[Rows]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        if progress is not None:
            progress(done, total)


def _cosines(stored: FloatMatrix, again: FloatMatrix) -> FloatMatrix:
    lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(again, axis=1)
    cosines: FloatMatrix = np.einsum("ij,ij->i", stored, again) / lengths
    return cosines


def _ids(rows: Rows, chosen: np.ndarray) -> tuple[Any, ...]:
    return tuple(rows.ids.take(pa.array(chosen[:SHOWN])).to_pylist())
