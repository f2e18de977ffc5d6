"""Generated scenes: small pictures of two or three things, with captions that say where they are.

A scene has a layout (a row, a column, one thing on another, ...) and things of a size, a color and
a shape, which together are its *key*. What the key leaves open (exact places, turns, shades, the
background, noise) differs from picture to picture and is in no caption.

Every key belongs to exactly one split, by a hash. Scenes of two splits therefore never share a
key, whatever the seeds and counts they were generated with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from random import Random
from typing import Literal, get_args

import pyarrow as pa

from crossfade.datasets.drawing import IMAGE_SIDE, draw, encode_png
from crossfade.errors import UsageError
from crossfade.vectors.base import BATCH_ROWS

Split = Literal["train", "validation", "pairs", "gallery"]

SIZES = ("small", "large")
COLORS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white", "black")
SHAPES = ("circle", "ring", "square", "diamond", "triangle", "cross", "star", "moon")

SYNONYMS = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big"),
    "purple": ("purple", "violet"),
    "teal": ("teal", "turquoise"),
    "circle": ("circle", "disc"),
    "cross": ("cross", "plus"),
    "moon": ("moon", "crescent"),
}
"""Words that mean the same; what is absent here has one word only."""

LAYOUTS = {
    "row": (
        "{0} left of {1}",
        "{0} to the left of {1}",
        "{1} right of {0}",
        "{1} to the right of {0}",
        "{1} with {0} on its left",
        "{0} with {1} on its right",
    ),
    "column": (
        "{0} above {1}",
        "{0} over {1}",
        "{1} below {0}",
        "{1} under {0}",
        "{1} with {0} above it",
        "{0} with {1} below it",
    ),
    "on": (
        "{0} on {1}",
        "{0} inside {1}",
        "{0} in front of {1}",
        "{1} behind {0}",
        "{1} with {0} in the middle",
    ),
    "row of three": (
        "{0}, {1} and {2} from left to right",
        "{2}, {1} and {0} from right to left",
        "{1} between {0} on the left and {2} on the right",
        "{0} left of {1} and {2} right of it",
        "a row of {0}, {1} and {2}",
    ),
    "column of three": (
        "{0}, {1} and {2} from top to bottom",
        "{2}, {1} and {0} from bottom to top",
        "{1} between {0} at the top and {2} at the bottom",
        "{0} above {1} and {2} below it",
        "a stack of {0}, {1} and {2}",
    ),
    "roof": (
        "{2} above {0} and {1}",
        "{0} left of {1}, both under {2}",
        "{1} right of {0}, both below {2}",
        "{0} and {1} with {2} above them",
    ),
    "floor": (
        "{2} below {0} and {1}",
        "{0} left of {1}, both above {2}",
        "{1} right of {0}, both over {2}",
        "{0} and {1} with {2} below them",
    ),
}
"""Layouts and the templates of their captions: {0}, {1}, {2} are the things in the layout's order."""

OPENINGS = ("", "", "", "a picture of ", "a scene with ", "there is ")

_SIXTEENTHS: dict[Split, range] = {
    "train": range(10),
    "validation": range(10, 12),
    "pairs": range(12, 14),
    "gallery": range(14, 16),
}
_VARIANT = 0.7  # share of scenes made from an earlier one by one edit: neighbours that are easily confused
_UNSIZED = 0.2  # how often a caption leaves a thing's size out


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a scene, e.g. a small red circle."""

    size: str
    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a picture shows, what is said of it, and the seed of what is left open.

    Attributes:
        id: unique among the scenes of one split and seed.
        layout: one of `LAYOUTS`.
        things: two or three, in the layout's order.
        captions: paraphrases, each from another template.
        seed: draws the places, shades, background and noise of the picture.
    """

    id: str
    layout: str
    things: tuple[Thing, ...]
    captions: tuple[str, ...]
    seed: int

    @cached_property
    def key(self) -> str:
        """The meaning: equal keys are the same scene in other pictures and words."""
        return scene_key(self.layout, self.things)


def scene_key(layout: str, things: Sequence[Thing]) -> str:
    """The key of a layout of things, e.g. ``row: small red circle, large blue square``."""
    return f"{layout}: {', '.join(map(str, things))}"


def split_of(key: str) -> Split:
    """The one split that scenes of this key belong to."""
    sixteenth = blake2b(key.encode(), digest_size=1).digest()[0] % 16
    return next(split for split, share in _SIXTEENTHS.items() if sixteenth in share)


def generate(split: Split, count: int, *, seed: int = 0, captions: int = 2) -> list[Scene]:
    """The first `count` scenes of a split; no two have the same key.

    A longer list starts with the shorter one. Scenes of different splits never share a key.

    Args:
        split: ``train``, ``validation``, ``pairs`` or ``gallery``.
        count: how many scenes.
        seed: another seed gives other scenes of the same split.
        captions: how many captions each scene gets, 1 to 4.

    Raises:
        UsageError: an unknown split, a negative count, or a number of captions that is not 1 to 4.
    """
    _check(split, count, captions)
    random = Random(f"{split} {seed}")
    scenes: list[Scene] = []
    seen: set[str] = set()
    while len(scenes) < count:
        layout, things = _imagine(random, scenes)
        key = scene_key(layout, things)
        if key in seen or split_of(key) != split:
            continue
        seen.add(key)
        said = _describe(random, layout, things, captions)
        scenes.append(
            Scene(f"{split}-{seed}-{len(scenes):05d}", layout, things, said, random.getrandbits(32))
        )
    return scenes


def scenes_table(scenes: Sequence[Scene], side: int = IMAGE_SIDE) -> pa.Table:
    """Scenes as a table: `id`, `image` (PNG bytes), `captions` (list of strings) and `key`."""
    images: list[bytes] = []
    for start in range(0, len(scenes), BATCH_ROWS):
        images += map(encode_png, draw(scenes[start : start + BATCH_ROWS], side))
    return pa.table(
        {
            "id": pa.array([scene.id for scene in scenes], pa.string()),
            "image": pa.array(images, pa.binary()),
            "captions": pa.array([scene.captions for scene in scenes], pa.list_(pa.string())),
            "key": pa.array([scene.key for scene in scenes], pa.string()),
        }
    )


def _check(split: str, count: int, captions: int) -> None:
    if split not in get_args(Split):
        raise UsageError(f"split {split!r} is not one of {', '.join(get_args(Split))}")
    if count < 0:
        raise UsageError(f"the number of scenes must not be negative, got {count}")
    if not 1 <= captions <= 4:
        raise UsageError(f"a scene can have 1 to 4 captions, got {captions}")


def _imagine(random: Random, earlier: Sequence[Scene]) -> tuple[str, tuple[Thing, ...]]:
    if earlier and random.random() < _VARIANT:
        return _edit(random, random.choice(earlier))
    layout = random.choice(tuple(LAYOUTS))
    if layout == "on":
        return layout, (_thing(random, "small"), _thing(random, "large"))
    count = 2 if layout in ("row", "column") else 3
    things = [_thing(random) for _ in range(count)]
    while len(set(things)) < count:
        things = [_thing(random) for _ in range(count)]
    return layout, tuple(things)


def _thing(random: Random, size: str | None = None) -> Thing:
    return Thing(size or random.choice(SIZES), random.choice(COLORS), random.choice(SHAPES))


def _edit(random: Random, scene: Scene) -> tuple[str, tuple[Thing, ...]]:
    """Another scene that differs in one respect: a thing, a color, a shape, or the order."""
    things = list(scene.things)
    place = random.randrange(len(things))
    old = things[place]
    edit = random.choice(("color", "shape", "order"))
    if edit == "color":
        things[place] = Thing(old.size, random.choice(COLORS), old.shape)
    elif edit == "shape":
        things[place] = Thing(old.size, old.color, random.choice(SHAPES))
    elif scene.layout == "on":
        inner, outer = things
        things = [Thing("small", outer.color, outer.shape), Thing("large", inner.color, inner.shape)]
    else:
        random.shuffle(things)
    twins = len(set(things)) < len(things)  # two equal things: no caption could tell them apart
    return scene.layout, scene.things if twins else tuple(things)


def _describe(random: Random, layout: str, things: Sequence[Thing], captions: int) -> tuple[str, ...]:
    templates = random.sample(LAYOUTS[layout], captions)
    return tuple(
        random.choice(OPENINGS) + template.format(*(_name(random, thing) for thing in things))
        for template in templates
    )


def _name(random: Random, thing: Thing) -> str:
    words = [] if random.random() < _UNSIZED else [thing.size]
    words += [thing.color, thing.shape]
    spoken = [random.choice(SYNONYMS.get(word, (word,))) for word in words]
    article = "an" if spoken[0][0] in "aeiou" else "a"
    return " ".join([article, *spoken])
