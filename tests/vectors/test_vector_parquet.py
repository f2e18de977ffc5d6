"""Vectors in Parquet: column types, column choice, spaces, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.errors import (
    DataError,
    DimensionMismatch,
    InvalidVectors,
    SpaceMismatch,
    UnknownSpace,
    UnreadableFile,
    UsageError,
)
from crossfade.spaces import Space
from crossfade.vectors import ROW_NUMBERS, ParquetVectorWriter, Vectors, open_vectors, record_space
from crossfade.vectors.columns import to_matrix

MATRIX = np.random.default_rng(1).standard_normal((20, 4)).astype(np.float32)
IDS = pa.array([f"i{row}" for row in range(20)])
LISTS = {
    "fixed-size list": lambda of: pa.list_(of, 4),
    "list": pa.list_,
    "large list": pa.large_list,
}


def write(path: Path, rows_per_group: int | None = None, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def lists(rows: object, list_type: pa.DataType | None = None) -> pa.Array:
    return pa.array(rows, type=list_type or pa.list_(pa.float32()))


@pytest.mark.parametrize("list_kind", LISTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_list_and_float_type_reads_as_float32(tmp_path: Path, list_kind: str, dtype: str) -> None:
    values = MATRIX.astype(dtype)
    list_type = LISTS[list_kind](pa.from_numpy_dtype(dtype))
    path = write(tmp_path / "a.parquet", 7, id=IDS, vector=lists(list(values), list_type))

    read = open_vectors(path, space="m").read()

    assert read.matrix.dtype == np.float32
    np.testing.assert_array_equal(read.matrix, values.astype(np.float32))
    assert read.ids.to_pylist() == IDS.to_pylist()


def test_float32_fixed_size_lists_are_not_copied() -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(MATRIX.reshape(-1)), 4).slice(3, 9)

    view = to_matrix(column, 4, "here")

    np.testing.assert_array_equal(view, MATRIX[3:12])
    assert np.shares_memory(view, column.values.to_numpy())


def test_batches_are_at_most_as_long_as_asked_for_and_cover_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", 6, id=IDS, vector=lists(list(MATRIX)))
    source = open_vectors(path, space="m")

    batches = list(source.batches(rows=5))

    assert len(source) == 20
    assert max(map(len, batches)) <= 5
    np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), MATRIX)
    assert [one for ids in source.ids_in_batches(3) for one in ids.to_pylist()] == IDS.to_pylist()


def test_further_columns_come_with_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, vector=lists(list(MATRIX)), label=pa.array(range(20)))
    source = open_vectors(path, space="m")

    assert source.read(columns=("label",)).columns["label"].to_pylist() == list(range(20))
    with pytest.raises(UsageError, match=r"no column 'labels'; it has 'id' \(string\), .*'label' \(int64\)"):
        list(source.batches(columns=("labels",)))


def test_integer_ids_of_any_width_become_int64(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=pa.array(range(20), pa.uint16()), vector=lists(list(MATRIX)))
    assert open_vectors(path, space="m").read().ids.type == pa.int64()


def test_columns_are_chosen_by_option(tmp_path: Path) -> None:
    other = lists(list(MATRIX[:, :2]))
    path = write(tmp_path / "a.parquet", sku=IDS, image=lists(list(MATRIX)), text=other)

    source = open_vectors(path, space="m", id_column="sku", vector_column="text")

    np.testing.assert_array_equal(source.read().matrix, MATRIX[:, :2])


def test_the_only_list_column_is_the_vectors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, embedding=lists(list(MATRIX)))
    np.testing.assert_array_equal(open_vectors(path, space="m").read().matrix, MATRIX)


def test_two_candidates_for_the_vectors_are_listed_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, image=lists(list(MATRIX)), text=lists(list(MATRIX)))
    with pytest.raises(UsageError, match=r"no column 'vector'; it has .*'image'.*'text'.*--vector-column"):
        open_vectors(path, space="m")


def test_missing_id_column_names_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", sku=IDS, vector=lists(list(MATRIX)))

    with pytest.raises(UsageError, match=r"no column 'id' for the ids.*'sku' \(string\).*--id-column @row"):
        open_vectors(path, space="m")
    numbered = open_vectors(path, space="m", id_column=ROW_NUMBERS)
    assert [one for batch in numbered.batches(3) for one in batch.ids.to_pylist()] == list(range(20))
    assert [one for ids in numbered.ids_in_batches(3) for one in ids.to_pylist()] == list(range(20))


def test_integers_are_no_vectors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, vector=lists([[1, 2]] * 20, pa.list_(pa.int8())))
    with pytest.raises(UsageError, match="column 'vector' holds no vectors"):
        open_vectors(path, space="m")


def test_mixed_lengths_name_both_and_the_row(tmp_path: Path) -> None:
    rows = [list(row) for row in MATRIX]
    rows[13] = rows[13][:3]
    path = write(tmp_path / "a.parquet", 4, id=IDS, vector=lists(rows))

    with pytest.raises(DimensionMismatch, match="vector in row 13 has 3 dimensions, expected 4"):
        list(open_vectors(path, space="m").batches(rows=5))


@pytest.mark.parametrize("list_kind", LISTS)
def test_null_vectors_and_values_are_named(tmp_path: Path, list_kind: str) -> None:
    list_type = LISTS[list_kind](pa.float32())
    rows: list[list[float | None] | None] = [list(map(float, row)) for row in MATRIX]
    rows[9] = None
    path = write(tmp_path / "a.parquet", id=IDS, vector=lists(rows, list_type))
    with pytest.raises(InvalidVectors, match="the vector in row 9 is null"):
        open_vectors(path, space="m").read()

    rows[9] = [1.0, None, 2.0, 3.0]
    path = write(tmp_path / "b.parquet", id=IDS, vector=lists(rows, list_type))
    with pytest.raises(InvalidVectors, match="the vector in row 9 holds a null value"):
        open_vectors(path, space="m").read()


def test_null_id_is_named(tmp_path: Path) -> None:
    ids = pa.array([*IDS.to_pylist()[:11], None, *IDS.to_pylist()[12:]])
    path = write(tmp_path / "a.parquet", id=ids, vector=lists(list(MATRIX)))
    with pytest.raises(DataError, match="the id in row 11 is null"):
        list(open_vectors(path, space="m").batches(rows=5))


def test_ids_must_be_integers_or_strings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=pa.array(np.arange(20) / 2), vector=lists(list(MATRIX)))
    with pytest.raises(DataError, match="ids of type double are not supported, integers and strings are"):
        open_vectors(path, space="m").read()


def test_space_is_read_back_from_the_metadata(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    with ParquetVectorWriter(tmp_path / "a.parquet", space) as writer:
        for batch in vectors.batches():
            writer.write(batch)

    assert open_vectors(tmp_path / "a.parquet").space == space
    assert open_vectors(tmp_path / "a.parquet", space=space).space == space


def test_another_space_than_recorded_is_refused(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    with ParquetVectorWriter(tmp_path / "a.parquet", space) as writer:
        for batch in vectors.batches():
            writer.write(batch)

    with pytest.raises(
        SpaceMismatch, match=r"its metadata says made-up/old@r1 .*the option says made-up/new"
    ):
        open_vectors(tmp_path / "a.parquet", space="made-up/new")


def test_unknown_space_names_the_option(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, vector=lists(list(MATRIX)))
    with pytest.raises(UnknownSpace, match=r"nothing says which model made these 4-d vectors.*--space NAME"):
        open_vectors(path)


def test_space_of_another_dimension_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, vector=lists(list(MATRIX)))
    with pytest.raises(DimensionMismatch, match=r"have 4 dimensions, their space m \(8-d, cosine\) says 8"):
        open_vectors(path, space=Space("m", 8))


def test_a_record_without_column_does_not_count_where_there_are_two(tmp_path: Path) -> None:
    table = pa.table({"id": IDS, "vector": lists(list(MATRIX)), "other": lists(list(MATRIX))})
    space = Space("m", 4)
    pq.write_table(table.cast(record_space(table.schema, space)), tmp_path / "a.parquet")
    with pytest.raises(UnknownSpace):
        open_vectors(tmp_path / "a.parquet")

    pq.write_table(table.cast(record_space(table.schema, space, "other")), tmp_path / "b.parquet")
    assert open_vectors(tmp_path / "b.parquet", vector_column="other").space == space
    with pytest.raises(UnknownSpace):
        open_vectors(tmp_path / "b.parquet", vector_column="vector")


def test_file_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, vector=lists(list(MATRIX)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UnreadableFile, match=r"a\.parquet: cannot be read, it may be cut short"):
        open_vectors(path, space="m")


def test_file_damaged_inside(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS, vector=lists(list(MATRIX)))
    raw = bytearray(path.read_bytes())
    raw[4:400] = bytes(396)
    path.write_bytes(raw)
    with pytest.raises(UnreadableFile, match="cannot be read"):
        open_vectors(path, space="m").read()


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"none\.parquet: no such file"):
        open_vectors(tmp_path / "none.parquet", space="m")


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.parquet, \.npy, \.npz, \.lance or lancedb://DIR#table\.column"):
        open_vectors(tmp_path / "vectors.csv")


def test_empty_list_column_needs_a_full_space(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=IDS[:0], vector=lists([]))
    with pytest.raises(DataError, match="no vector in the first row"):
        open_vectors(path, space="m")
    assert open_vectors(path, space=Space("m", 4)).read().matrix.shape == (0, 4)


def test_a_group_of_many_rows_is_not_held_in_memory(tmp_path: Path) -> None:
    rows, dimension = 20_000, 256
    flat = pa.array(np.zeros(rows * dimension, dtype=np.float32))
    column = pa.FixedSizeListArray.from_arrays(flat, dimension)
    table = pa.table({"id": pa.array(range(rows)), "vector": column})
    options = {"compression": "none", "use_dictionary": False}
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=rows, **options)
    source = open_vectors(tmp_path / "a.parquet", space="m")
    del flat, column, table

    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in source.batches(rows=500))

    assert most < 6 * 2**20, "20 MB in one row group"
