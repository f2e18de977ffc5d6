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
        made = self._at_once(rows)
        if made is None:
            return self._with_care(rows)
        bad = self._unusable(made, set())
        return self._without(made, rows, bad) if bad else made

    def _at_once(self, rows: Rows) -> Produced | None:
        """All rows, if nothing speaks against it. Adapters check what they map; it is not done twice."""
        if (self._from_old and rows.null.any()) or rows.kept is not None:
            return None
        try:
            return self._produce(rows)
        except InvalidVectors:
            if self._from_old:
                return None
            raise

    def _with_care(self, rows: Rows) -> Produced:
        kept = _kept(rows)
        bad = {row: why for row, why in faults(rows).items() if row not in kept} if self._from_old else {}
        made = self._usable(rows, set(bad) | kept)
        bad |= self._unusable(made, set(bad) | kept)
        return self._without(made, rows, bad) if bad else made

    def _unusable(self, made: Produced, left_out: set[int]) -> dict[int, str]:
        """Rows that were not given a vector, or one that no search can use."""
        valid = np.flatnonzero(made.valid)
        vectors = made.vectors if len(valid) == len(made.vectors) else made.vectors[valid]
        bad = {int(valid[row]): f"new vector {fault}" for row, fault in find_invalid(vectors).items()}
        if len(valid) < len(made.vectors):
            missing = np.flatnonzero(~made.valid).tolist()
            bad |= {row: "no item" for row in missing if row not in left_out}
        return bad

    def _without(self, made: Produced, rows: Rows, bad: dict[int, str]) -> Produced:
        self._note(rows, bad)
        valid = made.valid.copy()
        valid[list(bad)] = False
        return Produced(made.vectors, valid)

    def _usable(self, rows: Rows, left_out: set[int]) -> Produced:
        """The rows that are not left out."""
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


def select(rows: Rows, chosen: np.ndarray) -> Rows:
    """Some of the rows."""
    taken = pa.array(chosen)
    columns = {name: values.take(taken) for name, values in rows.columns.items()}
    return Rows(rows.ids.take(taken), rows.vectors[chosen], rows.null[chosen], columns)
