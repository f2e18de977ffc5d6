"""Retrieval metrics: one family per file, each checked against an independent implementation."""

from crossfade.evaluation.metrics.agreement import Agreement
from crossfade.evaluation.metrics.average_precision import AveragePrecision
from crossfade.evaluation.metrics.base import RetrievalMetric
from crossfade.evaluation.metrics.cmc import CumulativeMatch, caption_recall
from crossfade.evaluation.metrics.ndcg import NormalizedGain
from crossfade.evaluation.metrics.open_set import tar_at_far, tpir_at_fpir, verification_pairs
from crossfade.evaluation.metrics.recall import Recall
from crossfade.evaluation.metrics.reciprocal_rank import ReciprocalRank
from crossfade.evaluation.metrics.update_gain import update_gain

__all__ = [
    "Agreement",
    "AveragePrecision",
    "CumulativeMatch",
    "NormalizedGain",
    "Recall",
    "ReciprocalRank",
    "RetrievalMetric",
    "caption_recall",
    "tar_at_far",
    "tpir_at_fpir",
    "update_gain",
    "verification_pairs",
]
