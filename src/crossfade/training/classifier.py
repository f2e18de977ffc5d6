"""Classifiers on embeddings: trained, saved beside the network, frozen, or synthesized from class means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfade.encoders.trained import read_notes
from crossfade.errors import DataError, UnreadableFile
from crossfade.vectors import FloatMatrix

FILE = "classifier.safetensors"
ClassName = int | str


class Classifier(nn.Module):
    """Linear logits, or scaled cosines.

    Args:
        dimension: length of an embedding.
        classes: number of classes.
        bias: whether a bias is learned; otherwise it stays zero.
        normalized: compare directions (Wang et al., NormFace, 2017); there is no bias then.
        scale: what cosines are multiplied with.
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        *,
        bias: bool = True,
        normalized: bool = False,
        scale: float = 30.0,
    ) -> None:
        super().__init__()
        self.normalized, self.scale = normalized, scale
        self.weight = nn.Parameter(torch.empty(classes, dimension))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.normal_(self.weight, std=dimension**-0.5)
        self.bias.requires_grad_(bias and not normalized)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(n, dimension) → (n, classes)."""
        if self.normalized:
            return self.scale * F.linear(F.normalize(embeddings, dim=1), F.normalize(self.weight, dim=1))
        return F.linear(embeddings, self.weight, self.bias)


@dataclass(frozen=True)
class ClassWeights:
    """A classifier's numbers with the names of its classes.

    Attributes:
        weight: (c, d) float32.
        bias: (c,) float32.
        names: the classes.
        normalized, scale: see `Classifier`.
    """

    weight: FloatMatrix
    bias: NDArray[np.float32]
    names: tuple[ClassName, ...]
    normalized: bool = False
    scale: float = 30.0

    def frozen(self, *, normalized: bool | None = None, scale: float | None = None) -> Classifier:
        """As a module whose numbers do not change."""
        classes, dimension = self.weight.shape
        module = Classifier(
            dimension,
            classes,
            normalized=self.normalized if normalized is None else normalized,
            scale=self.scale if scale is None else scale,
        )
        module.weight.data.copy_(torch.from_numpy(self.weight))
        module.bias.data.copy_(torch.from_numpy(self.bias))
        module.requires_grad_(False)
        return module

    def positions(self, names: Sequence[ClassName]) -> NDArray[np.int64]:
        """Where this classifier has each of `names`, -1 for classes that it does not know."""
        known = {name: position for position, name in enumerate(self.names)}
        return np.array([known.get(name, -1) for name in names], dtype=np.int64)


def save_classifier(classifier: Classifier, directory: str | Path) -> None:
    """Write it beside the network; its classes and scale stand in config.json."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    save_file(state, Path(directory) / FILE)


def load_classifier(directory: str | Path) -> ClassWeights | None:
    """The classifier of a trained model, None if it was trained without one.

    Raises:
        UnreadableFile: no trained model, or its classifier is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    notes, path = read_notes(directory), Path(directory) / FILE
    if not path.exists():
        return None
    try:
        values = load_file(path)
        options = notes["classifier"]
        return ClassWeights(
            values["weight"], values["bias"], tuple(notes["classes"]), options["normalized"], options["scale"]
        )
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UnreadableFile(f"{path}: not a readable classifier ({error}); train or copy it again") from None


def class_means(embeddings: FloatMatrix, codes: NDArray[np.int64], classes: int) -> FloatMatrix:
    """Mean embedding of each class, (classes, d); computed in float64.

    Raises:
        DataError: a class without items.
    """
    counts = np.bincount(codes, minlength=classes)
    if len(counts) > classes or (counts == 0).any():
        raise DataError(
            f"class means need items of each of {classes} classes with codes 0 to {classes - 1}; "
            f"{int((counts == 0).sum())} have none, the largest code is {int(codes.max(initial=-1))}"
        )
    sums = np.zeros((classes, embeddings.shape[1]))
    np.add.at(sums, codes, embeddings)
    means: FloatMatrix = (sums / counts[:, None]).astype(np.float32)
    return means


def synthesize(
    old: ClassWeights | None, embeddings: FloatMatrix, codes: NDArray[np.int64], names: Sequence[ClassName]
) -> ClassWeights:
    """The old model's classifier on all classes of the new data (Shen et al., CVPR 2020, section 3.3).

    Classes that the old classifier knows keep its weights. The others get the mean old embedding of
    their items, scaled to the mean length of the known weights, and the mean bias; the paper leaves
    this scale open. Without an old classifier all are means, compared by direction.

    Args:
        old: the old classifier, None if it is missing.
        embeddings: (n, d) old embeddings of the new data.
        codes: (n,) their classes, indices into `names`.
    """
    means = class_means(embeddings, codes, len(names))
    directions = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    if old is None:
        return ClassWeights(directions, np.zeros(len(names), np.float32), tuple(names), normalized=True)
    weight = directions * np.linalg.norm(old.weight, axis=1).mean()
    bias = np.full(len(names), old.bias.mean(), dtype=np.float32)
    positions = old.positions(names)
    known = positions >= 0
    weight[known], bias[known] = old.weight[positions[known]], old.bias[positions[known]]
    return ClassWeights(weight.astype(np.float32), bias, tuple(names), old.normalized, old.scale)
