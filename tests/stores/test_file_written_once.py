"""New vectors that are cheap to make again go into the new file while they are made."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faiss_backend import FaissBackend
from parquet_backend import ParquetBackend
from store_backend import Backend

from crossfade.errors import InvalidVectors, OutOfSpace
from crossfade.spaces import Space
from crossfade.stores import Part, Produced, Receipt, Rows, Staged, open_store
from crossfade.stores.file_assembly import Assembly
from crossfade.stores.file_parts import Listing
from crossfade.stores.files import FileStore

OLD, NEW = Space("old-model", 8, "cosine"), Space("new-model", 12, "cosine")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")
ROWS = 203


def _vectors(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)


def _lift(old: np.ndarray) -> np.ndarray:
    return np.hstack([2 * old, old[:, :4] + 1]).astype(np.float32)


class Making:
    """Makes new vectors, and remembers for which ids."""

    def __init__(self) -> None:
        self.ids: list[Any] = []

    def __call__(self, rows: Rows) -> Produced:
        self.ids += rows.ids.to_pylist()
        return Produced(_lift(np.nan_to_num(rows.vectors)), ~rows.null)


def _ignore(part: Part) -> None:
    """Nothing is to be done when a part begins."""


def _write(store: Any, receipts: dict[str, Receipt], make: Any = None) -> list[Any]:
    """Write what is pending; returns the ids of rows that vectors were made for."""
    making = make or Making()
    for receipt in store.write_once(STAGED, receipts, making, _ignore, rows=17):
        receipts[receipt.part] = receipt
    return list(getattr(making, "ids", []))


def _problems(store: Any, receipts: dict[str, Receipt]) -> list[str]:
    return [found for one in receipts.values() if (found := store.check_part(one))]


def _threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("crossfade-")]


@pytest.fixture(params=[ParquetBackend, FaissBackend], ids=lambda kind: kind.name)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    made: Backend = request.param(tmp_path / "db")
    made.create(list(range(ROWS)), _vectors(ROWS))
    return made


@pytest.fixture
def store(backend: Backend) -> Any:
    opened = backend.open()
    assert isinstance(opened, FileStore)
    assert opened.writes_once(STAGED)
    return opened


def _new_file(backend: Backend) -> Path:
    return next(one for one in backend.folder.rglob("vector__next.*") if one.suffix in (".parquet", ".faiss"))


def test_it_is_the_file_that_parts_of_their_own_would_have_made(store: Any, backend: Backend) -> None:
    apart = {one.key: store.write_part(one, STAGED, Making(), rows=17) for one in store.parts(STAGED)}
    assert store.publish(STAGED, apart) == []
    expected = _new_file(backend).read_bytes()
    store.drop_new(STAGED)
    receipts: dict[str, Receipt] = {}
    assert _write(store, receipts) == list(range(ROWS))
    assert _new_file(backend).read_bytes() == expected
    assert not list(backend.folder.rglob("*.npy"))
    assert store.pending(STAGED, receipts) == []
    written = _new_file(backend).stat()
    assert _write(store, receipts) == []
    assert _new_file(backend).stat() == written
    assert _problems(store, receipts) == []
    assert sum(one.location["bytes"] for one in receipts.values()) == ROWS * 12 * 4
    store.drop_new(STAGED)
    assert not list(backend.folder.rglob("vector__next*"))


def test_parts_that_have_files_of_their_own_already_are_not_made_again(store: Any, backend: Backend) -> None:
    reference: dict[str, Receipt] = {}
    _write(store, reference)
    expected = _new_file(backend).read_bytes()
    store.drop_new(STAGED)
    receipts = {one.key: store.write_part(one, STAGED, Making(), rows=17) for one in store.parts(STAGED)[1:3]}
    assert _write(store, receipts) == [*range(51), *range(153, ROWS)]
    assert ["path" in receipts[key].location for key in "0123"] == [False, True, True, False]
    assert _new_file(backend).read_bytes() == expected
    assert store.publish(STAGED, receipts) == []
    assert _problems(store, receipts) == []


def test_only_changed_parts_are_made_again(store: Any, backend: Backend) -> None:
    receipts: dict[str, Receipt] = {}
    _write(store, receipts)
    before = backend.read("vector__next")
    backend.delete([60])
    backend.append([1000, 1001], _vectors(2, 3))
    changed = {one.key for one in store.pending(STAGED, receipts)}
    assert len(changed) == 2
    kept = {key: one for key, one in receipts.items() if key not in changed}
    made = _write(store, receipts)
    assert sorted(made) == [*range(51, 60), *range(61, 102), *range(153, ROWS), 1000, 1001]
    assert {key: receipts[key] for key in kept} == kept
    assert store.publish(STAGED, receipts) == []
    assert _problems(backend.open(), receipts) == []
    after = backend.read("vector__next")
    for one in (*range(51), *range(102, 153)):
        np.testing.assert_array_equal(after[one], before[one])
    assert store.switch(STAGED, receipts) == []
    wanted = store.stored(_lift(_vectors(2, 3)), STAGED)
    np.testing.assert_array_equal(np.stack([backend.read()[1000], backend.read()[1001]]), wanted)


def test_what_the_application_wrote_while_it_was_in_use_stays(store: Any, backend: Backend) -> None:
    receipts: dict[str, Receipt] = {}
    _write(store, receipts)
    assert store.switch(STAGED, receipts) == []
    own = np.full((1, 12), 0.25, dtype=np.float32)
    backend.replace([7], own)
    store.switch_back(STAGED)
    backend.replace([190], _vectors(1, 5))
    opened = backend.open()
    made = _write(opened, receipts)
    assert 190 in made
    assert 7 not in made
    assert opened.publish(STAGED, receipts) == []
    np.testing.assert_array_equal(backend.read("vector__next")[7], own[0])
    assert opened.pending(STAGED, receipts) == []
    assert _problems(opened, receipts) == []


def test_rows_without_a_vector_are_counted_and_checked(tmp_path: Path) -> None:
    backend = ParquetBackend(tmp_path / "db")
    backend.create(list(range(ROWS)), _vectors(ROWS))
    backend.append([500], None)
    store: Any = backend.open()
    receipts: dict[str, Receipt] = {}
    _write(store, receipts)
    assert [one.nulls for one in receipts.values()] == [0, 0, 0, 1]
    assert _problems(store, receipts) == []
    assert backend.read("vector__next")[500] is None


def test_rows_that_an_index_leaves_out_do_not_move_the_parts_that_follow(tmp_path: Path) -> None:
    backend = FaissBackend(tmp_path / "db")
    backend.create(list(range(ROWS)), _vectors(ROWS))
    backend.path.with_suffix(".parquet").unlink()
    store: Any = backend.open()

    def all_but_five(rows: Rows) -> Produced:
        return Produced(_lift(rows.vectors), rows.ids.to_numpy() != 5)

    receipts: dict[str, Receipt] = {}
    _write(store, receipts, all_but_five)
    assert [one.nulls for one in receipts.values()] == [1, 0, 0, 0]
    assert _problems(store, receipts) == []


@pytest.mark.parametrize("kind", [pa.float16(), pa.float64()], ids=str)
def test_digests_are_of_what_the_column_gives_back(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "items.parquet"
    values = pa.array(_vectors(60).astype(np.float16).reshape(-1)).cast(kind)
    column = pa.FixedSizeListArray.from_arrays(values, 8)
    pq.write_table(pa.table({"id": range(60), "vector": column}), path)
    store, receipts = open_store(f"parquet://{path}#vector"), dict[str, Receipt]()
    rounds = Making()

    def thirds(rows: Rows) -> Produced:
        made = rounds(rows)
        return Produced(made.vectors / 3, made.valid)

    _write(store, receipts, thirds)
    assert _problems(store, receipts) == []


def test_an_index_that_is_trained_reads_the_vectors_several_times(tmp_path: Path) -> None:
    backend = FaissBackend(tmp_path / "db")
    backend.create(list(range(ROWS)), _vectors(ROWS))
    backend.index("l2")
    store: Any = backend.open()
    assert not store.writes_once(STAGED)


@pytest.mark.parametrize("at", [0, 5, 11])
def test_an_error_in_the_middle_leaves_nothing_behind(store: Any, backend: Backend, at: int) -> None:
    left = [at]

    def make(rows: Rows) -> Produced:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return Making()(rows)

    with pytest.raises(KeyboardInterrupt):
        _write(store, {}, make)
    assert _threads() == []
    assert not list(backend.folder.rglob("vector__next*"))
    assert len(store.pending(STAGED, {})) == 4
    receipts: dict[str, Receipt] = {}
    _write(store, receipts)
    assert _problems(store, receipts) == []


def test_an_error_of_the_writer_ends_the_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ParquetBackend(tmp_path / "db")
    backend.create(list(range(ROWS)), _vectors(ROWS))
    store: Any = backend.open()
    honest, left = pq.ParquetWriter.write_table, iter(range(2))

    def full(self: Any, *values: Any, **options: Any) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        honest(self, *values, **options)

    receipts: dict[str, Receipt] = {}
    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(OutOfSpace, match="the disk was full"):
            _write(store, receipts)
    assert _threads() == []
    assert not list(backend.folder.rglob("vector__next*"))
    _write(store, receipts)
    assert _problems(store, receipts) == []


def test_vectors_of_another_dimension_are_refused(store: Any, backend: Backend) -> None:
    with pytest.raises(InvalidVectors, match=r"expected new vectors \(17, 12\), got \(17, 8\)"):
        _write(store, {}, lambda rows: Produced(rows.vectors, ~rows.null))
    assert not list(backend.folder.rglob("vector__next*"))


def test_damage_to_the_new_file_is_found(store: Any, backend: Backend) -> None:
    receipts: dict[str, Receipt] = {}
    _write(store, receipts)
    path = _new_file(backend)
    content, times = path.read_bytes(), path.stat()
    spot = content.index(backend.read("vector__next")[120].tobytes())
    for change in (content[:spot] + bytes([content[spot] ^ 1]) + content[spot + 1 :], content[:-9]):
        path.write_bytes(change)
        assert _problems(backend.open(), receipts) == [
            f"file {path.name} has other content than was written"
        ] * len(receipts)
        assert len(backend.open().pending(STAGED, receipts)) == 4
    path.write_bytes(content[:spot] + bytes([content[spot] ^ 1]) + content[spot + 1 :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    [found] = _problems(backend.open(), receipts)
    assert found == f"file {path.name} has other content in part 2 than was written"
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert all("cannot be read" in one for one in _problems(backend.open(), receipts))
    path.unlink()
    assert _problems(backend.open(), receipts) == [f"file {path.name} is gone"] * len(receipts)
    opened = backend.open()
    _write(opened, receipts)
    assert path.read_bytes() == content


class Reading:
    """Counts the vectors that are read from the old file."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows, kind = 0, type(store._content())
        honest = kind.batches

        def batches(content: Any, *values: Any, **options: Any) -> Any:
            for batch in honest(content, *values, **options):
                self.rows += len(batch)
                yield batch

        monkeypatch.setattr(kind, "batches", batches)


def test_the_old_vectors_are_read_once(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, receipts = Reading(store, monkeypatch), dict[str, Receipt]()
    assert len(store.pending(STAGED, receipts)) == len(store.parts(STAGED)) == 4
    assert reading.rows == 0
    _write(store, receipts)
    assert store.publish(STAGED, receipts) == []
    assert store.pending(STAGED, receipts) == []
    assert reading.rows == ROWS


def test_digests_are_those_of_a_file_that_was_read_beforehand(store: Any, backend: Backend) -> None:
    store.digest_parts(STAGED)
    wanted = {one.key: one.source for one in store.parts(STAGED)}
    store.drop_new(STAGED)
    assert {one.key: one.source for one in store.parts(STAGED)} != wanted
    receipts: dict[str, Receipt] = {}
    _write(store, receipts)
    assert {key: one.source for key, one in receipts.items()} == wanted
    assert {one.key: one.source for one in backend.open().parts(STAGED)} == wanted
    store.drop_new(STAGED)
    [part, *_] = store.parts(STAGED)
    assert store.write_part(part, STAGED, Making(), rows=17).source == wanted[part.key]


def test_a_file_that_is_replaced_after_it_was_listed(store: Any, backend: Backend) -> None:
    listed = store.parts(STAGED)
    backend.delete([60])
    again = store.parts(STAGED)
    assert [one.rows for one in again] == [51, 50, 51, 50]
    assert not {one.source for one in again} & {one.source for one in listed}
    receipts: dict[str, Receipt] = {}
    assert _write(store, receipts) == [one for one in range(ROWS) if one != 60]
    backend.delete([61])
    assert [one.key for one in store.pending(STAGED, receipts)] == ["1"]


def test_a_file_that_is_replaced_while_it_is_read(store: Any, backend: Backend) -> None:
    """What was read is what is remembered, so that what differs from it is written again."""
    receipts, making, left = dict[str, Receipt](), Making(), [4]

    def make(rows: Rows) -> Produced:
        left[0] -= 1
        if left[0] == 0:
            backend.replace([10, 190], _vectors(2, 7))
        return making(rows)

    _write(store, receipts, make)
    assert making.ids == list(range(ROWS))
    assert {one.key for one in store.publish(STAGED, receipts)} == {"0", "3"}
    _write(store, receipts)
    assert store.switch(STAGED, receipts) == []
    wanted = store.stored(_lift(_vectors(2, 7)), STAGED)
    np.testing.assert_array_equal(np.stack([backend.read()[10], backend.read()[190]]), wanted)


def test_killed_before_the_parts_are_remembered_it_starts_over(
    store: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference: dict[str, Receipt] = {}
    _write(store, reference)
    expected = _new_file(backend).read_bytes()
    store.drop_new(STAGED)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for moment in ((Listing, "remember"), (Assembly, "write")):
        store.parts(STAGED)
        with monkeypatch.context() as patched:
            patched.setattr(*moment, killed)
            with pytest.raises(KeyboardInterrupt):
                _write(store, {})
        assert _new_file(backend).exists()
        again, receipts = backend.open(), dict[str, Receipt]()
        assert len(again.pending(STAGED, receipts)) == 4
        assert _write(again, receipts) == list(range(ROWS))
        assert receipts == reference
        assert _new_file(backend).read_bytes() == expected
        assert _problems(again, receipts) == []
        store.drop_new(STAGED)
