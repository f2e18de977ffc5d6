"""What is trained, on what, and how: everything that decides the result, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossfade.encoders.architecture import Architecture
from crossfade.errors import UsageError
from crossfade.spaces import Metric
from crossfade.training.reading import build, convert, difference, override, read_yaml

Method = Literal["classification", "metric-learning", "bct", "simclr"]


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """Which items are trained on.

    Attributes:
        classes: ``all``, ``first half``, ``first N``, ``last N``, or names separated by commas.
        fraction: share of each class.
        corrupt: unreadable images: ``refuse`` or ``skip``.
        small_classes: classes with a single image, where pairs are needed: ``refuse`` or ``skip``.
        image_column, label_column, id_column: columns of a Parquet file or saved dataset.
    """

    classes: str = "all"
    fraction: float = 1.0
    corrupt: Literal["refuse", "skip"] = "refuse"
    small_classes: Literal["refuse", "skip"] = "refuse"
    image_column: str = "image"
    label_column: str = "label"
    id_column: str = "id"


@dataclass(frozen=True, slots=True)
class OptimizerRecipe:
    """The optimizer.

    Attributes:
        decay_all: whether weight decay also acts on biases and normalization, not on matrices and kernels
            alone.
        gradient_clip: largest norm of the gradient; None for no limit.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-5
    decay_all: bool = False
    betas: tuple[float, ...] = (0.9, 0.999)
    gradient_clip: float | None = None


@dataclass(frozen=True, slots=True)
class ScheduleRecipe:
    """Length and learning rate: linear warm-up, then a cosine to zero.

    Attributes:
        max_steps: stop after this many steps, whatever is left (for a dry run).
        checkpoint_steps: steps between checkpoints; None is once per epoch.
    """

    epochs: int = 100
    warm_up_epochs: float = 5.0
    max_steps: int | None = None
    checkpoint_steps: int | None = None


@dataclass(frozen=True, slots=True)
class AugmentationRecipe:
    """Random views of a picture.

    Attributes:
        crop: ``resized`` (a random part, scaled to the input size), ``padded`` (a shifted window of the
            input size, zeros outside) or ``center`` (what is seen when the picture is embedded).
        scale, ratio: area share and aspect ratio of a resized crop.
        padding: largest shift of a padded crop, in pixels.
        flip, jitter, grayscale, blur: probabilities.
        brightness, contrast, saturation, hue: strengths of the jitter.
    """

    crop: Literal["resized", "padded", "center"] = "resized"
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (0.75, 4 / 3)
    padding: int = 4
    flip: float = 0.5
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True, slots=True)
class ClassificationObjective:
    """Softmax cross-entropy.

    Attributes:
        bias: whether the classifier has one.
        normalized: compare directions: unit embeddings, unit class weights, logits times `scale`.
    """

    label_smoothing: float = 0.0
    bias: bool = True
    normalized: bool = False
    scale: float = 30.0


@dataclass(frozen=True, slots=True)
class BctObjective:
    """Backward-compatible training (Shen et al., CVPR 2020): classification plus the influence loss.

    Attributes:
        influence: ``known``: on classes that the old classifier knows; ``synthesized``: on all classes,
            unknown ones by the mean old embedding of each (section 3.3 of the paper).
        influence_weight: λ of equation 4.
    """

    label_smoothing: float = 0.0
    bias: bool = True
    normalized: bool = False
    scale: float = 30.0
    influence: Literal["known", "synthesized"] = "known"
    influence_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class MetricLearningObjective:
    """A loss of pytorch-metric-learning.

    Attributes:
        loss: its class, e.g. ``ProxyAnchorLoss``, ``SupConLoss``, ``TripletMarginLoss``.
        options: its arguments.
        miner: class of a miner; empty for none.
        miner_options: its arguments.
        images_per_class: images of each class in a batch; None shuffles (for losses with proxies).
        proxy_learning_rate: how much faster the loss's own parameters learn.
    """

    loss: str = "ProxyAnchorLoss"
    options: Mapping[str, Any] = field(default_factory=dict)
    miner: str = ""
    miner_options: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: int | None = None
    proxy_learning_rate: float = 1.0


@dataclass(frozen=True, slots=True)
class SimclrObjective:
    """SimCLR (Chen et al., ICML 2020): two views, projection head, NT-Xent.

    Attributes:
        temperature: of the loss.
        projection: widths of the projection head after the embedding, which is dropped after training.
    """

    temperature: float = 0.1
    projection: tuple[int, ...] = (512, 128)


Objective = ClassificationObjective | BctObjective | MetricLearningObjective | SimclrObjective
OBJECTIVES: Mapping[str, type[Any]] = {
    "classification": ClassificationObjective,
    "bct": BctObjective,
    "metric-learning": MetricLearningObjective,
    "simclr": SimclrObjective,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training run.

    Attributes:
        name: name of the model, for its space.
        method: what is optimized; `objective` holds its options.
        metric: how the embeddings are compared later.
        weights: folder of local backbone weights to start from; empty for random numbers.
        batch: images per optimizer step, over all processes.
        accumulate: parts in which a batch is computed one after the other, to save memory.
        precision: ``bf16`` runs the backbone in bfloat16 where it pays.
    """

    name: str
    method: Method
    objective: Objective
    architecture: Architecture = field(default_factory=Architecture)
    weights: str = ""
    metric: Metric = "l2"
    data: DataRecipe = field(default_factory=DataRecipe)
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    batch: int = 256
    accumulate: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UsageError(
                f"recipe.batch ({self.batch}) must be a multiple of recipe.accumulate ({self.accumulate}), "
                "both at least 1"
            )
        if self.schedule.epochs < 1 or not 0 <= self.schedule.warm_up_epochs <= self.schedule.epochs:
            raise UsageError(
                f"recipe.schedule: {self.schedule.warm_up_epochs} warm-up epochs of {self.schedule.epochs} "
                "epochs; train for at least one epoch and warm up within them"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from JSON-ready values; `asdict` gives them back.

        Raises:
            UsageError: an unknown key, a missing one, or a value of another type.
        """
        method = convert(Method, values.get("method"), "recipe.method")
        objective = build(OBJECTIVES[method], values.get("objective", {}), "recipe.objective")
        return build(cls, values, "recipe", {"method": method, "objective": objective})

    @classmethod
    def read(cls, path: str | Path, settings: Sequence[str] = ()) -> Recipe:
        """A recipe from a YAML file, with ``section.key=value`` settings on top.

        Raises:
            UnreadableFile: no YAML file.
            UsageError: see `from_dict`.
        """
        return cls.from_dict(override(read_yaml(path), settings))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; `from_dict` reads them back."""
        return asdict(self)

    def difference(self, other: Recipe) -> list[str]:
        """Lines ``section.key: mine → other's``, empty if the recipes are the same."""
        return difference(self.to_dict(), other.to_dict())
