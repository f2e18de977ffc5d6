from __future__ import annotations

import io
import re
from itertools import combinations, pairwise
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from crossfade.datasets.drawing import RGB, draw, encode_png
from crossfade.datasets.scenes import (
    COLORS,
    LAYOUTS,
    SHAPES,
    SIZES,
    SYNONYMS,
    Scene,
    Split,
    Thing,
    generate,
    scene_key,
    scenes_table,
    split_of,
)
from crossfade.errors import UsageError

SPLITS = get_args(Split)


def scene(layout: str, *things: Thing, seed: int = 0) -> Scene:
    return Scene("x", layout, things, (), seed)


def test_splits_share_no_key_whatever_the_seed() -> None:
    keys = {split: {s.key for seed in (0, 1) for s in generate(split, 600, seed=seed)} for split in SPLITS}
    for first, second in combinations(SPLITS, 2):
        assert not keys[first] & keys[second]
    assert all(split_of(key) == split for split in SPLITS for key in keys[split])


def test_keys_and_ids_are_unique_within_a_split() -> None:
    scenes = generate("gallery", 2000)
    assert len({s.key for s in scenes}) == len({s.id for s in scenes}) == 2000


def test_generation_is_deterministic_and_a_longer_list_starts_with_the_shorter() -> None:
    assert generate("pairs", 50, seed=3) == generate("pairs", 80, seed=3)[:50]
    assert generate("pairs", 50, seed=3) != generate("pairs", 50, seed=4)


def test_captions_name_color_and_shape_of_every_thing() -> None:
    same_word = {synonym: word for word, synonyms in SYNONYMS.items() for synonym in synonyms}
    for s in generate("train", 300, captions=4):
        for caption in s.captions:
            words = [same_word.get(word, word) for word in re.findall(r"\w+", caption)]
            named = {(a, b) for a, b in pairwise(words) if a in COLORS and b in SHAPES}
            assert named == {(thing.color, thing.shape) for thing in s.things}


def test_captions_of_a_scene_are_paraphrases_and_of_scenes_mostly_distinct() -> None:
    scenes = generate("gallery", 2000)
    assert all(len(set(s.captions)) == 2 for s in scenes)
    captions = [caption for s in scenes for caption in s.captions]
    assert len(set(captions)) > 0.97 * len(captions)


def test_every_layout_color_and_shape_occurs() -> None:
    scenes = generate("pairs", 500)
    assert {s.layout for s in scenes} == set(LAYOUTS)
    assert {thing.color for s in scenes for thing in s.things} == set(COLORS)
    assert {thing.shape for s in scenes for thing in s.things} == set(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_things_are_where_the_caption_says(shape: str) -> None:
    left, right = Thing("large", "red", shape), Thing("large", "blue", shape)
    picture = draw([scene("row", left, right, seed=seed) for seed in range(8)]).astype(float)
    for color, center in (("red", 0.27), ("blue", 0.73)):
        close = np.linalg.norm(picture - RGB[color], axis=-1) < 75
        columns = np.nonzero(close)[2] / picture.shape[2]
        assert close.sum() > 8 * 20
        assert abs(np.median(columns) - center) < 0.1


def test_two_things_of_another_shape_or_size_look_different() -> None:
    other = Thing("small", "black", "ring")
    things = [Thing(size, "white", shape) for shape in SHAPES for size in SIZES]
    pictures = draw([scene("row", thing, other, seed=5) for thing in things]).astype(float)
    for first, second in combinations(pictures, 2):
        assert np.abs(first - second).max() > 60


def test_a_picture_depends_on_its_scene_alone() -> None:
    scenes = generate("gallery", 300)
    assert np.array_equal(draw(scenes)[200:203], draw(scenes[200:203]))


def test_equal_keys_with_other_seeds_give_other_pictures() -> None:
    thing, other = Thing("small", "red", "star"), Thing("large", "teal", "moon")
    first, second = draw([scene("on", thing, other, seed=1), scene("on", thing, other, seed=2)]).astype(float)
    assert np.abs(first - second).mean() > 5


def test_table_holds_png_that_decodes_to_the_drawing() -> None:
    scenes = generate("gallery", 20)
    table = scenes_table(scenes)
    assert table.column_names == ["id", "image", "captions", "key"]
    assert table["captions"].to_pylist() == [list(s.captions) for s in scenes]
    for content, picture in zip(table["image"].to_pylist(), draw(scenes), strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), picture)


def test_png_of_a_picture_that_is_not_square() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(picture)))), picture)


def test_no_scenes_give_an_empty_table_with_the_same_columns() -> None:
    assert scenes_table([]).schema == scenes_table(generate("pairs", 1)).schema


def test_key_reads_as_the_scene() -> None:
    things = (Thing("small", "red", "circle"), Thing("large", "blue", "square"))
    assert scene_key("row", things) == "row: small red circle, large blue square"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("test", 5), {}, "split 'test' is not one of train, validation, pairs, gallery"),
        (("pairs", -1), {}, "must not be negative, got -1"),
        (("pairs", 5), {"captions": 5}, "1 to 4 captions, got 5"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(*arguments, **options)
