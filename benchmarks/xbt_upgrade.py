"""What benchmarks/xbt.py carries out: an upgrade as recipes/xbt states it, and its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfade.datasets.image_texts import ImageTexts, open_image_texts
from crossfade.training.reading import build, override, read_yaml


@dataclass(frozen=True)
class Captioned:
    """Where captioned images are.

    Attributes:
        location: a path below the data folder.
        split: of a set that has several; joined by ``+``.
        images: root of the pictures, below the data folder, for JSON files.
        caption_column: of a Parquet file.
    """

    location: str
    split: str | None = None
    images: str | None = None
    caption_column: str = "caption"

    def open(self, data: Path) -> ImageTexts:
        """The images and captions."""
        return open_image_texts(
            data / self.location,
            split=self.split,
            images=None if self.images is None else data / self.images,
            caption_column=self.caption_column,
        )


@dataclass(frozen=True)
class Upgrade:
    """An upgrade from one dual encoder to another, and how it is judged.

    Attributes:
        name: of the result.
        old, new: a model of the Hub (NAME, hf:NAME@REVISION), a folder, or a recipe of `crossfade train clip`
            beside this file.
        pairs: captioned images that stage 2 (and a model that is trained here) sees.
        tests: by name, captioned images that are searched.
        texts: further plain text for stage 1, files below the data folder; the captions of `pairs` always.
        foreign: plain text of another domain, which an ablation adds to that.
        generate: scenes that are generated into the data folder first, by split.
        counts: numbers of pairs beside none and all.
        steps: of stage 2, whatever the number of pairs.
        projection: options of φ.
        tuning: recipe of stage 2.
        studies: whether the curve over pairs and the ablations are made.
        queries: at most so many of each direction are asked, drawn at random; None for all.
        samples: of the bootstrap.
    """

    name: str
    old: str
    new: str
    pairs: Captioned
    tests: Mapping[str, Mapping[str, Any]]
    texts: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    generate: Mapping[str, int] = field(default_factory=dict)
    counts: tuple[int, ...] = (250, 1000, 4000)
    steps: int = 150
    projection: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    studies: bool = True
    queries: int | None = None
    samples: int = 1000

    @classmethod
    def read(cls, path: Path, settings: Sequence[str] = ()) -> Upgrade:
        """An upgrade from a YAML file, ``key=value`` settings on top."""
        return build(cls, override(read_yaml(path), settings), path.name)

    def test(self, name: str, data: Path) -> ImageTexts:
        """The captioned images of one test."""
        return build(Captioned, self.tests[name], f"tests.{name}").open(data)


@dataclass(frozen=True)
class Phi:
    """A first stage.

    Attributes:
        options: changes to the recipe's projection.
        images: whether unpaired images of the new model are shown to it.
        foreign: whether texts of another domain are added.
        pairs: fitted on the vectors of so many pairs under both models instead of on texts; -1 for all.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    images: bool = False
    foreign: bool = False
    pairs: int | None = None


@dataclass(frozen=True)
class Variant:
    """A model in the old space.

    Attributes:
        key: names its files.
        title: in tables.
        phi: which first stage.
        pairs: images of the second stage; 0 leaves it out, None takes all.
        tuning: changes to the recipe of the second stage.
    """

    key: str
    title: str
    phi: str = "text"
    pairs: int | None = None
    tuning: tuple[str, ...] = ()


NO_LORA = ("low_rank.image=false", "low_rank.text=false")
NO_PROMPTS = ("prompts.image=0", "prompts.text=0")
PHIS = {
    "text": Phi(),
    "no-noise": Phi({"sigma": 0.0}),
    "no-contrastive": Phi({"contrastive_weight": 0.0}),
    "foreign": Phi(foreign=True),
    "gap": Phi({"shifted": 0.5}, images=True),
    "auto": Phi({"sigma": "auto"}, images=True),
}
XBT, STAGE_1, DIRECT, BRIEF = "xbt", "xbt-0", "direct", "brief"
TWO_EPOCHS = ("schedule.epochs=2", "schedule.warm_up_epochs=0.2")
MAIN = (
    Variant(XBT, "XBT"),
    Variant(STAGE_1, "XBT, stage 1 alone", pairs=0),
    Variant(DIRECT, "direct training on the pairs, no stage 1", DIRECT),
    Variant("direct-phi", "φ fitted on the pairs' vectors of both models", DIRECT, 0),
)
ABLATIONS = (
    Variant("no-noise", "without noise", "no-noise"),
    Variant("no-contrastive", "without the contrastive term in stage 1", "no-contrastive"),
    Variant("foreign", "with texts of another domain in stage 1", "foreign"),
    Variant(BRIEF, "2,000 pairs, two epochs", pairs=2000, tuning=TWO_EPOCHS),
    Variant("no-lora", "without LoRA", tuning=NO_LORA),
    Variant("no-prompts", "without prompts", tuning=NO_PROMPTS),
    Variant("no-noise-0", "stage 1 alone, without noise", "no-noise", 0),
    Variant("no-contrastive-0", "stage 1 alone, without the contrastive term", "no-contrastive", 0),
    Variant("foreign-0", "stage 1 alone, with texts of another domain", "foreign", 0),
    Variant("gap", "with the modality gap of unpaired images", "gap"),
    Variant("gap-0", "stage 1 alone, with the modality gap of unpaired images", "gap", 0),
    Variant("auto", "σ chosen on unpaired images", "auto"),
    Variant("auto-0", "stage 1 alone, σ chosen on unpaired images", "auto", 0),
)


def curve(counts: Sequence[int]) -> list[tuple[Variant, Variant]]:
    """For every number of pairs, with stage 1 and without."""
    return [
        (
            Variant(f"xbt-{count}", f"XBT, {count:,} pairs", "text", count),
            Variant(f"direct-{count}", f"direct, {count:,} pairs", f"direct-{count}", count),
        )
        for count in counts
    ]


def variants(upgrade: Upgrade) -> list[Variant]:
    """Everything that is made, the main rows first."""
    if not upgrade.studies:
        return list(MAIN)
    return [*MAIN, *(one for both in curve(upgrade.counts) for one in both), *ablations(upgrade)]


def ablations(upgrade: Upgrade) -> list[Variant]:
    """Those for which there is data."""
    most = max(upgrade.counts, default=0)
    there = [one for one in ABLATIONS if (one.pairs or 0) <= most]
    return [one for one in there if upgrade.foreign or not PHIS[one.phi].foreign]


def phi_of(name: str) -> Phi:
    """The first stage of this name."""
    kind, _, count = name.partition("-")
    return Phi(pairs=int(count or -1)) if kind == DIRECT else PHIS[name]
