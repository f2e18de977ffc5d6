"""Vector stores: read a gallery in stable parts, write vectors beside the old ones, switch atomically."""

from crossfade.stores.base import Store, VectorCache
from crossfade.stores.open import open_store
from crossfade.stores.records import (
    Capabilities,
    Description,
    Hits,
    IndexInfo,
    Obstacle,
    Part,
    PartGone,
    Produce,
    Produced,
    Receipt,
    Rows,
    Staged,
)

__all__ = [
    "Capabilities",
    "Description",
    "Hits",
    "IndexInfo",
    "Obstacle",
    "Part",
    "PartGone",
    "Produce",
    "Produced",
    "Receipt",
    "Rows",
    "Staged",
    "Store",
    "VectorCache",
    "open_store",
]
