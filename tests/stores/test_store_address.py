from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_backends import LanceBackend, table

from crossfade.errors import StoreError, UsageError
from crossfade.stores import open_store
from crossfade.stores.address import Address, redact


@pytest.mark.parametrize(
    ("text", "place", "names", "identity"),
    [
        ("lancedb:///data/db#items.vector", "/data/db", ("items", "vector"), ""),
        ("lancedb://db#items", "db", ("items", ""), ""),
        ("lancedb://a#b/c#items.vector?id=sku", "a#b/c", ("items", "vector"), "sku"),
        ('lancedb://db#"my items"."clip.b32"', "db", ("my items", "clip.b32"), ""),
        ('lancedb://db#"a ""b"""."c"', "db", ('a "b"', "c"), ""),
        ("lancedb://db#my%20items.clip%2Eb32", "db", ("my items", "clip.b32"), ""),
        ("lancedb://db#bücher.vektor", "db", ("bücher", "vektor"), ""),
    ],
)
def test_addresses(text: str, place: str, names: tuple[str, str], identity: str) -> None:
    found = Address.parse(text)
    assert (found.place, (found.table, found.column), found.id_column) == (place, names, identity)
    assert Address.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "items.vector",
        "lancedb://db",
        "lancedb://#a.b",
        "lancedb://db#",
        "lancedb://db#a.",
        "lancedb://db#a.b.c",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no address of a store; write lancedb://DIR#table\.column"):
        Address.parse(text)


def test_unknown_option_and_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="option 'key' is not known"):
        open_store(f"lancedb://{tmp_path}#a.b?key=c")
    with pytest.raises(UsageError, match=r"kind 'redis' are not known; there are .*lancedb://"):
        open_store("redis://user:secret@host/db#a.b")


def test_credentials_are_never_shown() -> None:
    assert redact("postgresql://me:secret@host/db#a.b") == "postgresql://***@host/db#a.b"
    assert str(Address("postgresql", "me:secret@host/db", "a", "b")) == "postgresql://***@host/db#a.b"
    with pytest.raises(UsageError) as caught:
        open_store("redis://me:secret@host#a.b")
    assert "secret" not in str(caught.value)


def test_no_such_table_or_column(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such table; check the folder"):
        open_store(f"lancedb://{tmp_path}#items.vector")
    LanceBackend(tmp_path).create([1], np.ones((1, 4), np.float32), parts=1)
    with pytest.raises(UsageError, match="no column 'vektor'; it has 'id'"):
        open_store(f"lancedb://{tmp_path}#items.vektor")
    with pytest.raises(UsageError, match="no column 'sku' for the ids"):
        open_store(f"lancedb://{tmp_path}#items.vector?id=sku")
    assert open_store(f"lancedb://{tmp_path}#items").column == "vector"


def test_names_with_spaces_dots_quotes_and_umlauts(tmp_path: Path) -> None:
    import lancedb

    rows = table(
        list(range(30)), np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32), "größe x"
    )
    lancedb.connect(tmp_path).create_table("my_items", rows.rename_columns(["the id", "text", "größe x"]))
    store = open_store(f'lancedb://{tmp_path}#my_items."größe x"?id=the%20id')
    assert store.describe().id_column == "the id"
    assert [batch.ids.to_pylist() for batch in store.scan()] == [list(range(30))]
    assert store.count_null("größe x") == 0
