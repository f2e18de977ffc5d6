"""Ids + vectors + space, streamed as Arrow batches."""

from crossfade.vectors.base import BATCH_ROWS, FloatMatrix, VectorBatch, Vectors, VectorSource
from crossfade.vectors.pairs import ArrayPairs, Pairs

__all__ = ["BATCH_ROWS", "ArrayPairs", "FloatMatrix", "Pairs", "VectorBatch", "VectorSource", "Vectors"]
