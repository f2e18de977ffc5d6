"""FastFill: alignment to the new embedding and to the new model's classifier, with a variance per item.

Jaeckle, Faghri, Farhadi, Tuzel and Pouransari, ICLR 2023 (arXiv 2303.04766).
"""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossfade.adapters.fastfill import FastFill
from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.adapters.prepared import PreparedPairs
from crossfade.errors import DataError, DimensionMismatch
from crossfade.training.classifier import Classifier, ClassWeights
from crossfade.training.fct import cache, recipe_of, transformation_for
from crossfade.training.losses.cross_entropy import require_labels_within
from crossfade.training.losses.gaussian import gaussian_nll
from crossfade.training.losses.influence import UNKNOWN
from crossfade.training.transformation import Spreads, Transformation
from crossfade.training.vector_loop import VectorLearner, Watch, optimize


class FastFillLearner(VectorLearner):
    """h and the log-variance of each item.

    Args:
        transformation: h.
        classifier: the new model's, frozen; None without labels.
        classifier_weight: of the cross-entropy beside the squared error.
        spread: what target vectors were divided by; the classifier sees vectors as they come.
    """

    def __init__(
        self,
        transformation: Transformation,
        classifier: Classifier | None,
        classifier_weight: float,
        spread: float,
    ) -> None:
        super().__init__()
        self.transformation, self.classifier = transformation, classifier
        self.variance = nn.Linear(transformation.out.in_features, 1)
        # The first guess of every item's error is that of answering with nothing: 1 per component.
        nn.init.zeros_(self.variance.weight)
        nn.init.zeros_(self.variance.bias)
        self._weight, self._spread = classifier_weight, spread

    def forward(self, x: Tensor, side: Tensor, y: Tensor, labels: Tensor) -> dict[str, Tensor]:
        features = self.transformation.features(x, side)
        mapped = self.transformation.out(features).float()
        alignment = (mapped - y).square().mean(dim=1)
        numbers = {"alignment": alignment.mean()}
        error = alignment
        if self.classifier is not None:
            entropy = self._cross_entropy(mapped, labels)
            numbers["cross-entropy"] = entropy.mean()
            error = alignment + self._weight * entropy
        loss = gaussian_nll(error, self.variance(features).float()[:, 0])
        return {"loss": loss, **{name: value.detach() for name, value in numbers.items()}}

    def _cross_entropy(self, mapped: Tensor, labels: Tensor) -> Tensor:
        """(b,) of each item; 0 where the class is not known."""
        assert self.classifier is not None
        logits = self.classifier(mapped * self._spread)
        return F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")


def learn(
    adapter: ForwardTransformation,
    pairs: PreparedPairs,
    *,
    classifier: ClassWeights | None = None,
    watch: Watch | None = None,
) -> None:
    """Train h with its variances and put both into `adapter`.

    Args:
        classifier: the new model's; of labelled pairs the class means take its place.

    Raises:
        TrainingDiverged: the loss became NaN or infinite.
        DataError: labels outside the classifier, or a classifier for pairs without labels.
        DimensionMismatch: a classifier of embeddings of another length.
    """
    assert isinstance(adapter, FastFill)
    cached = cache(adapter, pairs)
    learner = FastFillLearner(
        transformation_for(adapter, cached, pairs.dimensions),
        _classifier(pairs, classifier),
        adapter.classifier_weight,
        cached.spreads.y,
    )
    log = optimize(learner, cached, recipe_of(adapter), watch)
    adapter.arrays = learner.transformation.folded(cached.spreads) | _variance_arrays(learner, cached.spreads)
    adapter.chosen = {f"training {name}": log[-1][name] for name in ("loss", "alignment")}
    adapter.held_out = {}


def _variance_arrays(learner: FastFillLearner, spreads: Spreads) -> dict[str, np.ndarray]:
    """The head for expected squared errors of whole vectors: per component, times components and spread²."""
    weight, bias = (value.detach().float().cpu().numpy() for value in learner.variance.parameters())
    scale = math.log(learner.transformation.out.out_features * spreads.y**2)
    return {
        "variance.weight": np.ascontiguousarray(weight.T),
        "variance.bias": (bias + scale).astype(np.float32),
    }


def _classifier(pairs: PreparedPairs, given: ClassWeights | None) -> Classifier | None:
    if not pairs.labelled:
        if given is not None:
            raise DataError(
                "a classifier was given, but the pairs have no labels for it; give labels as well, "
                "or leave it out: the variances are then learned from the pairs alone"
            )
        return None
    if given is None:
        return _class_means(pairs).frozen()
    dimension = given.weight.shape[1]
    if dimension != pairs.dimensions[1]:
        raise DimensionMismatch(
            f"the classifier reads embeddings of {dimension} dimensions, the new model's have "
            f"{pairs.dimensions[1]}; give the classifier of the model that made the new vectors"
        )
    largest = max(int(block.labels.max()) for block in pairs.full_blocks() if block.labels is not None)
    require_labels_within(largest, len(given.weight), "labels of the pairs")
    return given.frozen()


def _class_means(pairs: PreparedPairs) -> ClassWeights:
    """The mean direction of the new embeddings of each class; classes without items stay at zero."""
    sums = np.zeros((0, pairs.dimensions[1]))
    for block in pairs.full_blocks():
        assert block.labels is not None
        known = block.labels != UNKNOWN
        sums = np.pad(sums, ((0, max(0, int(block.labels.max(initial=-1)) + 1 - len(sums))), (0, 0)))
        lengths = np.linalg.norm(block.y[known], axis=1, keepdims=True)
        np.add.at(sums, block.labels[known], block.y[known] / lengths)
    directions = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    bias = np.zeros(len(sums), dtype=np.float32)
    return ClassWeights(directions.astype(np.float32), bias, tuple(range(len(sums))), normalized=True)
