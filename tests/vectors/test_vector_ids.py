"""Ids: keys, exact look-up in spite of equal keys, repeated ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.errors import DataError, IdMismatch
from crossfade.vectors import ids as module
from crossfade.vectors.ids import IdIndex, first_few, id_keys, normalize_ids


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=40), st.integers(0, 5))
def test_keys_depend_on_the_string_alone(texts: list[str], offset: int) -> None:
    whole = pa.array(texts, pa.string())
    alone = np.array([id_keys(pa.array([text]))[0] for text in texts], dtype=np.uint64)
    np.testing.assert_array_equal(id_keys(whole), alone)
    np.testing.assert_array_equal(id_keys(whole[offset:]), alone[offset:])


def test_different_strings_get_different_keys() -> None:
    texts = [f"{prefix}{number}" for prefix in ("", "a", "b", "ab/") for number in range(20_000)]
    assert len(np.unique(id_keys(pa.array(texts)))) == len(texts)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30))
def test_integers_are_their_own_keys(numbers: list[int]) -> None:
    index = IdIndex([pa.array(numbers, pa.int64())])
    np.testing.assert_array_equal(index.rows(pa.array(numbers, pa.int64())), np.arange(len(numbers)))


@settings(deadline=None)
@given(st.lists(st.text(max_size=4), unique=True, max_size=40), st.lists(st.text(max_size=4), max_size=40))
def test_rows_agree_with_a_dictionary(known: list[str], wanted: list[str]) -> None:
    expected = {text: row for row, text in enumerate(known)}
    chunks = [pa.array(known[:7], pa.string()), pa.array(known[7:], pa.string())]
    rows = IdIndex(chunks).rows(pa.array(wanted, pa.string()))
    assert rows.tolist() == [expected.get(text, -1) for text in wanted]


def test_equal_keys_of_different_ids_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_hash_strings", lambda ids: np.full(len(ids), 7, dtype=np.uint64))
    index = IdIndex([pa.array(["a", "b", "c"])])
    assert index.rows(pa.array(["c", "x", "a", "b"])).tolist() == [2, -1, 0, 1]
    assert index.repeated() == []
    assert IdIndex([pa.array(["a", "b", "a"])]).repeated() == ["a"]


def test_repeated() -> None:
    assert IdIndex([pa.array([3, 1, 3, 2, 1, 3])]).repeated() == [3, 1]


def test_integers_never_match_strings() -> None:
    with pytest.raises(IdMismatch, match="ids of type string cannot be matched with ids of type int64"):
        IdIndex([pa.array([1, 2])]).rows(pa.array(["1"]))


def test_dictionary_encoded_ids_are_strings() -> None:
    assert normalize_ids(pa.array(["a", "b", "a"]).dictionary_encode()).equals(pa.array(["a", "b", "a"]))


def test_null_ids_are_refused() -> None:
    with pytest.raises(DataError, match="the id in row 12 is null"):
        normalize_ids(pa.array(["a", "b", None]), "here", first_row=10)


def test_first_few() -> None:
    assert first_few(["a", 2]) == "'a', 2"
    assert first_few(iter(range(9)), 3) == "0, 1, 2, ..."
