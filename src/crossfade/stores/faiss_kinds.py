"""Kinds of FAISS indexes: described, and made again for other vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import NotSupported
from crossfade.extras import load
from crossfade.spaces import Metric
from crossfade.stores.indexing import codes_per_vector
from crossfade.stores.records import IndexInfo
from crossfade.vectors import FloatMatrix

TYPES = ("HNSW", "IVF_FLAT", "IVF_PQ")
_CLASSES = {"IndexHNSWFlat": "HNSW", "IndexIVFFlat": "IVF_FLAT", "IndexIVFPQ": "IVF_PQ"}
TRAINING_ROWS = 256
"""Per centroid, of lists and of codes: as many as FAISS uses at most."""
ADDED_AT_ONCE = 65_536


def unwrapped(index: Any) -> tuple[Any, NDArray[np.int64] | None]:
    """The index inside an id map, and the ids of its positions; None where it has no map."""
    faiss = load("faiss", "faiss")
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        return faiss.downcast_index(index.index), faiss.vector_to_array(index.id_map)
    return index, None


def is_flat(index: Any) -> bool:
    """Whether the index holds the vectors as they are, and nothing else."""
    return type(index).__name__.startswith("IndexFlat")


def has_lists(index: Any) -> bool:
    """Whether it keeps ids itself, in inverted lists."""
    return isinstance(index, load("faiss", "faiss").IndexIVF)


def is_compressed(index: Any) -> bool:
    """Whether it holds codes from which vectors come back changed."""
    return type(index).__name__ == "IndexIVFPQ"


def require_known(index: Any, what: str) -> None:
    """Refuse kinds of index that cannot be made again.

    Raises:
        NotSupported: its kind, and those that are known.
    """
    kind = type(index).__name__
    if not is_flat(index) and kind not in _CLASSES:
        raise NotSupported(
            f"{what}: an index of kind {kind} cannot be rebuilt; flat, HNSW, IVF-Flat and IVF-PQ can: "
            "write its vectors into one of these, or into a Parquet file"
        )


def describe_index(index: Any) -> IndexInfo | None:
    """Type, metric and parameters; None for a flat index."""
    inner, _ = unwrapped(index)
    if is_flat(inner):
        return None
    metric = "l2" if inner.metric_type == load("faiss", "faiss").METRIC_L2 else "dot"
    kind = _CLASSES[type(inner).__name__]
    return IndexInfo("", kind, metric, _parameters(inner), int(inner.ntotal))


def _parameters(index: Any) -> dict[str, int]:
    if not has_lists(index):
        graph = index.hnsw
        values = {"m": graph.nb_neighbors(1), "ef_construction": graph.efConstruction}
        return {**values, "ef_search": graph.efSearch}
    lists = {"num_partitions": int(index.nlist), "nprobe": int(index.nprobe)}
    if not is_compressed(index):
        return lists
    return {**lists, "num_sub_vectors": int(index.pq.M), "num_bits": int(index.pq.nbits)}


class IndexMaker:
    """Makes an index like another for new vectors.

    Args:
        like: its description; None for a flat index.
        old: the index itself, for what a description does not say.
        dimension, metric: of the new vectors; for cosine they are stored with unit length.
    """

    def __init__(self, like: IndexInfo | None, old: Any, dimension: int, metric: Metric) -> None:
        self._faiss = load("faiss", "faiss")
        inner, ids = unwrapped(old)
        self._map = type(old) if ids is not None else None
        if ids is None and has_lists(inner) and not (like and like.type.startswith("IVF")):
            self._map = self._faiss.IndexIDMap2
        self._keeps_ids = self._map is not None or (like is not None and like.type.startswith("IVF"))
        self._metric = self._faiss.METRIC_L2 if metric == "l2" else self._faiss.METRIC_INNER_PRODUCT
        self._index = self._empty(like, inner, dimension)

    def _empty(self, like: IndexInfo | None, old: Any, dimension: int) -> Any:
        if like is None:
            return self._faiss.IndexFlat(dimension, self._metric)
        values = like.parameters
        if like.type == "HNSW":
            made = self._faiss.IndexHNSWFlat(dimension, values["m"], self._metric)
            made.hnsw.efConstruction = values["ef_construction"]
            made.hnsw.efSearch = values.get("ef_search", made.hnsw.efSearch)
            return made
        made = self._with_lists(like, old.d, dimension)
        made.nprobe = values.get("nprobe", made.nprobe)
        return made

    def _with_lists(self, like: IndexInfo, before: int, dimension: int) -> Any:
        values, coarse = like.parameters, self._faiss.IndexFlat(dimension, self._metric)
        lists = values["num_partitions"]
        if like.type == "IVF_FLAT":
            made = self._faiss.IndexIVFFlat(coarse, dimension, lists, self._metric)
        else:
            codes = codes_per_vector(values["num_sub_vectors"], before, dimension)
            made = self._faiss.IndexIVFPQ(coarse, dimension, lists, codes, values["num_bits"], self._metric)
            made.pq.cp.min_points_per_centroid = 1
        made.cp.min_points_per_centroid = 1
        coarse.this.disown()
        made.own_fields = True
        return made

    @property
    def training_rows(self) -> int:
        """How many vectors it is trained on at most; 0 if it needs no training."""
        if not has_lists(self._index):
            return 0
        codes = 1 << self._index.pq.nbits if is_compressed(self._index) else 0
        return int(TRAINING_ROWS * max(self._index.nlist, codes))

    def train(self, vectors: FloatMatrix) -> None:
        """Find the centroids."""
        if self.training_rows:
            self._index.train(vectors)

    def fill(self, batches: Iterator[tuple[NDArray[np.int64], FloatMatrix]]) -> Any:
        """Add vectors under their ids; returns the index."""
        filled = self._map(self._index) if self._map else self._index
        for ids, vectors in batches:
            if self._keeps_ids:
                filled.add_with_ids(vectors, ids)
            else:
                filled.add(vectors)
        return filled


def unit(vectors: FloatMatrix, metric: Metric) -> FloatMatrix:
    """Vectors as an index compares them: FAISS knows no cosine, but inner products of unit vectors.

    Those of NaN stay as they are.
    """
    if metric != "cosine":
        return np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    made: FloatMatrix = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths != 0)
    return made


def decoded(index: Any, vectors: FloatMatrix) -> FloatMatrix:
    """What comes back for vectors that the index holds as codes."""
    inner, _ = unwrapped(index)
    if not is_compressed(inner) or not len(vectors):
        return vectors
    back: FloatMatrix = inner.sa_decode(inner.sa_encode(np.ascontiguousarray(vectors)))
    return back
