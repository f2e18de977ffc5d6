"""Vectors in .npy and .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossfade.errors import DataError, UnknownSpace, UnreadableFile, UsageError
from crossfade.vectors import ROW_NUMBERS, VectorSource, open_vectors

MATRIX = np.random.default_rng(2).standard_normal((50, 3)).astype(np.float32)
NAMES = [f"i{row}" for row in range(50)]


def streamed(source: VectorSource, rows: int = 7) -> tuple[list[object], np.ndarray]:
    batches = list(source.batches(rows))
    assert max(map(len, batches)) <= rows
    ids = [one for batch in batches for one in batch.ids.to_pylist()]
    return ids, np.concatenate([batch.vectors for batch in batches])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_with_lines_of_ids(tmp_path: Path, dtype: str, order: str) -> None:
    np.save(tmp_path / "a.npy", np.asarray(MATRIX, dtype=dtype, order=order))
    (tmp_path / "a.ids.txt").write_text("\n".join(NAMES) + "\n")

    ids, matrix = streamed(open_vectors(tmp_path / "a.npy", space="m"))

    assert ids == NAMES
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, MATRIX.astype(dtype).astype(np.float32))


def test_npy_with_an_array_of_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    np.save(tmp_path / "a.ids.npy", np.arange(50) * 2)
    assert streamed(open_vectors(tmp_path / "a.npy", space="m"))[0] == list(range(0, 100, 2))


def test_npy_float32_is_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    source = open_vectors(tmp_path / "a.npy", space="m", id_column=ROW_NUMBERS)

    batch = next(source.batches())

    view: object = batch.vectors
    while isinstance(view, np.ndarray) and not isinstance(view, np.memmap):
        view = view.base
    assert isinstance(view, np.memmap)


def test_npy_without_ids_says_where_to_put_them(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    with pytest.raises(UsageError, match=r"write them to a\.ids\.npy or a\.ids\.txt .*--id-column @row"):
        open_vectors(tmp_path / "a.npy", space="m")
    assert streamed(open_vectors(tmp_path / "a.npy", space="m", id_column=ROW_NUMBERS))[0] == list(range(50))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path: Path, save: object, order: str) -> None:
    save(tmp_path / "a.npz", ids=np.array(NAMES), vectors=np.asarray(MATRIX, order=order))  # type: ignore[operator]

    ids, matrix = streamed(open_vectors(tmp_path / "a.npz", space="m"))

    assert ids == NAMES
    np.testing.assert_array_equal(matrix, MATRIX)


def test_npz_with_other_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", sku=np.arange(50), emb=MATRIX)
    with pytest.raises(UsageError, match=r"no array 'vectors'.*\['sku', 'emb'\].*--vector-column"):
        open_vectors(tmp_path / "a.npz", space="m")
    with pytest.raises(UsageError, match=r"no array 'ids' for the ids.*--id-column"):
        open_vectors(tmp_path / "a.npz", space="m", vector_column="emb")
    source = open_vectors(tmp_path / "a.npz", space="m", vector_column="emb", id_column="sku")
    np.testing.assert_array_equal(source.read().matrix, MATRIX)


def test_as_many_ids_as_vectors(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.arange(49), vectors=MATRIX)
    with pytest.raises(DataError, match="50 vectors but 49 ids"):
        open_vectors(tmp_path / "a.npz", space="m")


@pytest.mark.parametrize("wrong", [MATRIX[0], MATRIX.astype(np.int8), MATRIX[None]])
def test_no_floating_point_matrix(tmp_path: Path, wrong: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", wrong)
    with pytest.raises(DataError, match="must be a floating-point matrix"):
        open_vectors(tmp_path / "a.npy", space="m", id_column=ROW_NUMBERS)


def test_pickled_ids_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.array(NAMES, dtype=object), vectors=MATRIX)
    with pytest.raises(UnreadableFile, match="allow_pickle=False"):
        open_vectors(tmp_path / "a.npz", space="m")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("left", [0.0, 0.02, 0.5, 0.97])
def test_file_cut_short(tmp_path: Path, name: str, left: float) -> None:
    path = tmp_path / name
    np.save(path, MATRIX) if name == "a.npy" else np.savez(path, ids=np.arange(50), vectors=MATRIX)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * left)])
    with pytest.raises(UnreadableFile, match=f"{name}: cannot be read"):
        open_vectors(path, space="m", id_column=ROW_NUMBERS).read()


def test_unknown_space(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    with pytest.raises(UnknownSpace, match="3-d vectors"):
        open_vectors(tmp_path / "a.npy", id_column=ROW_NUMBERS)


def test_array_files_have_no_further_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    source = open_vectors(tmp_path / "a.npy", space="m", id_column=ROW_NUMBERS)
    with pytest.raises(UsageError, match="no column 'label'"):
        list(source.batches(columns=("label",)))
