"""What is particular to Chroma, on a server and in a folder."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="chromadb is not installed")
import chroma_backend
import chromadb
import chromadb.errors
from shop_upgrade import NEW, OLD, STAGED, build, lift, produce, switch

from crossfade.errors import StoreError, UsageError
from crossfade.stores import Produced, Receipt, Rows, Staged, open_store
from crossfade.stores.chroma import Chroma
from crossfade.stores.chroma_collection import ChromaCollection

ROWS = 40
VECTORS = np.random.default_rng(0).standard_normal((ROWS + 10, 4)).astype(np.float32)
IDS = [f'it\'s "{one}" \\ größe' for one in range(ROWS + 10)]
SETTINGS = {"hnsw": {"space": "ip", "ef_construction": 55, "ef_search": 44, "max_neighbors": 9}}


class Shop:
    """A collection of items, and an upgrade of it."""

    def __init__(self, client: Any, place: str, **options: Any) -> None:
        self.client, self.name = client, f"items-{uuid.uuid4().hex[:6]}"
        self.uri = f"{place}#{self.name}"
        options = {"configuration": SETTINGS, "metadata": {"owner": "shop"}, **options}
        client.create_collection(self.name, embedding_function=None, **options)
        self.put(range(ROWS))

    def collection(self, ending: str = "") -> Any:
        return self.client.get_collection(self.name + ending, embedding_function=None)

    def put(self, numbers: Any, scale: float = 1, new: bool = False, held: Any = None, **others: Any) -> None:
        """Records with a document (but every third), a URI (every second) and metadata (but every fifth)."""
        alike: dict[tuple[bool, ...], list[int]] = {}
        for one in numbers:
            alike.setdefault((bool(one % 5 or others), bool(one % 3), bool(one % 2)), []).append(one)
        for (has_metadata, has_document, has_uri), rows in alike.items():
            columns: dict[str, Any] = {}
            if has_metadata:
                columns["metadatas"] = [{"größe": one, "tags": ["ü", "x"], **others} for one in rows]
            if has_document:
                columns["documents"] = [f"about {one}" for one in rows]
            if has_uri:
                columns["uris"] = [f"file:{one}" for one in rows]
            vectors = scale * (lift(VECTORS[rows]) if new else VECTORS[rows])
            (held or self.collection()).upsert([IDS[one] for one in rows], vectors, **columns)

    def delete(self, *numbers: int) -> None:
        self.collection().delete([IDS[one] for one in numbers])

    def read(self, ending: str = "") -> dict[int, tuple[Any, ...]]:
        names = ("embeddings", "metadatas", "documents", "uris")
        found = self.collection(ending).get(include=list(names))
        absent = [None] * len(found["ids"])
        rows = zip(*(absent if found[name] is None else found[name] for name in names), strict=True)
        made = {IDS.index(one): row for one, row in zip(found["ids"], rows, strict=True)}
        return {one: (np.asarray(row[0], dtype=np.float32), *row[1:]) for one, row in made.items()}

    def names(self) -> set[str]:
        """What the names of the shop's collections end in."""
        found = {one.name for one in self.client.list_collections()}
        return {one.removeprefix(self.name) for one in found if one.startswith(self.name)}

    def build(self) -> tuple[Any, dict[str, Receipt]]:
        return build(self.uri)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))
    return Shop(chroma_backend.client(), f"chroma://{chroma_backend.server()}")


def test_documents_metadata_and_settings_go_along(shop: Shop) -> None:
    before = shop.read()
    store, receipts = shop.build()
    assert store.describe().payload == ("größe", "tags", "chroma:document", "chroma:uri")
    switch(store, receipts)
    after = shop.read()
    assert set(after) == set(range(ROWS))
    for number, (vector, *others) in after.items():
        np.testing.assert_array_equal(vector, lift(VECTORS[[number]])[0])
        assert others == list(before[number][1:])
    now = shop.collection()
    assert now.metadata["owner"] == "shop"
    kept = {name: now.configuration_json["hnsw"][name] for name in SETTINGS["hnsw"]}
    assert kept == SETTINGS["hnsw"]


def test_what_is_written_in_the_instant_of_the_switch_is_brought_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look at the old collection a record is changed, one added, one deleted."""
    store, receipts = shop.build()
    real = Chroma._move

    def move(self: Chroma, *arguments: Any, **options: Any) -> None:
        shop.put([3], scale=5)
        shop.put([ROWS])
        shop.delete(4)
        real(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Chroma, "_move", move)
        assert store.switch(STAGED, receipts)
    switch(store, receipts)
    after = shop.read()
    assert set(after) == set(range(ROWS + 1)) - {4}
    np.testing.assert_array_equal(after[3][0], lift(5 * VECTORS[[3]])[0])
    np.testing.assert_array_equal(after[ROWS][0], lift(VECTORS[[ROWS]])[0])


def test_going_back_keeps_what_the_application_did_meanwhile(shop: Shop) -> None:
    """A record that came after the switch has no old vector, so it waits in the new collection."""
    store, receipts = shop.build()
    switch(store, receipts)
    shop.put([7], new=True, price=99)
    shop.put([ROWS], new=True)
    shop.delete(8)
    store.switch_back(STAGED)
    back = shop.read()
    assert set(back) == set(range(ROWS)) - {8}
    assert back[7][1] == {"größe": 7, "tags": ["ü", "x"], "price": 99}
    np.testing.assert_array_equal(back[7][0], VECTORS[7])
    assert store.count_null("vector") == 1
    with pytest.raises(StoreError, match=r"1 rows are only in the new collection.*40.*add them to the old"):
        store.drop_new(STAGED)
    switch(store, receipts)
    np.testing.assert_array_equal(shop.read()[ROWS][0], lift(VECTORS[[ROWS]])[0])
    store.switch_back(STAGED)
    shop.put([ROWS])
    assert store.count_null("vector") == 0
    store.drop_new(STAGED)
    assert shop.names() == {""}


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("back", [False, True])
def test_a_kill_between_the_renames_loses_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    store, receipts = shop.build()
    if back:
        switch(store, receipts)

    def die(self: ChromaCollection, name: str) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(ChromaCollection, "rename", die)
        with pytest.raises(Killed):
            store.switch_back(STAGED) if back else store.switch(STAGED, receipts)
    assert shop.names() == {"__crossfade_u1", "__previous_u1"}
    again: Any = open_store(shop.uri)
    assert shop.names() == {"", "__crossfade_u1"}
    assert not again.switched(STAGED)
    np.testing.assert_array_equal(shop.read()[5][0], VECTORS[5])
    switch(again, receipts)
    np.testing.assert_array_equal(shop.read()[5][0], lift(VECTORS[[5]])[0])
    again.switch_back(STAGED)
    again.drop_new(STAGED)
    assert shop.names() == {""}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("writes", [False, True])
def test_a_collection_made_by_others_between_the_renames_is_set_aside(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, killed: bool, writes: bool
) -> None:
    """Applications make the collection that they do not find; what they write into it is not deleted."""
    store, receipts = shop.build()
    real = ChromaCollection.rename

    def rename(self: ChromaCollection, name: str) -> None:
        monkeypatch.setattr(ChromaCollection, "rename", real)
        made = shop.client.get_or_create_collection(shop.name, embedding_function=None)
        if writes:
            made.add(["mine"], [[1.0, 2.0, 3.0, 4.0]])
        if killed:
            raise Killed
        real(self, name)

    monkeypatch.setattr(ChromaCollection, "rename", rename)
    if killed:
        with pytest.raises(Killed):
            store.switch(STAGED, receipts)
        store = open_store(shop.uri)
        np.testing.assert_array_equal(shop.read()[5][0], VECTORS[5])
    switch(store, receipts)
    assert set(shop.read()) == set(range(ROWS))
    np.testing.assert_array_equal(shop.read()[5][0], lift(VECTORS[[5]])[0])
    stray = shop.names() - {"", "__previous_u1"}
    assert len(stray) == 1
    assert [one.kind for one in store.obstacles()] == ["pause", "held", "stray"]
    store.drop_old(STAGED)
    assert shop.names() == ({"", *stray} if writes else {""})


def test_what_clients_write_that_hold_the_old_collection_is_not_deleted(shop: Shop) -> None:
    store, receipts = shop.build()
    held = shop.collection()
    switch(store, receipts)
    shop.put([3], scale=5, held=held)
    shop.put([ROWS], held=held)
    held.delete([IDS[4]])
    with pytest.raises(StoreError, match=r"3 records were written to the old collection after the switch"):
        store.drop_old(STAGED)
    store.switch_back(STAGED)
    switch(store, receipts)
    store.drop_old(STAGED)
    after = shop.read()
    assert set(after) == set(range(ROWS + 1)) - {4}
    np.testing.assert_array_equal(after[3][0], lift(5 * VECTORS[[3]])[0])
    assert shop.names() == {""}


def test_what_leaves_a_record_leaves_the_new_one_too(shop: Shop) -> None:
    store, receipts = shop.build()
    shop.collection().update([IDS[7]], metadatas=[{"tags": None}])
    shop.delete(8)
    shop.collection().add([IDS[8]], VECTORS[[8]])
    switch(store, receipts)
    assert shop.read()[7][1:] == ({"größe": 7}, "about 7", "file:7")
    assert shop.read()[8][1:] == (None, None, None)


def test_rows_that_get_no_new_vector_are_named_and_stay(shop: Shop) -> None:
    def all_but_one(rows: Rows) -> Produced:
        made = produce(rows)
        return Produced(made.vectors, np.array([one != IDS[5] for one in rows.ids.to_pylist()]))

    store = open_store(shop.uri)
    part = store.parts(STAGED)[0]
    with pytest.raises(StoreError, match=r"1 rows get no new vector \(.*5.*\), and this collection keeps"):
        store.write_part(part, STAGED, all_but_one)
    assert len(shop.read()) == ROWS


def test_cosine_and_metadata_of_earlier_versions(shop: Shop) -> None:
    """A collection whose settings stand in its metadata, which then cannot be changed; rounded vectors."""
    legacy = {"hnsw:space": "cosine", "hnsw:M": 9, "owner": "shop"}
    other = Shop(shop.client, shop.uri.partition("#")[0], configuration=None, metadata=legacy)
    staged = Staged("n", "p", OLD.with_metric("cosine"), NEW.with_metric("cosine"), "u2")
    store: Any = open_store(other.uri)
    receipts = {one.key: store.write_part(one, staged, produce) for one in store.parts(staged)}
    assert store.publish(staged, receipts) == []
    assert [store.check_part(one) for one in receipts.values()] == [None]
    assert store.pending(staged, receipts) == []
    assert store.switch(staged, receipts) == []
    found = store.search(lift(VECTORS[:9]), 1, staged.new)
    assert [one.ids[0].as_py() for one in found] == IDS[:9]
    np.testing.assert_allclose([one.scores[0] for one in found], 1, atol=1e-5)
    store.switch_back(staged)
    assert store.space() == staged.old
    assert other.collection().metadata == legacy
    index = other.collection("__crossfade_u2").configuration_json["hnsw"]
    assert (index["space"], index["max_neighbors"]) == ("cosine", 9)


def test_a_folder(tmp_path: Path) -> None:
    """What belongs to the upgrade lies beside it."""
    folder = tmp_path / "my shop"
    settings = chromadb.Settings(anonymized_telemetry=False)
    shop = Shop(chromadb.PersistentClient(str(folder), settings=settings), f"chroma://{folder}")
    store, receipts = shop.build()
    assert store.journal.parent == tmp_path / ".crossfade" / "chroma" / "my shop" / shop.name / "vector"
    switch(store, receipts)
    assert (store.describe().dimension, store.describe().rows, store.describe().writable) == (6, ROWS, True)
    store.drop_old(STAGED)
    assert shop.names() == {""}


def test_a_record_that_is_deleted_while_it_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server then gives none, and is asked again; not for ever."""
    live, honest, failures = open_store(shop.uri)._live(), chromadb.Collection.get, iter(range(3))

    def get(self: Any, *values: Any, **options: Any) -> Any:
        if next(failures, None) is not None:
            raise chromadb.errors.InternalError("Error executing plan: Internal error: Error finding id")
        return honest(self, *values, **options)

    monkeypatch.setattr(chromadb.Collection, "get", get)
    assert len(live.get(IDS)) == ROWS
    failures = iter(range(1000))
    with pytest.raises(StoreError, match="Error finding id"):
        live.get(IDS)


def test_the_pause_is_said_beforehand(shop: Shop) -> None:
    found = open_store(shop.uri).pause(STAGED, 1000)
    assert found is not None
    assert 0 < found.seconds < 10
    named = re.match(r"for (\d+) ms of it, .*readers and writers that find none must try again", found.why)
    assert named is not None
    assert int(named[1]) / 1000 < found.seconds


def test_an_empty_collection_is_described(shop: Shop) -> None:
    shop.client.create_collection(f"{shop.name}-empty", embedding_function=None)
    found = open_store(f"{shop.uri}-empty").describe()
    assert (found.rows, found.dimension, found.payload) == (0, 0, ())


def test_an_embedding_function_is_named(shop: Shop) -> None:
    shop.client.create_collection(f"{shop.name}-named")
    found = open_store(f"{shop.uri}-named").obstacles()
    assert [(one.kind, one.blocks) for one in found] == [
        ("pause", False),
        ("held", False),
        ("embedding function", False),
    ]
    assert "'default'" in found[2].message


def test_bad_addresses(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such collection"):
        open_store(f"{shop.uri}-nothing")
    with pytest.raises(StoreError, match=r"no such collection|refused"):
        open_store(shop.uri.partition("#")[0] + '#"größe x"')
    with pytest.raises(UsageError, match=r"one vector per record; leave \.a out"):
        open_store(f"{shop.uri}.a")
    with pytest.raises(UsageError, match=r"leave \?id=sku out"):
        open_store(f"{shop.uri}?id=sku")
    with pytest.raises(UsageError, match="write chroma://"):
        open_store("chroma://host:port:1#items")
    with pytest.raises(StoreError, match=r"the folder holds no chroma\.sqlite3"):
        open_store(f"chroma://{tmp_path}#items")
    assert list(tmp_path.glob("*.sqlite3")) == []


def test_a_server_that_does_not_answer_is_named_without_its_token() -> None:
    with pytest.raises(StoreError, match="did not answer") as caught:
        open_store("chroma://:secret@127.0.0.1:9#items")
    assert "secret" not in str(caught.value)
    assert "***@127.0.0.1:9" in str(caught.value)


class Proxy(BaseHTTPRequestHandler):
    """Lets those who have the right token read, and nobody delete."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Bearer open sesame":
            return self.answer(401, b"Unauthorized")
        length = int(self.headers.get("Content-Length") or 0)
        headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        url = f"http://{chroma_backend.server()}{self.path}"
        body = self.rfile.read(length) or None
        asked = urllib.request.Request(url, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(asked) as found:
                self.answer(found.status, found.read())
        except urllib.error.HTTPError as error:
            with error:
                self.answer(error.code, error.read())

    do_POST = do_GET  # noqa: N815

    def do_DELETE(self) -> None:
        self.answer(403, b"<h1>403 Forbidden</h1>")

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def proxy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_account_that_may_not_write_is_called_read_only(shop: Shop, proxy: str) -> None:
    assert not open_store(f"chroma://open%20sesame@{proxy}#{shop.name}").describe().writable
    assert open_store(shop.uri).describe().writable
    with pytest.raises(StoreError, match="Unauthorized"):
        open_store(f"chroma://wrong@{proxy}#{shop.name}")
