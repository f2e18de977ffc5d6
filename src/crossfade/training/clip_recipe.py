"""What decides a dual encoder that is trained from scratch, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossfade.encoders.picture_settings import CLIP_MEAN, CLIP_STD
from crossfade.errors import DataError, UsageError
from crossfade.training.reading import build, override, read_yaml
from crossfade.training.recipe import AugmentationRecipe, OptimizerRecipe, ScheduleRecipe


@dataclass(frozen=True, slots=True)
class TowerRecipe:
    """A transformer.

    Attributes:
        hidden: width of the layers between attention; None is four times `width`.
        attention_dropout: share of the attention weights that are dropped in training.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int | None = None
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise UsageError(
                f"a tower of width {self.width} with {self.layers} layers and {self.heads} heads; all are at "
                "least 1, and the heads divide the width"
            )


@dataclass(frozen=True, slots=True)
class ClipArchitecture:
    """A CLIP model (Radford et al., ICML 2021) of any size.

    Attributes:
        vision, text: the two towers.
        dimension: of the common space.
        image_size: pixels on a side of what the model sees.
        patch_size: pixels on a side of a patch.
        picture_size: pixels on a side at which pictures are decoded and cached for training, from which
            `augmentation` cuts; None is `image_size`.
        context_length: most tokens of a text, the two special ones included. A batch is padded to its longest
            text, so that a long context costs nothing where texts are short; but positions that no text
            of the training reaches are never learned.
        mean, std: per channel, of pixels in [0, 1].

    Raises:
        UsageError: patches that do not fill the picture.
    """

    vision: TowerRecipe = field(default_factory=TowerRecipe)
    text: TowerRecipe = field(default_factory=TowerRecipe)
    dimension: int = 128
    image_size: int = 64
    patch_size: int = 8
    picture_size: int | None = None
    context_length: int = 77
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.patch_size < 1 or self.image_size % self.patch_size:
            raise UsageError(
                f"architecture: patches of {self.patch_size} pixels do not fill pictures of "
                f"{self.image_size}, or the dimension ({self.dimension}) is below 1"
            )


@dataclass(frozen=True, slots=True)
class TokenizerRecipe:
    """The tokenizer that is trained on the captions.

    Attributes:
        vocabulary: most tokens; a small corpus yields fewer.
    """

    vocabulary: int = 8192
    lowercase: bool = True


@dataclass(frozen=True, slots=True)
class ClipDataRecipe:
    """Which pairs are trained on.

    Attributes:
        share: share of the images, drawn by `seed`; a smaller share is a part of a larger one.
        images: how many images, in place of a share.
        seed: of the draw; not the training's, so that two models can learn from nested parts.
        corrupt: unreadable images: ``refuse`` or ``skip``.
        image_column, caption_column, id_column: columns, where the data has such.

    Raises:
        UsageError: a share outside (0, 1], or fewer than one image.
    """

    share: float = 1.0
    images: int | None = None
    seed: int = 0
    corrupt: Literal["refuse", "skip"] = "refuse"
    image_column: str = "image"
    caption_column: str = "caption"
    id_column: str = "id"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or (self.images is not None and self.images < 1):
            raise UsageError(
                f"data.share ({self.share}) is above 0 and at most 1, data.images ({self.images}) at least 1"
            )

    def rows(self, count: int) -> NDArray[np.int64]:
        """The chosen ones of `count` images, ascending.

        Raises:
            DataError: more are asked for than there are.
        """
        wanted = round(self.share * count) if self.images is None else self.images
        if not 1 <= wanted <= count:
            raise DataError(f"{wanted} of {count} images are asked for; change data.share or data.images")
        return np.sort(np.random.default_rng(self.seed).permutation(count)[:wanted])


def _adamw() -> OptimizerRecipe:
    return OptimizerRecipe(
        name="adamw", learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.98), gradient_clip=1.0
    )


@dataclass(frozen=True, slots=True)
class ClipRecipe:
    """A training of a dual encoder.

    Attributes:
        name: name of the model, for its space.
        temperature: of the contrastive loss at the beginning; it is learned, and never below 0.01.
        batch: pairs per optimizer step, over all processes.
        accumulate: parts in which a batch is computed; each contrasts its own pairs only.
        precision: ``bf16`` runs both towers in bfloat16 where it pays.
        attention: implementation of transformers; ``auto`` is the faster one: ``sdpa`` on a GPU, ``eager``
            on a CPU.
    """

    name: str
    method: Literal["clip"] = "clip"
    architecture: ClipArchitecture = field(default_factory=ClipArchitecture)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    data: ClipDataRecipe = field(default_factory=ClipDataRecipe)
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    optimizer: OptimizerRecipe = field(default_factory=_adamw)
    schedule: ScheduleRecipe = field(default_factory=lambda: ScheduleRecipe(epochs=30, warm_up_epochs=2.0))
    temperature: float = 0.07
    batch: int = 256
    accumulate: int = 1
    precision: Literal["float32", "bf16"] = "bf16"
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 2 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UsageError(
                f"recipe.batch ({self.batch}) must be a multiple of recipe.accumulate ({self.accumulate}), "
                "and at least 2"
            )
        if self.schedule.epochs < 1 or not 0 <= self.schedule.warm_up_epochs <= self.schedule.epochs:
            raise UsageError(
                f"recipe.schedule: {self.schedule.warm_up_epochs} warm-up epochs of {self.schedule.epochs} "
                "epochs; train for at least one epoch and warm up within them"
            )
        if not 0.01 <= self.temperature <= 1:
            raise UsageError(f"recipe.temperature is between 0.01 and 1, got {self.temperature}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClipRecipe:
        """A recipe from JSON-ready values; `to_dict` gives them back.

        What the optimizer leaves out is AdamW's here.

        Raises:
            UsageError: an unknown key, a missing one, or a value of another type.
        """
        optimizer = values.get("optimizer", {})
        if isinstance(optimizer, Mapping):
            values = {**values, "optimizer": {**asdict(_adamw()), **optimizer}}
        return build(cls, values, "recipe")

    @classmethod
    def read(cls, path: str | Path, settings: Sequence[str] = ()) -> ClipRecipe:
        """A recipe from a YAML file, with ``section.key=value`` settings on top.

        Raises:
            UnreadableFile: no YAML file.
            UsageError: see `from_dict`.
        """
        return cls.from_dict(override(read_yaml(path), settings))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; `from_dict` reads them back."""
        return asdict(self)
