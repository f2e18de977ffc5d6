"""Retrieval metrics: one family per file, each checked against an independent implementation."""

from crossfade.evaluation.metrics.agreement import Agreement
from crossfade.evaluation.metrics.average_precision import AveragePrecision
from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.metrics.cmc import CumulativeMatch, caption_recall
from crossfade.evaluation.metrics.ndcg import NormalizedGain
from crossfade.evaluation.metrics.recall import Recall
from crossfade.evaluation.metrics.reciprocal_rank import ReciprocalRank

__all__ = [
    "Agreement",
    "AveragePrecision",
    "CumulativeMatch",
    "NormalizedGain",
    "Recall",
    "ReciprocalRank",
    "RetrievalMetric",
    "caption_recall",
]
