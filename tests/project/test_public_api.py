"""The public names are exactly what is meant, and each resolves."""

from __future__ import annotations

import pytest

import crossfade

PUBLIC = {
    "Adapter",
    "CrossfadeError",
    "Evaluation",
    "Plan",
    "Searcher",
    "Space",
    "Upgrade",
    "Vectors",
    "apply",
    "evaluate",
    "fit",
    "load_adapter",
    "open_vectors",
    "plan",
}


def test_public_names() -> None:
    assert set(crossfade.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_resolves(name: str) -> None:
    assert getattr(crossfade, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = crossfade.fitt
