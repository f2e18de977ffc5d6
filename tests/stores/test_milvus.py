"""What is particular to Milvus, on a server of Milvus Lite and on a file of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="pymilvus is not installed")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
import grpc
import milvus_backend
from pymilvus import DataType, MilvusClient
from shop_upgrade import STAGED, build, lift, produce, switch

from crossfade.errors import NotSupported, StoreError, UsageError
from crossfade.stores import IndexInfo, Produced, Receipt, Rows, milvus_server, open_store
from crossfade.stores.milvus import Milvus
from crossfade.stores.milvus_schema import FieldIndex

ROWS = 60
VECTORS = np.random.default_rng(0).standard_normal((ROWS + 10, 4)).astype(np.float32)
IDS = [f'it\'s "{one}" \\ größe' for one in range(ROWS + 10)]


class Shop:
    """A collection of items behind the alias ``items``, and an upgrade of it."""

    def __init__(self, client: Any, place: str, alias: bool = True, **schema: Any) -> None:
        self.client, self.uri = client, f"{place}#items.a"
        fields = client.create_schema(auto_id=False, enable_dynamic_field=True, **schema)
        fields.add_field("sku", DataType.VARCHAR, max_length=60, is_primary=True)
        fields.add_field("price", DataType.INT64, nullable=True)
        fields.add_field("about", DataType.JSON)
        fields.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=9)
        fields.add_field("a", DataType.FLOAT_VECTOR, dim=4)
        fields.add_field("b", DataType.FLOAT_VECTOR, dim=2)
        fields.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        wanted = client.prepare_index_params()
        wanted.add_index("a", index_type="HNSW", metric_type="IP", params={"M": 8, "efConstruction": 40})
        wanted.add_index("b", index_type="FLAT", metric_type="L2")
        wanted.add_index("price", index_type="INVERTED")
        wanted.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        client.create_collection("items_v1", schema=fields, properties={"owner": "shop"})
        client.create_index("items_v1", wanted, sync=False)
        client.load_collection("items_v1")
        if alias:
            client.create_alias("items_v1", "items")
        self.put("items_v1", range(ROWS))

    def put(self, name: str, numbers: Any, scale: float = 1, new: bool = False, **others: Any) -> None:
        rows = []
        for one in numbers:
            vector = scale * (lift(VECTORS[[one]])[0] if new else VECTORS[one])
            row = {"sku": IDS[one], "price": None, "about": {"größe": [one, {"x": None}]}, "tags": ["t", "ü"]}
            row |= {"a": vector.tolist(), "b": [float(one), 1.0], "words": {one: 0.5, 7: 1.5}}
            rows.append({**row, **others})
        self.client.upsert(name, rows)

    def delete(self, *numbers: int) -> None:
        for one in numbers:
            self.client.delete("items", filter=f"sku == {json.dumps(IDS[one], ensure_ascii=False)}")

    def read(self, name: str = "items") -> dict[int, Any]:
        rows = self.client.query(
            name, filter="sku != ''", output_fields=["*"], limit=1000, consistency_level="Strong"
        )
        return {IDS.index(one["sku"]): dict(one) for one in rows}

    def build(self) -> tuple[Any, dict[str, Receipt]]:
        return build(self.uri)

    def clear(self) -> None:
        """Drop everything."""
        for name in self.client.list_aliases()["aliases"]:
            self.client.drop_alias(name)
        for name in self.client.list_collections():
            self.client.drop_collection(name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of its own on the tests' server."""
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))
    name = f"shop_{abs(hash(str(tmp_path)))}"
    milvus_backend.client().create_database(name)
    return f"milvus://{milvus_backend.server()}/{name}"


@pytest.fixture
def shop(place: str) -> Iterator[Shop]:
    client = MilvusClient(f"http://{milvus_backend.server()}", db_name=place.rpartition("/")[2])
    made = Shop(client, place)
    yield made
    made.clear()


def test_all_fields_indexes_and_settings_go_along(shop: Shop) -> None:
    before, was = shop.read(), shop.client.describe_collection("items_v1")
    store, receipts = shop.build()
    switch(store, receipts)
    after, now = shop.read(), shop.client.describe_collection("items")
    assert set(after) == set(range(ROWS))
    for number, row in after.items():
        np.testing.assert_array_equal(np.float32(row.pop("a")), lift(VECTORS[[number]])[0])
        before[number].pop("a")
        assert row == before[number]
    sizes = {one["name"]: one["params"].get("dim") for one in now["fields"]}
    assert (sizes["a"], sizes["b"]) == (6, 2)
    without = [{**one, "params": {}} for one in was["fields"]]
    assert [{**one, "params": {}} for one in now["fields"]] == without
    assert now["enable_dynamic_field"]
    assert now["properties"]["owner"] == "shop"
    kinds = {
        one: shop.client.describe_index("items", one)["index_type"]
        for one in shop.client.list_indexes("items")
    }
    assert kinds == {"a": "HNSW", "b": "FLAT", "price": "INVERTED", "words": "SPARSE_INVERTED_INDEX"}


def test_what_is_written_in_the_instant_of_the_switch_is_brought_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look at the old collection a row is changed, one added, one deleted."""
    store, receipts = shop.build()
    real = Milvus._move

    def move(self: Milvus, *arguments: Any, **options: Any) -> None:
        shop.put("items", [3], scale=5)
        shop.put("items", [ROWS])
        shop.delete(4)
        real(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Milvus, "_move", move)
        assert store.switch(STAGED, receipts)
    switch(store, receipts)
    after = shop.read()
    assert set(after) == set(range(ROWS + 1)) - {4}
    np.testing.assert_array_equal(np.float32(after[3]["a"]), lift(5 * VECTORS[[3]])[0])
    np.testing.assert_array_equal(np.float32(after[ROWS]["a"]), lift(VECTORS[[ROWS]])[0])


def test_going_back_keeps_what_the_application_did_meanwhile(shop: Shop) -> None:
    """A row that came after the switch has no old vector, so it waits in the new collection."""
    store, receipts = shop.build()
    switch(store, receipts)
    shop.put("items", [7], new=True, price=99, about={}, colour="red")
    shop.put("items", [ROWS], new=True)
    shop.delete(8)
    store.switch_back(STAGED)
    back = shop.read()
    assert set(back) == set(range(ROWS)) - {8}
    assert (back[7]["price"], back[7]["about"], back[7]["colour"]) == (99, {}, "red")
    np.testing.assert_array_equal(np.float32(back[7]["a"]), VECTORS[7])
    assert store.count_null("a") == 1
    with pytest.raises(StoreError, match=r"1 rows are only in the new collection.*60.*add them to the old"):
        store.drop_new(STAGED)
    switch(store, receipts)
    np.testing.assert_array_equal(np.float32(shop.read()[ROWS]["a"]), lift(VECTORS[[ROWS]])[0])
    store.switch_back(STAGED)
    shop.put("items", [ROWS])
    assert store.count_null("a") == 0
    store.drop_new(STAGED)
    assert shop.client.list_collections() == ["items_v1"]


def test_a_name_that_left_a_row_leaves_the_new_one_too(shop: Shop) -> None:
    shop.put("items", [5], colour="red")
    store, receipts = shop.build()
    shop.client.delete("items", filter='colour == "red"')
    shop.put("items", [5])
    switch(store, receipts)
    assert "colour" not in shop.read()[5]


def test_only_changed_rows_are_written_again(shop: Shop) -> None:
    store, receipts = shop.build()
    shop.put("items", [3], scale=5)
    seen: list[str] = []

    def watch(rows: Rows) -> Produced:
        seen.extend(rows.ids.to_pylist())
        return produce(rows)

    for part in store.pending(STAGED, receipts):
        store.write_part(part, STAGED, watch, rows=7)
    assert seen == [IDS[3]]


def test_rows_that_get_no_new_vector_are_named_and_stay(shop: Shop) -> None:
    def all_but_one(rows: Rows) -> Produced:
        made = produce(rows)
        return Produced(made.vectors, np.array([one != IDS[5] for one in rows.ids.to_pylist()]))

    store = open_store(shop.uri)
    part = store.parts(STAGED)[0]
    with pytest.raises(StoreError, match=r"1 rows get no new vector \(.*5.*\), and this collection keeps"):
        store.write_part(part, STAGED, all_but_one)
    assert len(shop.read()) == ROWS


def test_a_collection_without_an_alias_is_refused_before_anything_is_written(shop: Shop) -> None:
    shop.client.drop_alias("items")
    store = open_store(shop.uri.replace("#items", "#items_v1"))
    assert [one.kind for one in store.obstacles()] == ["alias"]
    with pytest.raises(NotSupported, match=r"'items_v1' is a collection, not an alias.*make an alias for it"):
        store.write_part(store.parts(STAGED)[0], STAGED, produce)
    assert shop.client.list_collections() == ["items_v1"]


def test_what_cannot_be_copied_is_found_before_anything_is_written(shop: Shop) -> None:
    shop.client.create_partition("items_v1", "summer")
    shop.client.alter_collection_properties("items_v1", {"collection.ttl.seconds": "3600"})
    store = open_store(shop.uri)
    assert [(one.kind, one.blocks) for one in store.obstacles()] == [
        ("partitions", True),
        ("lifetime", False),
    ]
    with pytest.raises(NotSupported, match="rows would lose theirs: summer"):
        store.write_part(store.parts(STAGED)[0], STAGED, produce)
    fields = shop.client.create_schema(auto_id=True)
    fields.add_field("id", DataType.INT64, is_primary=True)
    fields.add_field("a", DataType.FLOAT_VECTOR, dim=4, nullable=True)
    shop.client.create_collection("counted_v1", schema=fields)
    shop.client.load_collection("counted_v1")
    shop.client.create_alias("counted_v1", "counted")
    found = open_store(shop.uri.replace("#items", "#counted")).obstacles()
    assert [(one.kind, one.blocks) for one in found] == [("ids", True), ("null vectors", True)]


def test_an_empty_collection_is_upgraded(shop: Shop) -> None:
    shop.delete(*range(ROWS))
    store, receipts = shop.build()
    assert store.describe().rows == 0
    switch(store, receipts)
    assert open_store(shop.uri).describe().dimension == 6
    shop.put("items", [1], new=True)
    assert set(shop.read()) == {1}


def test_index_parameters_as_a_server_names_them() -> None:
    found = {
        "M": "8",
        "efConstruction": "40",
        "metric_type": "COSINE",
        "index_type": "HNSW",
        "mmap.enabled": "1x",
    }
    found |= {
        "field_name": "a",
        "index_name": "mine",
        "total_rows": 9,
        "indexed_rows": 5,
        "state": "Finished",
    }
    index = FieldIndex.read({**found, "pending_index_rows": 4})
    assert index.info() == IndexInfo("mine", "HNSW", "cosine", {"M": 8, "efConstruction": 40}, 5)
    assert index.pending == 4
    assert index.for_vectors("l2", 4, 6).parameters == {
        "M": "8",
        "efConstruction": "40",
        "mmap.enabled": "1x",
    }
    codes = FieldIndex("a", "mine", "IVF_PQ", "L2", {"nlist": "16", "m": "4"}, 0, 0)
    assert codes.for_vectors("dot", 64, 96) == FieldIndex(
        "a", "mine", "IVF_PQ", "IP", {"nlist": "16", "m": 6}, 0, 0
    )


def test_another_index_of_the_old_collection_is_followed(shop: Shop) -> None:
    store, _ = shop.build()
    shop.client.release_collection("items_v1")
    shop.client.drop_index("items_v1", "a")
    wanted = shop.client.prepare_index_params()
    wanted.add_index("a", index_type="IVF_FLAT", metric_type="IP", params={"nlist": 4})
    shop.client.create_index("items_v1", wanted, sync=False)
    shop.client.load_collection("items_v1")
    store.build_index(STAGED, store.describe().index)
    new = shop.client.describe_index("items__crossfade_u1", "a")
    assert (new["index_type"], new["metric_type"]) == ("IVF_FLAT", "IP")


def test_a_collection_that_a_crash_left_half_made_is_made_again(shop: Shop) -> None:
    fields = shop.client.create_schema()
    fields.add_field("id", DataType.INT64, is_primary=True)
    fields.add_field("a", DataType.FLOAT_VECTOR, dim=3)
    shop.client.create_collection("items__crossfade_u1", schema=fields)
    store, receipts = shop.build()
    switch(store, receipts)
    assert len(shop.read()) == ROWS


def test_another_home_does_not_touch_a_collection_in_use(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store, receipts = shop.build()
    switch(store, receipts)
    monkeypatch.setenv("CROSSFADE_HOME", "elsewhere")
    with pytest.raises(StoreError, match="knows nothing of it; set CROSSFADE_HOME"):
        store.write_part(store.parts(STAGED)[0], STAGED, produce)
    assert len(shop.read()) == ROWS


def test_bad_addresses(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such collection or alias"):
        open_store(shop.uri.replace("#items", "#nothing"))
    with pytest.raises(
        UsageError, match=r"no field 'words' of type FLOAT_VECTOR in the collection; it has 'a', 'b'"
    ):
        open_store(shop.uri.replace("items.a", "items.words"))
    with pytest.raises(UsageError, match="no field '' of type FLOAT_VECTOR"):
        open_store(shop.uri.replace("items.a", "items"))
    with pytest.raises(UsageError, match="rows are known by 'sku', their primary key"):
        open_store(f"{shop.uri}?id=price")
    with pytest.raises(UsageError, match=r"a file of Milvus Lite ends in \.db"):
        open_store(f"milvus://{tmp_path}/items#items.a")
    with pytest.raises(StoreError, match="no such file"):
        open_store(f"milvus://{tmp_path}/items.db#items.a")
    assert list(tmp_path.glob("*.db")) == []


def test_a_server_that_does_not_answer_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfade.stores.milvus_server.CONNECT_SECONDS", 1)
    with pytest.raises(StoreError, match="did not answer") as caught:
        open_store("milvus://root:secret@127.0.0.1:9#items.a")
    assert "secret" not in str(caught.value)
    assert "***@127.0.0.1:9" in str(caught.value)


class Denying(grpc.ServerInterceptor):
    """Refuses to drop aliases, in the way of a server that knows who may."""

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if not details.method.endswith("/DropAlias"):
            return handler

        def deny(_request: Any, context: Any) -> Any:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "PrivilegeDropAlias: permission deny to reader")

        return grpc.unary_unary_rpc_method_handler(
            deny, handler.request_deserializer, handler.response_serializer
        )


def test_an_account_that_may_not_move_aliases_is_called_read_only(tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.servicer import MilvusServicer
    from milvus_lite.db import MilvusLite
    from pymilvus.grpc_gen import milvus_pb2_grpc

    database = MilvusLite(str(tmp_path / "data"))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[Denying()])
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        Shop(MilvusClient(f"http://127.0.0.1:{port}"), f"milvus://127.0.0.1:{port}")
        assert not open_store(f"milvus://127.0.0.1:{port}#items.a").describe().writable
    finally:
        server.stop(None)
        database.close()


def test_a_file_of_milvus_lite(tmp_path: Path) -> None:
    """What belongs to the upgrade lies beside the file; whoever comes later goes on."""
    from milvus_lite import MilvusLite
    from milvus_lite.server_manager import server_manager_instance

    path = str(tmp_path / "shop.db")
    shop = Shop(MilvusClient(path), f"milvus://{path}")
    store, _ = shop.build()
    assert store.journal.parent == tmp_path / ".crossfade" / "milvus" / "shop%2Edb" / "items" / "a"
    server_manager_instance.release_server(path)
    milvus_server._client.cache_clear()
    with MilvusLite(path), pytest.raises(StoreError, match=r"is it open in another process\?"):
        open_store(shop.uri)
    again, receipts = open_store(shop.uri), {}
    switch(again, receipts)
    assert (again.describe().dimension, again.describe().rows) == (6, ROWS)
    server_manager_instance.release_server(path)
