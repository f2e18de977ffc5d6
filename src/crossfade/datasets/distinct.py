"""Which texts were seen before, by 64-bit hashes: the texts themselves are not held."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


def text_keys(texts: Sequence[str]) -> Keys:
    """(n,) 64-bit BLAKE2b of the UTF-8 bytes of each text; the same on every machine.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


class SeenKeys:
    """A set of 64-bit keys in sorted runs: 8 bytes a key, 20 for a moment while the two largest runs merge.

    Runs at least halve in length from one to the next, so that there are few of them and a key is
    merged a logarithmic number of times. Among n distinct texts the chance that any two share a key,
    so that one is taken for a duplicate, is n² / 2⁶⁵: 3 in 10,000 for a hundred million.
    """

    def __init__(self) -> None:
        self._runs: list[Keys] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, keys: Keys) -> NDArray[np.bool_]:
        """Add keys; (n,) which of them are new: never seen before, nor earlier among these."""
        distinct, first = np.unique(keys, return_index=True)
        fresh = np.ones(len(distinct), dtype=bool)
        for run in self._runs:
            slots = np.minimum(np.searchsorted(run, distinct), len(run) - 1)
            fresh &= run[slots] != distinct
        self._append(distinct[fresh])
        new = np.zeros(len(keys), dtype=bool)
        new[first[fresh]] = True
        return new

    def _append(self, run: Keys) -> None:
        if not len(run):
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # two sorted runs: merged in linear time
            self._runs.append(merged)
