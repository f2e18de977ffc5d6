"""Lifting stored vectors into another space."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from crossfade.errors import DataError, DuplicateIds, InvalidVectors, SpaceError
from crossfade.spaces import Space
from crossfade.vectors import LanceVectorWriter, ParquetVectorWriter, Vectors, lift, open_vectors
from crossfade.vectors.base import FloatMatrix
from crossfade.vectors.writing import VectorWriter

TARGET = Space("made-up/new", 9)
WEIGHTS = np.random.default_rng(5).standard_normal((6, 9)).astype(np.float32)


def linear(X: FloatMatrix) -> FloatMatrix:
    return X @ WEIGHTS


def writer_in(folder: Path) -> ParquetVectorWriter:
    return ParquetVectorWriter(folder / "new.parquet", TARGET)


def spoil(vectors: Vectors, rows: list[int]) -> Vectors:
    matrix = vectors.matrix.copy()
    matrix[rows] = np.nan
    return Vectors(vectors.ids, matrix, vectors.space, {"label": vectors.columns["label"]}, name="gallery")


@pytest.mark.parametrize("rows", [7, 8192])
@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_every_row_is_mapped(tmp_path: Path, vectors: Vectors, kind: str, rows: int) -> None:
    if kind == "lance":
        pytest.importorskip("lance")
    location = str(tmp_path / "new.parquet") if kind == "parquet" else f"lancedb://{tmp_path}#new.vector"
    writer: VectorWriter = (
        ParquetVectorWriter(location, TARGET) if kind == "parquet" else LanceVectorWriter(location, TARGET)
    )

    report = lift(vectors, linear, TARGET, writer, rows=rows, columns=("label",))

    read = open_vectors(location).read(columns=("label",))
    expected = np.concatenate([linear(batch.vectors) for batch in vectors.batches(rows)])
    np.testing.assert_array_equal(read.matrix, expected)
    assert read.ids.equals(vectors.ids)
    assert read.columns["label"].equals(vectors.columns["label"])
    assert open_vectors(location).space == TARGET
    assert (report.written, report.checks.rows, report.checks.invalid) == (100, 100, ())


def test_progress(tmp_path: Path, vectors: Vectors) -> None:
    seen: list[tuple[int, int]] = []
    lift(vectors, linear, TARGET, writer_in(tmp_path), rows=40, progress=lambda *at: seen.append(at))
    assert seen == [(40, 100), (80, 100), (100, 100)]


def test_invalid_vectors_are_all_counted_and_nothing_is_written(tmp_path: Path, vectors: Vectors) -> None:
    mapped: list[int] = []

    def counting(X: FloatMatrix) -> FloatMatrix:
        mapped.append(len(X))
        return linear(X)

    with pytest.raises(InvalidVectors, match="gallery: 3 of 100 vectors are unusable"):
        lift(spoil(vectors, [15, 16, 90]), counting, TARGET, writer_in(tmp_path), rows=10)
    assert list(tmp_path.iterdir()) == []
    assert sum(mapped) == 10, "nothing is mapped once the refusal is certain"


def test_invalid_vectors_are_skipped_on_demand_and_listed(tmp_path: Path, vectors: Vectors) -> None:
    source = spoil(vectors, [15, 16, *range(20, 30)])

    report = lift(source, linear, TARGET, writer_in(tmp_path), rows=10, on_invalid="skip")

    read = open_vectors(tmp_path / "new.parquet").read()
    keep = [row for row in range(100) if row not in (15, 16) and not 20 <= row < 30]
    assert read.ids.to_pylist() == [f"item-{row}" for row in keep]
    np.testing.assert_allclose(read.matrix, linear(vectors.matrix[keep]), rtol=1e-5)
    assert report.written == 88
    assert report.to_dict()["skipped"][0] == {"row": 15, "id": "item-15", "fault": "NaN"}
    assert len(report.to_dict()["skipped"]) == 12


def test_repeated_ids_leave_nothing(tmp_path: Path, vectors: Vectors) -> None:
    with pytest.raises(DuplicateIds):
        lift(vectors.take(np.array([1, 2, 1])), linear, TARGET, writer_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_breaks_vectors_is_refused(tmp_path: Path, vectors: Vectors) -> None:
    with pytest.raises(InvalidVectors, match=r"the map made 1 NaN, infinite or zero vectors.*'item-34'"):
        lift(
            vectors, lambda X: np.where(vectors.matrix[34] == X, 0, X) @ WEIGHTS, TARGET, writer_in(tmp_path)
        )
    assert list(tmp_path.iterdir()) == []


def test_a_map_into_another_dimension_is_refused(tmp_path: Path, vectors: Vectors) -> None:
    with pytest.raises(DataError, match=r"got vectors of 6 dimensions for made-up/new \(9-d"):
        lift(vectors, lambda X: X, TARGET, writer_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_loses_rows_is_refused(tmp_path: Path, vectors: Vectors) -> None:
    with pytest.raises(DataError, match="it must keep the rows"):
        lift(vectors, lambda X: linear(X)[1:], TARGET, writer_in(tmp_path))


def test_the_writer_must_be_for_the_target(tmp_path: Path, vectors: Vectors) -> None:
    with pytest.raises(SpaceError):
        lift(vectors, linear, Space("made-up/newer", 9), writer_in(tmp_path))


@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failing_map_ends_everything(
    tmp_path: Path, vectors: Vectors, failure: type[BaseException]
) -> None:
    calls: list[int] = []

    def fail(X: FloatMatrix) -> FloatMatrix:
        calls.append(1)
        if len(calls) == 5:
            raise failure
        return linear(X)

    with pytest.raises(failure):
        lift(vectors, fail, TARGET, writer_in(tmp_path), rows=4)
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crossfade-")]


def test_a_failing_writer_ends_everything(
    tmp_path: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_in(tmp_path)

    def broken(_: object) -> None:
        raise OSError("the cable was pulled")

    monkeypatch.setattr(writer, "_write", broken)
    with pytest.raises(OSError, match="the cable was pulled"):
        lift(vectors, linear, TARGET, writer, rows=4)
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crossfade-")]


def test_memory_holds_a_few_batches(tmp_path: Path, vectors: Vectors) -> None:
    """The reader waits for the writer: no more batches are in flight than the two queues hold."""
    ahead: list[int] = []
    written: list[int] = []

    class Slow(ParquetVectorWriter):
        def _write(self, batch: object) -> None:
            ahead.append(len(mapped) - len(written))
            written.append(1)

        def commit(self) -> None: ...

    mapped: list[int] = []

    def counting(X: FloatMatrix) -> FloatMatrix:
        mapped.append(1)
        return linear(X)

    lift(vectors, counting, TARGET, Slow(tmp_path / "a.parquet", TARGET), rows=2)
    assert len(written) == 50
    assert max(ahead) <= 4
