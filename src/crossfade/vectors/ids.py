"""Ids of items: integers or strings, compared exactly, looked up through 64-bit keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crossfade.errors import DataError, IdMismatch

Keys = NDArray[np.uint64]


def normalize_ids(ids: pa.Array, what: str = "ids", first_row: int = 0) -> pa.Array:
    """The ids as int64, uint64 or string, so that two sources can be compared.

    Raises:
        DataError: an id is null, or the type is neither integer nor string.
    """
    if ids.null_count:
        row = first_row + int(np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"{what}: the id in row {row} is null; give every item an id or name another id column"
        )
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if pa.types.is_null(ids.type) and len(ids) == 0:
        return ids.cast(pa.string())
    return ids.cast(_common_type(ids.type, what))


def _common_type(id_type: pa.DataType, what: str) -> pa.DataType:
    if pa.types.is_uint64(id_type):
        return id_type
    if pa.types.is_integer(id_type):
        return pa.int64()
    if pa.types.is_string(id_type) or pa.types.is_large_string(id_type):
        return pa.string()
    raise DataError(
        f"{what}: ids of type {id_type} are not supported, integers and strings are; "
        "cast the column or name another id column"
    )


def id_keys(ids: pa.Array) -> Keys:
    """One 64-bit key per id: integers themselves; for strings a hash, so equal keys need confirming."""
    if pa.types.is_integer(ids.type):
        values: Keys = ids.to_numpy().view(np.uint64)
        return values
    return _hash_strings(ids)


def keys_are_exact(id_type: pa.DataType) -> bool:
    """Whether equal keys mean equal ids."""
    return bool(pa.types.is_integer(id_type))


def _hash_strings(ids: pa.Array) -> Keys:
    """Multilinear hashing: the sum over the bytes of byte times a random word of its position."""
    _, offset_buffer, data_buffer = ids.buffers()
    if len(ids) == 0 or data_buffer is None:
        return np.zeros(len(ids), dtype=np.uint64)
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[ids.offset : ids.offset + len(ids) + 1]
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    text = np.frombuffer(data_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    position = np.arange(len(text)) - np.repeat(starts, lengths)
    words = _position_words(1 << int(lengths.max()).bit_length())
    sums = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum((text + np.uint64(1)) * words[position], out=sums[1:])
    keys: Keys = sums[starts + lengths] - sums[starts]
    return keys


@lru_cache(maxsize=4)
def _position_words(count: int) -> Keys:
    words: Keys = np.random.default_rng(0x5EED).integers(0, 1 << 64, count, dtype=np.uint64) | np.uint64(1)
    return words


class IdIndex:
    """Finds the row of an id. Holds the ids and 16 bytes per id; building sorts once.

    Args:
        ids: the ids in row order, in chunks of one type (see `normalize_ids`).
    """

    def __init__(self, ids: Iterable[pa.Array]) -> None:
        chunks = list(ids)
        self.ids = pa.chunked_array(chunks) if chunks else pa.chunked_array([], pa.string())
        keys = np.concatenate([id_keys(chunk) for chunk in chunks]) if chunks else np.empty(0, np.uint64)
        self._order = np.argsort(keys, kind="stable")
        self._keys: Keys = keys[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def rows(self, ids: pa.Array) -> NDArray[np.int64]:
        """The row of each id, -1 where it is absent; the first row of an id that occurs twice.

        Raises:
            IdMismatch: the ids are of another type than those of the index.
        """
        if len(self) == 0:
            return np.full(len(ids), -1, dtype=np.int64)
        if ids.type != self.ids.type:
            raise IdMismatch(
                f"ids of type {ids.type} cannot be matched with ids of type {self.ids.type}; cast one of them"
            )
        keys = id_keys(ids)
        slots = np.searchsorted(self._keys, keys)
        known = slots < len(self)
        known[known] = self._keys[slots[known]] == keys[known]
        rows = np.full(len(ids), -1, dtype=np.int64)
        rows[known] = self._order[slots[known]]
        return rows if keys_are_exact(ids.type) else self._confirm(ids, rows, slots)

    def repeated(self) -> list[int | str]:
        """Ids that occur more than once."""
        same = self._keys[1:] == self._keys[:-1]
        suspects = np.unique(np.concatenate([self._order[1:][same], self._order[:-1][same]]))
        counts = Counter(self.ids.take(pa.array(suspects)).to_pylist())
        return [one for one, count in counts.items() if count > 1]

    def _confirm(self, ids: pa.Array, rows: NDArray[np.int64], slots: NDArray[np.intp]) -> NDArray[np.int64]:
        found = np.flatnonzero(rows >= 0)
        same = pc.equal(self.ids.take(pa.array(rows[found])), ids.take(pa.array(found)))
        for item in found[~same.to_numpy().astype(bool)]:
            rows[item] = self._search_run(ids[int(item)], int(slots[item]))
        return rows

    def _search_run(self, wanted: pa.Scalar, slot: int) -> int:
        key = self._keys[slot]
        while slot < len(self) and self._keys[slot] == key:
            row = int(self._order[slot])
            if self.ids[row] == wanted:
                return row
            slot += 1
        return -1


def first_few(ids: Iterable[object], count: int = 5) -> str:
    """The first ids for a message: ``'a', 'b', 'c', ...``."""
    shown: list[str] = []
    for position, value in enumerate(ids):
        if position == count:
            return ", ".join([*shown, "..."])
        shown.append(repr(value))
    return ", ".join(shown)
