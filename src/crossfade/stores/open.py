"""Open a store by its address."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from crossfade.errors import UsageError
from crossfade.stores.address import Address, redact
from crossfade.stores.base import Store

STORES = {
    "faiss": ("crossfade.stores.faiss_index", "FaissIndex"),
    "lancedb": ("crossfade.stores.lancedb", "LanceDB"),
    "chroma": ("crossfade.stores.chroma", "Chroma"),
    "chromas": ("crossfade.stores.chroma", "Chroma"),
    "milvus": ("crossfade.stores.milvus", "Milvus"),
    "milvuss": ("crossfade.stores.milvus", "Milvus"),
    "parquet": ("crossfade.stores.parquet", "ParquetFile"),
    "qdrant": ("crossfade.stores.qdrant", "Qdrant"),
    "qdrants": ("crossfade.stores.qdrant", "Qdrant"),
    "postgresql": ("crossfade.stores.pgvector", "PgVector"),
    "postgres": ("crossfade.stores.pgvector", "PgVector"),
}
"""Scheme of the address -> module and class; imported when used."""


def open_store(uri: str, *, id_column: str | None = None) -> Store:
    """Open the column of vectors at `uri`, e.g. ``lancedb://DIR#table.column``.

    Args:
        id_column: column of the ids; ``id`` unless given here or as ``?id=NAME`` in the address.

    Raises:
        UsageError: another form of address, or a kind of store that is not known.
        StoreError: no such table or column.
        MissingExtra: the store's library is not installed.
    """
    scheme = uri.partition("://")[0]
    if "://" in uri and scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise UsageError(f"{redact(uri)!r}: stores of kind {scheme!r} are not known; there are {known}")
    address = Address.parse(uri)
    module, name = STORES[address.scheme]
    store: Any = getattr(import_module(module), name)
    opened: Store = store(address, id_column=id_column or address.id_column or None)
    return opened
