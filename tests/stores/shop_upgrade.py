"""An upgrade of a shop's items, for the tests of what is particular to one store of collections."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfade.spaces import Space
from crossfade.stores import Produced, Receipt, Rows, Staged, open_store

OLD, NEW = Space("old-model", 4, "dot"), Space("new-model", 6, "dot")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")


def lift(old: np.ndarray) -> np.ndarray:
    """The map of these tests: old (n, 4) to new (n, 6)."""
    return np.hstack([old, 2 * old[:, :2]]).astype(np.float32)


def produce(rows: Rows) -> Produced:
    return Produced(lift(np.nan_to_num(rows.vectors)), ~rows.null)


def write(store: Any, receipts: dict[str, Receipt]) -> None:
    """Write what is pending."""
    for part in store.pending(STAGED, receipts):
        receipts[part.key] = store.write_part(part, STAGED, produce, rows=7)


def switch(store: Any, receipts: dict[str, Receipt]) -> None:
    """Switch, writing what others add meanwhile."""
    while store.switch(STAGED, receipts):
        write(store, receipts)


def build(uri: str) -> tuple[Any, dict[str, Receipt]]:
    """The store at an address with all new vectors, before the switch."""
    store, receipts = open_store(uri), dict[str, Receipt]()
    write(store, receipts)
    assert store.publish(STAGED, receipts) == []
    return store, receipts
