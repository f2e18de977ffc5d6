"""Open a store by its address."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from crossfade.errors import UsageError
from crossfade.stores.address import Address, redact
from crossfade.stores.base import Store

STORES = {
    "faiss": ("faiss_index:FaissIndex",),
    "lancedb": ("lancedb:LanceDB",),
    "chroma": ("chroma:Chroma",),
    "chromas": ("chroma:Chroma",),
    "milvus": ("milvus:Milvus",),
    "milvuss": ("milvus:Milvus",),
    "parquet": ("parquet:ParquetFile",),
    "qdrant": ("qdrant_vectors:QdrantVectors", "qdrant_alias:QdrantAlias"),
    "qdrants": ("qdrant_vectors:QdrantVectors", "qdrant_alias:QdrantAlias"),
    "postgresql": ("pgvector:PgVector",),
    "postgres": ("pgvector:PgVector",),
}
"""Scheme of the address -> modules and classes, imported when used; the first that serves it opens it."""


def kinds(scheme: str) -> Iterator[type[Store]]:
    """The classes of the stores that addresses of a scheme may mean."""
    for place in STORES[scheme]:
        module, _, name = place.partition(":")
        found: type[Store] = getattr(import_module(f"crossfade.stores.{module}"), name)
        yield found


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
    *before, last = kinds(address.scheme)
    store: Any = next((one for one in before if one.serves(address)), last)
    opened: Store = store(address, id_column=id_column or address.id_column or None)
    return opened
