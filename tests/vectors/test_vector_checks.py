"""NaN, infinite and zero vectors; repeated ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from crossfade.errors import DuplicateIds, InvalidVectors, UsageError
from crossfade.spaces import Space
from crossfade.vectors import Vectors, check, checked
from crossfade.vectors import ids as ids_module
from crossfade.vectors.checks import KeyLog, find_invalid


def spoiled(vectors: Vectors) -> Vectors:
    matrix = vectors.matrix.copy()
    matrix[3] = 0
    matrix[20, 5] = np.nan
    matrix[50, 0] = -np.inf
    matrix[50, 1] = np.inf
    matrix[99] = np.nan
    return Vectors(vectors.ids, matrix, vectors.space, {"label": vectors.columns["label"]}, name="gallery")


def test_find_invalid() -> None:
    matrix = np.ones((9, 4), dtype=np.float32)
    matrix[1] = 0
    matrix[2, 3] = np.nan
    matrix[3, 0] = np.inf
    matrix[4, :2] = np.inf, -np.inf
    assert find_invalid(matrix) == {1: "zero", 2: "NaN", 3: "infinite", 4: "infinite"}


def test_values_whose_squares_overflow_or_vanish_are_valid() -> None:
    assert find_invalid(np.array([[3e38, -3e38], [1e-40, 0]], dtype=np.float32)) == {}


def test_refuse_counts_them_all_and_names_the_first(vectors: Vectors) -> None:
    message = (
        r"gallery: 4 of 100 vectors are unusable \(2 NaN, 1 infinite, 1 zero\); first ids: 'item-3', "
        r"'item-20', 'item-50', 'item-99'; .*--on-invalid skip"
    )
    with pytest.raises(InvalidVectors, match=message):
        check(spoiled(vectors))


def test_skip_leaves_them_out_and_lists_them(vectors: Vectors) -> None:
    source, report = checked(spoiled(vectors), on_invalid="skip")

    listed = [(one.row, one.id, one.fault) for one in report.invalid]
    assert listed == [
        (3, "item-3", "zero"),
        (20, "item-20", "NaN"),
        (50, "item-50", "infinite"),
        (99, "item-99", "NaN"),
    ]
    assert report.counts == {"NaN": 2, "infinite": 1, "zero": 1}
    keep = [row for row in range(100) if row not in (3, 20, 50, 99)]
    assert len(source) == 96
    for rows in (1, 7, 8192):
        batches = list(source.batches(rows, columns=("label",)))
        np.testing.assert_array_equal(np.concatenate([b.vectors for b in batches]), vectors.matrix[keep])
        labels = [one for b in batches for one in b.columns["label"].to_pylist()]
        assert labels == [f"class {row % 7}" for row in keep]
    assert source.read().ids.to_pylist() == [f"item-{row}" for row in keep]


def test_a_clean_source_passes_as_it_is(vectors: Vectors) -> None:
    source, report = checked(vectors)
    assert source is vectors
    assert (report.rows, report.invalid) == (100, ())


def test_unknown_policy(vectors: Vectors) -> None:
    with pytest.raises(UsageError, match="on_invalid must be 'refuse' or 'skip', got 'ignore'"):
        check(vectors, on_invalid="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [int, str])
def test_repeated_ids(kind: type, space: Space) -> None:
    ids = [kind(row) for row in range(20)]
    ids[7] = ids[19] = ids[2]
    source = Vectors(ids, np.ones((20, 6)), space, name="gallery")
    message = rf"gallery: 1 ids occur more than once, 3 rows in all; first ids: {ids[2]!r}; keep one"
    with pytest.raises(DuplicateIds, match=message):
        check(source)
    assert check(source, unique_ids=False).rows == 20


def test_equal_hashes_are_no_repeated_ids(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids_module, "_hash_strings", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    assert check(vectors).rows == 100


def test_keys_beyond_memory_go_to_disk_and_are_found_all_the_same() -> None:
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 1 << 63, 5000, dtype=np.uint64)
    keys[4000:4010] = keys[:10]
    keys[4990] = keys[4000]
    held, log = KeyLog(), KeyLog(in_memory=300)
    for part in np.array_split(keys, 50):
        held.add(part)
        log.add(part)

    assert log._spilled_count > 4000
    np.testing.assert_array_equal(held.repeated(), np.sort(keys[:10]))
    np.testing.assert_array_equal(np.sort(log.repeated()), np.sort(keys[:10]))


def test_consecutive_keys_spread_over_the_parts_on_disk() -> None:
    log = KeyLog(in_memory=100)
    log.add(np.arange(1000, dtype=np.uint64))
    parts = [len(log._in_part(part, 20)) for part in range(20)]
    assert sum(parts) == 1000
    assert max(parts) < 150


def test_no_rows(space: Space) -> None:
    empty = Vectors(pa.array([], pa.string()), np.empty((0, 6)), space)
    assert check(empty).rows == 0
