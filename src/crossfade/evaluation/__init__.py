"""Metrics, the query/gallery matrix, confidence intervals and the verdict."""

from crossfade.evaluation.estimates import Difference, Estimate
from crossfade.evaluation.ground_truth import GroundTruth, Judgements, Labels, Neighbours
from crossfade.evaluation.result import (
    NAIVE,
    NEW_NEW,
    OLD_ENCODER,
    OLD_OLD,
    RAW_ITEMS,
    Alternative,
    Evaluation,
    Fit,
    Flips,
    Pairwise,
    RowResult,
    Skipped,
    TaskResult,
    Verdict,
)
from crossfade.evaluation.task import RetrievalTask

__all__ = [
    "NAIVE",
    "NEW_NEW",
    "OLD_ENCODER",
    "OLD_OLD",
    "RAW_ITEMS",
    "Alternative",
    "Difference",
    "Estimate",
    "Evaluation",
    "Fit",
    "Flips",
    "GroundTruth",
    "Judgements",
    "Labels",
    "Neighbours",
    "Pairwise",
    "RetrievalTask",
    "RowResult",
    "Skipped",
    "TaskResult",
    "Verdict",
]
