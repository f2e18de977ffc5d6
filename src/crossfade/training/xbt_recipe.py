"""What decides the result of XBT's second stage, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossfade.encoders.tuning import LowRank, Prompts, Tuning
from crossfade.errors import UsageError
from crossfade.training.reading import build, override, read_yaml
from crossfade.training.recipe import AugmentationRecipe, OptimizerRecipe, ScheduleRecipe


@dataclass(frozen=True, slots=True)
class XbtDataRecipe:
    """Which pairs are trained on.

    Attributes:
        images: how many images, drawn by the recipe's seed, each with all its captions; None for all. A
            smaller number draws a part of a larger one's.
        corrupt: unreadable images: ``refuse`` or ``skip``.
    """

    images: int | None = None
    corrupt: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise UsageError(f"data.images must be at least 1, got {self.images}; leave it out for all")


@dataclass(frozen=True, slots=True)
class XbtObjective:
    """Weights of the terms; the paper leaves them open, these are ours.

    Attributes:
        align: of InfoNCE between φ(image) and φ(text).
        temperature: of that InfoNCE.
        anchor: of 1 - cos between φ(text) and φ(off-the-shelf text).
        preserve: of keeping the new model's own vectors, mean over images and texts.
        preserve_by: ``cosine``: 1 - cos to the off-the-shelf vector; ``contrastive``: InfoNCE with it.
    """

    align: float = 1.0
    temperature: float = 0.05
    anchor: float = 1.0
    preserve: float = 0.5
    preserve_by: Literal["cosine", "contrastive"] = "cosine"

    def __post_init__(self) -> None:
        if min(self.align, self.anchor, self.preserve) < 0 or not self.align:
            raise UsageError(
                "objective.align must be above 0, .anchor and .preserve at least 0, "
                f"got {self.align}, {self.anchor} and {self.preserve}"
            )
        if not self.temperature > 0:
            raise UsageError(f"objective.temperature must be above 0, got {self.temperature}")


def _as_embedded() -> AugmentationRecipe:
    return AugmentationRecipe(crop="center", flip=0.0)


@dataclass(frozen=True, slots=True)
class XbtRecipe:
    """A second stage.

    Attributes:
        low_rank, prompts: what is tuned, per tower.
        objective: weights of the terms.
        augmentation: random views of the pictures; by default none, since what a view is to stay close to is
            the vector of the whole picture.
        prompt_learning_rate: how much faster the prompts learn than LoRA.
        batch: images per step, over all processes; each with one of its captions, drawn anew.
        accumulate: parts in which a batch is computed one after the other; each is contrasted within itself.
        precision: ``bf16`` runs the model in bfloat16 (autocast); φ and the losses stay in float32.
    """

    low_rank: LowRank = field(default_factory=LowRank)
    prompts: Prompts = field(default_factory=Prompts)
    objective: XbtObjective = field(default_factory=XbtObjective)
    data: XbtDataRecipe = field(default_factory=XbtDataRecipe)
    augmentation: AugmentationRecipe = field(default_factory=_as_embedded)
    optimizer: OptimizerRecipe = field(
        default_factory=lambda: OptimizerRecipe(
            name="adamw", learning_rate=1e-3, weight_decay=0.0, gradient_clip=1.0
        )
    )
    schedule: ScheduleRecipe = field(default_factory=lambda: ScheduleRecipe(epochs=10, warm_up_epochs=1.0))
    prompt_learning_rate: float = 1.0
    batch: int = 128
    accumulate: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 2 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UsageError(
                f"recipe.batch ({self.batch}) must be at least 2 and a multiple of recipe.accumulate "
                f"({self.accumulate})"
            )
        if self.schedule.epochs < 1 or not 0 <= self.schedule.warm_up_epochs <= self.schedule.epochs:
            raise UsageError(
                f"recipe.schedule: {self.schedule.warm_up_epochs} warm-up epochs of {self.schedule.epochs} "
                "epochs; train for at least one epoch and warm up within them"
            )
        if not self.prompt_learning_rate > 0:
            raise UsageError(f"recipe.prompt_learning_rate must be above 0, got {self.prompt_learning_rate}")
        if self.tuning.nothing:
            raise UsageError(
                "low_rank and prompts are both switched off for both towers, so there is nothing to tune; "
                "without tuning, φ works on the new model as it is: mapped:PROJECTION+hf:MODEL#image"
            )

    @property
    def tuning(self) -> Tuning:
        """What is added to the model."""
        return Tuning(self.low_rank, self.prompts)

    @property
    def augments(self) -> bool:
        """Whether anything about the pictures is random."""
        return self.augmentation != _as_embedded()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> XbtRecipe:
        """A recipe from JSON-ready values; `to_dict` gives them back.

        Raises:
            UsageError: an unknown key, or a value of another type.
        """
        return build(cls, _with_defaults(values), "recipe")

    @classmethod
    def read(cls, path: str | Path | None, settings: Sequence[str] = ()) -> XbtRecipe:
        """A recipe from a YAML file (the defaults without one), ``section.key=value`` settings on top.

        Raises:
            UnreadableFile: no YAML file.
            UsageError: see `from_dict`.
        """
        return cls.from_dict(override({} if path is None else read_yaml(path), settings))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; `from_dict` reads them back."""
        return asdict(self)


def _with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """A section that names some keys keeps the recipe's own defaults for the others, not the section's."""
    merged, own = dict(values), XbtRecipe().to_dict()
    for name in ("augmentation", "optimizer", "schedule"):
        if isinstance(values.get(name), Mapping):
            merged[name] = own[name] | dict(values[name])
    return merged
