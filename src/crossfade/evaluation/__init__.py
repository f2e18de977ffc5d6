"""Metrics, the query/gallery matrix, confidence intervals and the verdict."""

from crossfade.evaluation.backfill_curve import backfill_curve
from crossfade.evaluation.compatible import Compatible, criterion
from crossfade.evaluation.curves import BackfillCurve, BackfillOrder
from crossfade.evaluation.estimates import Difference, Estimate
from crossfade.evaluation.ground_truth import GroundTruth, Judgements, Labels, Neighbours
from crossfade.evaluation.interpolation import slerp
from crossfade.evaluation.mixture import HeldOut
from crossfade.evaluation.result import (
    NAIVE,
    NATIVE,
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
from crossfade.evaluation.run import DEPTHS, WEIGHTS, evaluate
from crossfade.evaluation.search import search
from crossfade.evaluation.split import label_free_task, labelled_task, pairs_of, self_search_task
from crossfade.evaluation.task import RetrievalTask
from crossfade.evaluation.verdict import decide

__all__ = [
    "DEPTHS",
    "NAIVE",
    "NATIVE",
    "NEW_NEW",
    "OLD_ENCODER",
    "OLD_OLD",
    "RAW_ITEMS",
    "WEIGHTS",
    "Alternative",
    "BackfillCurve",
    "BackfillOrder",
    "Compatible",
    "Difference",
    "Estimate",
    "Evaluation",
    "Fit",
    "Flips",
    "GroundTruth",
    "HeldOut",
    "Judgements",
    "Labels",
    "Neighbours",
    "Pairwise",
    "RetrievalTask",
    "RowResult",
    "Skipped",
    "TaskResult",
    "Verdict",
    "backfill_curve",
    "criterion",
    "decide",
    "evaluate",
    "label_free_task",
    "labelled_task",
    "pairs_of",
    "search",
    "self_search_task",
    "slerp",
]
