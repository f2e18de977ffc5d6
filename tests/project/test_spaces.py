"""Embedding spaces: what they are, what they refuse."""

from __future__ import annotations

import dataclasses
import json

import pytest

from crossfade.errors import CrossfadeError, DimensionMismatch, SpaceMismatch, UsageError
from crossfade.spaces import Space

FULL = Space("org/model", 512, metric="dot", normalized=True, revision="v2", prompt="query: ")


def test_a_space_survives_json() -> None:
    assert Space.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_keys_of_a_newer_version_are_not_guessed_at() -> None:
    with pytest.raises(UsageError, match=r"unknown keys \['temperature'\]; written by a newer version"):
        Space.from_dict({**FULL.to_dict(), "temperature": 1})


def test_a_space_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.dimension = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m", Space("m", 8)),
        ("org/m@v2", Space("org/m", 8, revision="v2")),
        ("m,metric=l2", Space("m", 8, metric="l2")),
        ("m@r,metric=dot,normalized", Space("m", 8, metric="dot", normalized=True, revision="r")),
        ("m,normalized=false", Space("m", 8)),
        ("m,prompt=query: ", Space("m", 8, prompt="query: ")),
    ],
)
def test_parse(text: str, expected: Space) -> None:
    assert Space.parse(text, 8) == expected


@pytest.mark.parametrize("text", ["m,metrics=l2", "m,metric", "m,normalized=maybe", "m,dimension=3"])
def test_parse_refuses_unknown_options(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not known; write NAME\[@REVISION\]"):
        Space.parse(text, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 8), "needs the name of the model"),
        (("m", 0), "dimension must be at least 1, got 0"),
        (("m", 8, "hamming"), "metric 'hamming' is not one of cosine, dot, l2"),
    ],
)
def test_impossible_spaces(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Space(*arguments)  # type: ignore[arg-type]


def test_equal_spaces_may_be_compared() -> None:
    FULL.require_same(dataclasses.replace(FULL), "queries")


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"revision": "v3"}, {"metric": "l2"}, {"normalized": False}, {"prompt": ""}],
)
def test_equal_dimension_is_not_enough(change: dict[str, object]) -> None:
    other = dataclasses.replace(FULL, **change)  # type: ignore[arg-type]
    with pytest.raises(SpaceMismatch, match="queries: same dimension but another space") as caught:
        FULL.require_same(other, "queries")
    assert str(FULL) in str(caught.value)
    assert str(other) in str(caught.value)
    assert str(FULL) != str(other)
    assert "crossfade fit" in str(caught.value)


def test_another_dimension_names_both() -> None:
    with pytest.raises(DimensionMismatch, match=r"queries: expected 512 dimensions .* got 768"):
        FULL.require_same(dataclasses.replace(FULL, dimension=768), "queries")


def test_str_names_everything_that_tells_spaces_apart() -> None:
    assert str(FULL) == "org/model@v2 (512-d, dot, normalized, prompt 'query: ')"
    assert str(Space("m", 8)) == "m (8-d, cosine)"


def test_with_metric() -> None:
    assert FULL.with_metric("l2") == dataclasses.replace(FULL, metric="l2")
    with pytest.raises(UsageError):
        FULL.with_metric("hamming")


def test_every_error_is_one_of_ours_and_exits_with_2() -> None:
    from crossfade import errors

    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    assert len(classes) > 20
    assert all(issubclass(one, CrossfadeError) and one.exit_code == 2 for one in classes)
