"""Ids + vectors + space, streamed as Arrow batches."""

from crossfade.vectors.align import SourcePairs, align
from crossfade.vectors.base import BATCH_ROWS, FloatMatrix, VectorBatch, Vectors, VectorSource
from crossfade.vectors.checks import CheckReport, check, checked
from crossfade.vectors.columns import ROW_NUMBERS
from crossfade.vectors.lance_writing import LanceVectorWriter
from crossfade.vectors.location import LanceLocation
from crossfade.vectors.metadata import record_space, recorded_space
from crossfade.vectors.open import open_vectors, open_writer
from crossfade.vectors.pairs import ArrayPairs, PairBatch, Pairs, no_side
from crossfade.vectors.transform import LiftReport, lift
from crossfade.vectors.writing import ParquetVectorWriter, VectorWriter

__all__ = [
    "BATCH_ROWS",
    "ROW_NUMBERS",
    "ArrayPairs",
    "CheckReport",
    "FloatMatrix",
    "LanceLocation",
    "LanceVectorWriter",
    "LiftReport",
    "PairBatch",
    "Pairs",
    "ParquetVectorWriter",
    "SourcePairs",
    "VectorBatch",
    "VectorSource",
    "VectorWriter",
    "Vectors",
    "align",
    "check",
    "checked",
    "lift",
    "no_side",
    "open_vectors",
    "open_writer",
    "record_space",
    "recorded_space",
]
