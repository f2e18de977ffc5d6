"""What is particular to a plain Parquet file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.errors import DimensionMismatch, InvalidVectors, StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores import Produced, Receipt, Rows, Staged, durable, open_store, parquet
from crossfade.stores.file_versions import Versions

OLD, NEW = Space("old-model", 4, "dot"), Space("new-model", 6, "dot")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")


def _lift(old: np.ndarray) -> np.ndarray:
    return np.hstack([old, old[:, :2] * 2]).astype(np.float32)


def _produce(rows: Rows) -> Produced:
    return Produced(_lift(np.nan_to_num(rows.vectors)), ~rows.null)


def _rows(count: int, kind: Any = None, seed: int = 0) -> pa.Table:
    vectors = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float16)
    column = pa.array(vectors.astype(np.float64).tolist(), type=kind or pa.list_(pa.float32(), 4))
    nested = pa.array([{"tags": ["a", "b"], "price": one} for one in range(count)])
    return pa.table({"größe": nested, "vector": column, "id": [f"id {one}" for one in range(count)]})


def _build(uri: str, part_rows: int = 30) -> tuple[Any, dict[str, Receipt]]:
    store: Any = open_store(uri)
    store.part_rows = part_rows
    receipts: dict[str, Receipt] = {}
    _write(store, receipts)
    assert store.publish(STAGED, receipts) == []
    return store, receipts


def _write(store: Any, receipts: dict[str, Receipt]) -> None:
    for part in store.pending(STAGED, receipts):
        receipts[part.key] = store.write_part(part, STAGED, _produce, rows=7)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my items.parquet"
    table = _rows(100).replace_schema_metadata({"owner": "us"})
    pq.write_table(table, path, row_group_size=40, compression={"größe.price": "zstd"})
    return path


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32(), 4),
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float16()),
    ],
    ids=str,
)
def test_the_column_keeps_its_kind_and_all_else_is_as_before(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(_rows(100, kind).replace_schema_metadata({"owner": "us"}), path, row_group_size=40)
    before = pq.read_table(path)
    store, receipts = _build(f"parquet://{path}#vector")
    assert store.switch(STAGED, receipts) == []
    after = pq.read_table(path)
    assert after.column_names == before.column_names
    assert after.drop(["vector"]).equals(before.drop(["vector"]), check_metadata=True)
    wanted = _lift(np.array(before.column("vector").to_pylist(), dtype=np.float32))
    np.testing.assert_array_equal(np.array(after.column("vector").to_pylist()), store.stored(wanted, STAGED))
    is_fixed = pa.types.is_fixed_size_list(kind)
    assert after.schema.field("vector").type == (
        pa.list_(pa.float32(), 6) if is_fixed else before.schema.field("vector").type
    )
    assert pq.ParquetFile(path).metadata.num_row_groups == 3


def test_compression_and_permissions_stay(file: Path) -> None:
    file.chmod(0o640)
    store, receipts = _build(f"parquet://{file}#vector")
    store.switch(STAGED, receipts)
    group = pq.ParquetFile(file).metadata.row_group(0)
    codecs = {group.column(n).path_in_schema: group.column(n).compression for n in range(group.num_columns)}
    assert codecs["größe.price"] == "ZSTD"
    assert file.stat().st_mode & 0o777 == 0o640


def test_statistics_are_kept_for_all_columns_but_the_vectors(file: Path) -> None:
    store, receipts = _build(f"parquet://{file}#vector")
    store.switch(STAGED, receipts)
    group = pq.ParquetFile(file).metadata.row_group(0)
    chunks = [group.column(number) for number in range(group.num_columns)]
    kept = {one.path_in_schema: one.is_stats_set for one in chunks}
    assert kept.pop("vector.list.element") is False
    assert kept == {"größe.price": True, "größe.tags.list.element": True, "id": True}


@pytest.mark.parametrize(("most", "lengths"), [(25, [20] * 5), (7, [7] * 14 + [2]), (1000, [40, 40, 20])])
def test_row_groups_are_bounded_and_made_of_whole_batches(
    file: Path, monkeypatch: pytest.MonkeyPatch, most: int, lengths: list[int]
) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", most * NEW.dimension * 4)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 10)
    pq.write_table(_rows(100), file, row_group_size=40)
    store, receipts = _build(f"parquet://{file}#vector")
    store.switch(STAGED, receipts)
    meta = pq.ParquetFile(file).metadata
    assert [meta.row_group(number).num_rows for number in range(meta.num_row_groups)] == lengths


def test_a_column_that_allows_no_nulls_stays_so(tmp_path: Path) -> None:
    path, table = tmp_path / "items.parquet", _rows(10)
    table = table.set_column(1, table.schema.field("vector").with_nullable(False), table.column("vector"))
    pq.write_table(table, path)
    store: Any = open_store(f"parquet://{path}#vector")
    [part] = store.parts(STAGED)
    receipts = {part.key: store.write_part(part, STAGED, _all_but_the_third)}
    with pytest.raises(InvalidVectors, match="'vector' is declared to hold no nulls, and 1 rows"):
        store.publish(STAGED, receipts)
    assert pq.read_table(path).equals(table)


def _all_but_the_third(rows: Rows) -> Produced:
    return Produced(_lift(rows.vectors), np.arange(len(rows)) != 2)


def test_the_new_file_is_hidden_from_readers_of_the_folder(file: Path) -> None:
    import pyarrow.dataset as ds

    _build(f"parquet://{file}#vector")
    assert ds.dataset(file.parent, format="parquet").files == [str(file)]


def test_the_space_travels_with_the_file(file: Path, tmp_path: Path) -> None:
    store, receipts = _build(f"parquet://{file}#vector")
    store.switch(STAGED, receipts)
    store.drop_old(STAGED)
    copied = tmp_path / "elsewhere.parquet"
    copied.write_bytes(file.read_bytes())
    assert open_store(f"parquet://{copied}#vector").space() == NEW


class _Killed(Exception):
    pass


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("at_once", [True, False], ids=["renameat2", "links"])
@pytest.mark.parametrize("back", [False, True], ids=["switch", "switch back"])
def test_a_switch_that_is_killed_is_one_or_the_other(
    file: Path, monkeypatch: pytest.MonkeyPatch, at: int, at_once: bool, back: bool
) -> None:
    """Killed before any of its renamings, the file is whole, and the next call finishes."""
    store, receipts = _build(f"parquet://{file}#vector")
    if not at_once:
        monkeypatch.setattr(durable, "_exchange_at_once", lambda one, other: False)
    if back:
        store.switch(STAGED, receipts)
    left, real, real_exchange = [at], Path.replace, durable._exchange_at_once

    def step(act: Any) -> Any:
        if left[0] == 0:
            raise _Killed
        left[0] -= 1
        return act()

    def replace(self: Path, target: Path) -> Path:
        return real(self, target) if self.suffix == ".new" else step(lambda: real(self, target))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        if at_once:
            patched.setattr(durable, "_exchange_at_once", lambda *names: step(lambda: real_exchange(*names)))
        with suppress(_Killed):
            store.switch_back(STAGED) if back else store.switch(STAGED, receipts)
    again: Any = open_store(f"parquet://{file}#vector")
    dimension = pq.read_schema(file).field("vector").type.list_size
    assert again.switched(STAGED) == (dimension == 6)
    assert again.space() == (NEW if dimension == 6 else OLD)
    again.switch_back(STAGED) if back else again.switch(STAGED, receipts)
    assert again.switched(STAGED) is not back
    assert sorted(one.name for one in again._versions.folder.iterdir() if one.suffix == ".parquet") == [
        "vector__next.parquet" if back else "vector__previous.parquet"
    ]


def test_a_file_that_is_replaced_in_the_instant_of_the_switch_is_not_lost(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, receipts = _build(f"parquet://{file}#vector")
    real, late = Versions.exchange, _rows(101, seed=1)

    def exchange(self: Versions, *names: Any) -> bool:
        monkeypatch.setattr(Versions, "exchange", real)
        draft = file.with_suffix(".draft")
        pq.write_table(late, draft)
        draft.replace(file)
        return real(self, *names)

    monkeypatch.setattr(Versions, "exchange", exchange)
    assert store.switch(STAGED, receipts)
    assert pq.read_table(file).equals(late)
    while store.switch(STAGED, receipts):
        _write(store, receipts)
    wanted = _lift(np.array(late.column("vector").to_pylist(), dtype=np.float32))
    np.testing.assert_array_equal(np.array(pq.read_table(file).column("vector").to_pylist()), wanted)


def test_writers_that_never_rest_are_asked_to(file: Path) -> None:
    store, receipts = _build(f"parquet://{file}#vector")
    pq.write_table(_rows(100, seed=2), file)
    with pytest.raises(StoreError, match=r"nothing was switched: let its writers pause for about \d+ s"):
        store.switch(STAGED, receipts, strict=False)


def test_rows_deleted_and_changed_since_the_switch_are_so_after_going_back(file: Path) -> None:
    store, receipts = _build(f"parquet://{file}#vector")
    before = {one["id"]: one["vector"] for one in pq.read_table(file).to_pylist()}
    store.switch(STAGED, receipts)
    live = pq.read_table(file)
    live = pa.concat_tables([live.slice(50), live.slice(0, 20)])
    live = live.set_column(0, live.schema.field(0), pa.array([None] * 70, live.schema.field(0).type))
    pq.write_table(live, file)
    store.switch_back(STAGED)
    after = {one["id"]: one for one in pq.read_table(file).to_pylist()}
    assert len(after) == 70
    assert all(row["vector"] == before[one] and row["größe"] is None for one, row in after.items())


def test_parts_stand_still_when_rows_come_and_go(file: Path) -> None:
    store, receipts = _build(f"parquet://{file}#vector", part_rows=30)
    assert [one.rows for one in store.parts(STAGED)] == [30, 30, 30, 10]
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table.slice(0, 5), table.slice(6)]), file)
    assert [one.key for one in store.pending(STAGED, receipts)] == ["0"]
    more = _rows(300).slice(100)
    pq.write_table(pa.concat_tables([table, more]), file)
    assert [one.rows for one in store.parts(STAGED)] == [30, 30, 30, 60, 60, 60, 30]
    assert [one.key for one in store.pending(STAGED, receipts)] == ["3", "4", "5", "6"]


def test_names(tmp_path: Path) -> None:
    path = tmp_path / 'a "b" c#d.parquet'
    table = _rows(20).rename_columns(["größe", 'x.y "z"', "the id"])
    pq.write_table(table, path)
    store = open_store(f'parquet://{path}#"x.y ""z"""?id=the%20id')
    assert store.describe().payload == ("größe",)
    assert [len(batch) for batch in store.scan()] == [20]
    with pytest.raises(UsageError, match="a file holds one table"):
        open_store(f"parquet://{path}#items.vector")
    with pytest.raises(UsageError, match="no column 'sku' for the ids"):
        open_store(f'parquet://{path}#"x.y ""z"""?id=sku')


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    with pytest.raises(StoreError, match="no such file"):
        open_store(f"parquet://{path}#vector")
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(StoreError, match="cannot be read as Parquet"):
        open_store(f"parquet://{path}#vector")
    mixed = pa.table({"id": [1, 2], "vector": pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32()))})
    pq.write_table(mixed, path)
    with pytest.raises(DimensionMismatch, match="row 1 has 1 dimensions, expected 2"):
        list(open_store(f"parquet://{path}#vector").scan())
    pq.write_table(mixed.drop(["id"]), path)
    with pytest.raises(UsageError, match="no column 'id'; name the one"):
        list(open_store(f"parquet://{path}#vector").scan())
    with pytest.raises(UsageError, match="no column 'vektor'"):
        open_store(f"parquet://{path}#vektor")


def test_an_empty_file_is_described(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(_rows(0), path)
    found = open_store(f"parquet://{path}#vector").describe()
    assert (found.rows, found.parts, found.writable) == (0, 1, os.access(path, os.W_OK))
