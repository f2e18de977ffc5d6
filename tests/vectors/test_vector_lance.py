"""Vectors in LanceDB tables, read and written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crossfade.errors import OutOfSpace, UnknownSpace, UnreadableFile, UsageError
from crossfade.spaces import Space
from crossfade.vectors import (
    LanceLocation,
    LanceVectorWriter,
    VectorBatch,
    Vectors,
    open_vectors,
    open_writer,
)

lance = pytest.importorskip("lance")
lancedb = pytest.importorskip("lancedb")


def write(vectors: Vectors, location: str, rows: int = 30, columns: tuple[str, ...] = ()) -> None:
    with LanceVectorWriter(location, vectors.space) as writer:
        for batch in vectors.batches(rows, columns):
            writer.write(batch)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lancedb://db#items.vector", ("db", "items", "vector")),
        ("lancedb:///a/b c#items.old.v", ("/a/b c", "items.old", "v")),
        ("lancedb://s3://bucket/db#items", ("s3://bucket/db", "items", "")),
    ],
)
def test_location(text: str, parts: tuple[str, str, str]) -> None:
    location = LanceLocation.parse(text)
    assert (location.directory, location.table, location.column) == parts
    assert str(location) == text


@pytest.mark.parametrize(
    "text", ["db#items.v", "lancedb://db", "lancedb://#a.b", "lancedb://db#", "lancedb://db#a."]
)
def test_no_location(text: str) -> None:
    with pytest.raises(UsageError, match=r"write lancedb://DIR#table\.column"):
        LanceLocation.parse(text)


def test_what_is_written_is_read_back(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    location = f"lancedb://{tmp_path}/db#items.v"
    write(vectors, location, columns=("label",))

    source = open_vectors(location)
    read = source.read(columns=("label",))

    assert source.space == space
    assert len(source) == 100
    assert max(map(len, source.batches(rows=9))) <= 9
    np.testing.assert_array_equal(read.matrix, vectors.matrix)
    assert read.ids.equals(vectors.ids)
    assert read.columns["label"].equals(vectors.columns["label"])


def test_lancedb_opens_the_table(tmp_path: Path, vectors: Vectors) -> None:
    write(vectors, f"lancedb://{tmp_path}/db#items.v")
    table = lancedb.connect(tmp_path / "db").open_table("items")
    nearest = table.search(vectors.matrix[42].tolist(), vector_column_name="v").limit(1).to_list()
    assert nearest[0]["id"] == "item-42"


def test_tables_made_by_lancedb_are_read(tmp_path: Path, vectors: Vectors) -> None:
    rows = [{"id": row, "vector": vectors.matrix[row].tolist()} for row in range(100)]
    lancedb.connect(tmp_path).create_table("items", rows)

    read = open_vectors(f"lancedb://{tmp_path}#items.vector", space="m").read()

    np.testing.assert_array_equal(read.matrix, vectors.matrix)
    assert read.ids.to_pylist() == list(range(100))


def test_columns_of_one_table_may_be_of_different_spaces(tmp_path: Path, vectors: Vectors) -> None:
    write(vectors, f"lancedb://{tmp_path}#items.vector")
    dataset = lance.dataset(f"{tmp_path}/items.lance")
    dataset.add_columns({"lifted": "vector"})
    new = Space("made-up/new", 6)
    dataset.update_field_metadata({"lifted": {"crossfade.space": json.dumps(new.to_dict())}})

    assert open_vectors(f"lancedb://{tmp_path}#items.lifted").space == new
    with pytest.raises(UnknownSpace):
        open_vectors(f"lancedb://{tmp_path}#items.vector")


def test_open_writer_makes_a_table(tmp_path: Path, vectors: Vectors) -> None:
    with open_writer(f"lancedb://{tmp_path}#items.v", vectors.space) as writer:
        writer.write(next(vectors.batches()))
    assert len(open_vectors(f"lancedb://{tmp_path}#items.v")) == 100


def test_a_source_does_not_see_later_rows(tmp_path: Path, vectors: Vectors) -> None:
    write(vectors, f"lancedb://{tmp_path}#items.vector")
    source = open_vectors(f"lancedb://{tmp_path}#items.vector")
    dataset = f"{tmp_path}/items.lance"
    lance.write_dataset(lance.dataset(dataset).to_table(), dataset, mode="append")

    assert sum(map(len, source.batches())) == len(source) == 100
    assert len(open_vectors(f"lancedb://{tmp_path}#items.vector")) == 200


def test_column_is_named_once(tmp_path: Path, vectors: Vectors) -> None:
    write(vectors, f"lancedb://{tmp_path}#items.v")
    assert open_vectors(f"lancedb://{tmp_path}#items", vector_column="v").space == vectors.space
    with pytest.raises(UsageError, match="the vector column 'v', the option 'w'; name it once"):
        open_vectors(f"lancedb://{tmp_path}#items.v", vector_column="w")


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"#none\.vector: no such table"):
        open_vectors(f"lancedb://{tmp_path}#none.vector", space="m")


def test_a_data_file_cut_short(tmp_path: Path, vectors: Vectors) -> None:
    write(vectors, f"lancedb://{tmp_path}#items.vector")
    (data,) = (tmp_path / "items.lance" / "data").iterdir()
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(UnreadableFile, match="cannot be read"):
        open_vectors(f"lancedb://{tmp_path}#items.vector").read()


def test_a_table_is_never_overwritten(tmp_path: Path, vectors: Vectors) -> None:
    write(vectors, f"lancedb://{tmp_path}#items.vector")
    with pytest.raises(UsageError, match="there is such a table already"):
        LanceVectorWriter(f"lancedb://{tmp_path}#items.vector", vectors.space)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_a_failure(
    tmp_path: Path, vectors: Vectors, failure: type[BaseException]
) -> None:
    def write_and_fail() -> None:
        with LanceVectorWriter(f"lancedb://{tmp_path}#items.vector", vectors.space) as writer:
            for batch in vectors.batches(rows=10):
                writer.write(batch)
            raise failure

    with pytest.raises(failure):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(reader: object, *_: object, **__: object) -> None:
        next(iter(reader))  # type: ignore[call-overload]
        raise OSError("LanceError(IO): No space left on device (os error 28)")

    monkeypatch.setattr(lance, "write_dataset", full)
    with pytest.raises(OutOfSpace, match=r"the disk was full after .* rows; nothing was kept"):
        write(vectors, f"lancedb://{tmp_path}#items.vector", rows=5)


def test_no_rows_make_an_empty_table(tmp_path: Path, space: Space) -> None:
    with LanceVectorWriter(f"lancedb://{tmp_path}#items.vector", space):
        pass
    source = open_vectors(f"lancedb://{tmp_path}#items.vector")
    assert (len(source), source.space) == (0, space)


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: Vectors) -> None:
    from crossfade.errors import MissingExtra

    monkeypatch.setitem(__import__("sys").modules, "lance", None)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[lance\]'"):
        open_vectors(f"lancedb://{tmp_path}#items.vector", space="m")


def test_batches_must_have_the_dimension_of_the_space(tmp_path: Path, vectors: Vectors) -> None:
    from crossfade.errors import DataError

    narrow = VectorBatch(vectors.ids, vectors.matrix[:, :5].copy())
    with (
        pytest.raises(DataError, match="got vectors of 5 dimensions for made-up/old"),
        LanceVectorWriter(f"lancedb://{tmp_path}#items.vector", vectors.space) as writer,
    ):
        writer.write(narrow)
