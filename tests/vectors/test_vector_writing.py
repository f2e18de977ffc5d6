"""Parquet files that appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.errors import DataError, OutOfSpace, UsageError
from crossfade.spaces import Space
from crossfade.vectors import (
    ParquetVectorWriter,
    VectorBatch,
    Vectors,
    VectorWriter,
    open_vectors,
    open_writer,
    recorded_space,
    writing,
)


def write_all(writer: VectorWriter, vectors: Vectors, *, then: type[BaseException] | None = None) -> None:
    with writer:
        for batch in vectors.batches(rows=10):
            writer.write(batch)
        if then is not None:
            raise then


def test_round_trip_with_further_columns(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    path = tmp_path / "a.parquet"
    with ParquetVectorWriter(path, space, id_column="sku", vector_column="v") as writer:
        for batch in vectors.batches(rows=9, columns=("label",)):
            writer.write(batch)
    assert writer.rows == 100

    read = open_vectors(path, id_column="sku").read(columns=("label",))

    np.testing.assert_array_equal(read.matrix, vectors.matrix)
    assert read.ids.equals(vectors.ids)
    assert read.columns["label"].equals(vectors.columns["label"])
    assert recorded_space(pq.read_schema(path), "v") == space


def test_vectors_are_plain(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    with ParquetVectorWriter(tmp_path / "a.parquet", space) as writer:
        for batch in vectors.batches():
            writer.write(batch)
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    columns = {
        group.column(i).path_in_schema.split(".")[0]: group.column(i) for i in range(group.num_columns)
    }
    assert columns["vector"].compression == "UNCOMPRESSED"
    assert not columns["vector"].has_dictionary_page


def test_small_batches_are_gathered_into_row_groups(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    with ParquetVectorWriter(tmp_path / "a.parquet", space) as writer:
        for batch in vectors.batches(rows=1):
            writer.write(batch)
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.num_row_groups == 1


def test_the_file_appears_at_the_end(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    path = tmp_path / "a.parquet"
    with ParquetVectorWriter(path, space) as writer:
        writer.write(next(vectors.batches()))
        assert not path.exists()
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_a_failure(
    tmp_path: Path,
    vectors: Vectors,
    space: Space,
    failure: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "BATCH_ROWS", 8)
    with pytest.raises(failure):
        write_all(ParquetVectorWriter(tmp_path / "a.parquet", space), vectors, then=failure)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_replaced_unasked(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("precious")
    with pytest.raises(UsageError, match=r"is there already; choose another name or move it away first"):
        ParquetVectorWriter(path, space)

    with pytest.raises(RuntimeError):
        write_all(ParquetVectorWriter(path, space, overwrite=True), vectors, then=RuntimeError)
    assert path.read_text() == "precious"

    with ParquetVectorWriter(path, space, overwrite=True) as writer:
        writer.write(next(vectors.batches()))
    assert len(open_vectors(path)) == 100


def test_open_writer(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    write_all(open_writer(tmp_path / "a.parquet", space), vectors)
    assert open_vectors(tmp_path / "a.parquet").space == space
    with pytest.raises(UsageError, match=r"'a\.csv': vectors are written to NAME\.parquet or lancedb://"):
        open_writer("a.csv", space)


def test_no_folder(tmp_path: Path, space: Space) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        ParquetVectorWriter(tmp_path / "none" / "a.parquet", space)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
def test_full_disk(tmp_path: Path, vectors: Vectors, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_open_sink", lambda _: pa.OSFile("/dev/full", "wb"))
    with pytest.raises(OutOfSpace, match=r"a\.parquet: the disk was full after \d+ rows; nothing was kept"):
        write_all(ParquetVectorWriter(tmp_path / "a.parquet", space), vectors)
    assert list(tmp_path.iterdir()) == []


def test_other_failures_of_the_disk_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionError), writing.full_disk_as_error("a", 0):
        raise PermissionError


def test_no_rows_make_an_empty_file(tmp_path: Path, space: Space) -> None:
    with ParquetVectorWriter(tmp_path / "a.parquet", space):
        pass
    source = open_vectors(tmp_path / "a.parquet")
    assert (len(source), source.space) == (0, space)
    assert source.read().matrix.shape == (0, 6)


def test_vectors_of_another_dimension_are_refused(tmp_path: Path, vectors: Vectors, space: Space) -> None:
    narrow = VectorBatch(vectors.ids, vectors.matrix[:, :5].copy())
    with (
        pytest.raises(DataError, match=r"got vectors of 5 dimensions for made-up/old@r1 \(6-d"),
        ParquetVectorWriter(tmp_path / "a.parquet", space) as writer,
    ):
        writer.write(narrow)
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import sys, time
from pathlib import Path
import numpy as np
from crossfade.spaces import Space
from crossfade.vectors import ParquetVectorWriter, Vectors, lift

space = Space("m", 8)
source = Vectors(range(400_000), np.ones((400_000, 8), np.float32), space)
def slow(X):
    Path(sys.argv[1], "started").touch()
    time.sleep(0.2)
    return X
lift(source, slow, space, ParquetVectorWriter(Path(sys.argv[1], "out", "a.parquet"), space))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_in_a_process_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list((tmp_path / "out").iterdir()), "never started to write"

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert b"KeyboardInterrupt" in errors
    assert list((tmp_path / "out").iterdir()) == []
