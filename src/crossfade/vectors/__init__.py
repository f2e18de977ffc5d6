"""Ids + vectors + space, streamed as Arrow batches."""

from crossfade.vectors.base import BATCH_ROWS, FloatMatrix, VectorBatch, Vectors, VectorSource

__all__ = ["BATCH_ROWS", "FloatMatrix", "VectorBatch", "VectorSource", "Vectors"]
