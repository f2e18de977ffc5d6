"""The table of stores in the documentation is what the stores say of themselves."""

from __future__ import annotations

from pathlib import Path

from crossfade.stores.open import STORES
from crossfade.stores.table import capabilities, capability_table

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"


def test_the_page_is_up_to_date() -> None:
    assert capability_table() in PAGE.read_text(encoding="utf-8"), (
        "run: python docs/execute.py docs/stores.md"
    )


def test_every_kind_of_store_is_in_it_once() -> None:
    expected = [
        scheme
        for number, (scheme, places) in enumerate(STORES.items())
        for _ in places
        if places not in list(STORES.values())[:number]
    ]
    assert [scheme for scheme, _ in capabilities()] == expected
    assert len({said.beside for scheme, said in capabilities() if scheme == "qdrant"}) == 2


def test_what_a_store_lacks_is_also_said_in_words() -> None:
    for scheme, said in capabilities():
        assert len(said.cannot) >= len(said.lacks), scheme
