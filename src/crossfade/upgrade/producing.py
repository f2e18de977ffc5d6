"""New vectors for rows of a store, with unusable rows refused, or skipped and listed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from crossfade.errors import InvalidVectors
from crossfade.stores import Produce, Produced, Rows
from crossfade.upgrade.inspection import faults
from crossfade.upgrade.plans import OnInvalid
from crossfade.vectors.checks import find_invalid
from crossfade.vectors.ids import first_few


class Producer:
    """Wraps what a strategy makes vectors with.

    Args:
        produce: makes vectors from usable rows.
        on_invalid: whether unusable rows are an error, or are listed in `skipped` and left null.
        from_old: whether vectors are made from the old ones, so that these must be usable.
        dimension: of the new vectors.
        what: the store, for messages.
    """

    def __init__(
        self, produce: Produce, on_invalid: OnInvalid, from_old: bool, dimension: int, what: str
    ) -> None:
        self._produce, self._on_invalid, self._from_old = produce, on_invalid, from_old
        self._dimension, self._what = dimension, what
        self.skipped: list[tuple[str, str]] = []

    def __call__(self, rows: Rows) -> Produced:
        """New vectors of `rows`; those that cannot be made are not valid.

        Raises:
            InvalidVectors: there are such rows, and they are to be refused.
        """
        bad = faults(rows) if self._from_old else {}
        left_out = set(bad) | _kept(rows)
        made = self._usable(rows, left_out)
        bad = {row: fault for row, fault in bad.items() if row not in _kept(rows)}
        for row in np.flatnonzero(~made.valid).tolist():
            if row not in left_out:
                bad[row] = "no item"
        bad |= {row: f"new vector {fault}" for row, fault in _unusable(made).items()}
        if bad:
            self._note(rows, bad)
            made.valid[list(bad)] = False
        return made

    def _usable(self, rows: Rows, left_out: set[int]) -> Produced:
        if not left_out:
            made = self._produce(rows)
            return Produced(made.vectors, made.valid.copy())
        keep = np.setdiff1d(np.arange(len(rows)), np.fromiter(left_out, dtype=np.int64))
        vectors = np.zeros((len(rows), self._dimension), dtype=np.float32)
        valid = np.zeros(len(rows), dtype=bool)
        if len(keep):
            made = self._produce(select(rows, keep))
            vectors[keep], valid[keep] = made.vectors, made.valid
        return Produced(vectors, valid)

    def _note(self, rows: Rows, bad: dict[int, str]) -> None:
        named = [(rows.ids[row].as_py(), reason) for row, reason in sorted(bad.items())]
        if self._on_invalid == "refuse":
            counts = ", ".join(f"{count} {reason}" for reason, count in Counter(bad.values()).items())
            raise InvalidVectors(
                f"{self._what}: {len(bad)} rows cannot be given a new vector ({counts}); first ids: "
                f"{first_few(one for one, _ in named)}; correct them and run apply again, "
                "or plan again with --on-invalid skip"
            )
        self.skipped += [(str(one), reason) for one, reason in named]


def _kept(rows: Rows) -> set[int]:
    return set() if rows.kept is None else set(np.flatnonzero(rows.kept).tolist())


def _unusable(made: Produced) -> dict[int, str]:
    valid = np.flatnonzero(made.valid)
    vectors = made.vectors if len(valid) == len(made.vectors) else made.vectors[valid]
    return {int(valid[row]): str(fault) for row, fault in find_invalid(vectors).items()}


def select(rows: Rows, chosen: np.ndarray) -> Rows:
    """Some of the rows."""
    taken = pa.array(chosen)
    columns = {name: values.take(taken) for name, values in rows.columns.items()}
    return Rows(rows.ids.take(taken), rows.vectors[chosen], rows.null[chosen], columns)
