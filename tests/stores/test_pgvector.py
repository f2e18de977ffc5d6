"""What only PostgreSQL has: kinds of keys and names, locks, triggers, accounts, row versions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pgvector_backend import Application, as_array, as_text, database

from crossfade.errors import StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores import Produced, Receipt, Rows, Staged, open_store
from crossfade.stores.address import Address, redact
from crossfade.upgrade import inspect_store, plan

OLD, NEW = Space("old-model", 4, "l2"), Space("new-model", 6, "l2")
STAGED = Staged("vector__next", "vector__previous", OLD, NEW, "u1")


def vectors(rows: int, seed: int = 0, dimension: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


def lift(old: np.ndarray) -> np.ndarray:
    return np.hstack([old, 2 * old[:, :2]]).astype(np.float32)


def produce(rows: Rows) -> Produced:
    return Produced(lift(np.nan_to_num(rows.vectors)), ~rows.null)


def opened(uri: str, part_rows: int = 10) -> Any:
    store: Any = open_store(uri)
    store.part_rows = part_rows
    return store


def build(store: Any, staged: Staged = STAGED) -> dict[str, Receipt]:
    receipts: dict[str, Receipt] = {}
    write(store, receipts, staged)
    assert store.publish(staged, receipts) == []
    return receipts


def write(store: Any, receipts: dict[str, Receipt], staged: Staged = STAGED, make: Any = produce) -> None:
    for part in store.pending(staged, receipts):
        receipts[part.key] = store.write_part(part, staged, make, rows=7)


@pytest.fixture
def application() -> Application:
    """A database with a table of 25 rows."""
    made = Application(database())
    made.run("CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector(4))")
    insert(made, range(25))
    return made


def insert(application: Application, ids: Any) -> None:
    rows = [(one, f"item {one}", as_text(vector)) for one, vector in zip(ids, vectors(len(ids)), strict=True)]
    application.run_many("INSERT INTO items (id, text, vector) VALUES (%s, %s, %s)", rows)


@pytest.fixture
def uri(application: Application) -> str:
    return f"{application.address}#items.vector"


def column(application: Application, name: str = "vector") -> dict[Any, np.ndarray | None]:
    found = application.run(f"SELECT id, {name}::text FROM items")  # noqa: S608
    return {one: as_array(vector) for one, vector in found}


# --- addresses --------------------------------------------------------------------------------


def test_addresses_with_options_of_libpq_a_schema_and_an_id() -> None:
    found = Address.parse("postgresql://me:pw@host:5433/db?sslmode=require#app.items.vector?id=sku")
    assert found.place == "me:pw@host:5433/db?sslmode=require"
    assert (found.schema, found.table, found.column, found.id_column) == ("app", "items", "vector", "sku")
    assert str(found) == "postgresql://***@host:5433/db?sslmode=require#app.items.vector?id=sku"
    two = Address.parse("postgresql://host/db#items.vector")
    assert (two.schema, two.table, two.column) == ("", "items", "vector")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:secret@host/db#a.b",
        "postgresql://me:se/cr@et-secret@host/db#a.b",
        "postgresql://host/db?user=me&password=secret#a.b",
        "postgresql://host/db?password=secret&sslpassword=secret#a.b",
    ],
)
def test_passwords_are_never_shown(text: str) -> None:
    assert "secret" not in redact(text)
    assert "host/db" in redact(text)


def test_no_password_in_errors_descriptions_plans_or_journals(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path))
    monkeypatch.setenv("PGUSER", "postgres")
    secret = application.address.replace("postgresql:///", "postgresql://postgres:hunter2@/")
    with pytest.raises(StoreError, match="does not exist") as caught:
        open_store(secret.replace("test_", "none_") + "#items.vector")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(StoreError) as caught:
        open_store(f"{secret}#nothing.vector")
    assert "hunter2" not in str(caught.value)
    made = plan(f"{secret}#items.vector", strategy="keep", old=OLD)
    assert "hunter2" not in made.to_json()
    assert made.store.startswith("postgresql://***@/test_")
    assert open_store(made.store).describe().rows == 25, "the rest is left to libpq's environment"


def test_another_table_or_column_is_named_with_what_there_is(application: Application, uri: str) -> None:
    application.run("CREATE VIEW shown AS SELECT * FROM items")
    with pytest.raises(StoreError, match=r'no table "nothing"; write #table\.column, or #schema'):
        open_store(f"{application.address}#nothing.vector")
    with pytest.raises(StoreError, match='"shown" is a view, a plain table is needed'):
        open_store(f"{application.address}#shown.vector")
    with pytest.raises(
        UsageError, match=r"column 'text' holds no vectors; it has .*'vector' \(vector\(4\)\)"
    ):
        open_store(f"{application.address}#items.text")
    with pytest.raises(UsageError, match="no column 'sku' for the ids"):
        open_store(f"{uri}?id=sku")
    with pytest.raises(StoreError, match="no connection, or it was lost"):
        open_store("postgresql://localhost:1/db#items.vector")


# --- keys and names ---------------------------------------------------------------------------

KEYS = {
    "text": ("key text COLLATE \"C\" PRIMARY KEY", "'k' || n"),
    "uuid": ("key uuid PRIMARY KEY", "md5(n::text)::uuid"),
    "timestamp": ("key timestamptz PRIMARY KEY", "now() + n * interval '1 minute'"),
    "unique": ("key varchar(9) NOT NULL UNIQUE", "to_char(n, 'FM0000')"),
    "percent": ("key text PRIMARY KEY", "n || '%%s''\"'"),
}  # fmt: skip


def switched_all(store: Any) -> list[Any]:
    """Upgrade everything and return the ids in order."""
    receipts = build(store)
    assert len(receipts) == len(store.parts(STAGED)) > 1
    assert store.switch(STAGED, receipts) == []
    ids, new = zip(*((one.ids.to_pylist(), one.vectors) for one in store.scan()), strict=True)
    old = np.concatenate([one.vectors for one in store.scan(store.columns_of(STAGED)[0])])
    np.testing.assert_array_equal(np.concatenate(new), lift(old))
    return [one for batch in ids for one in batch]


@pytest.mark.parametrize("kind", list(KEYS))
def test_any_type_of_key(kind: str) -> None:
    application = Application(database())
    definition, values = KEYS[kind]
    application.run(f"CREATE TABLE items ({definition}, vector vector(4))")
    rows = [(as_text(vector), number) for number, vector in enumerate(vectors(25))]
    statement = f"INSERT INTO items SELECT {values}, %s FROM (SELECT %s::int AS n) s"  # noqa: S608
    application.run_many(statement, rows)
    ids = switched_all(opened(f"{application.address}#items.vector"))
    assert len(set(ids)) == 25


def test_a_key_of_two_columns() -> None:
    application = Application(database())
    application.run(
        "CREATE TABLE items (tenant text, number int, vector vector(4), PRIMARY KEY (tenant, number))"
    )
    rows = [(f"t{number % 3}", number, as_text(vector)) for number, vector in enumerate(vectors(25))]
    application.run_many("INSERT INTO items VALUES (%s, %s, %s)", rows)
    store = opened(f"{application.address}#items.vector")
    assert store.describe().id_column == "(tenant, number)"
    assert sum(part.rows for part in store.parts(STAGED)) == 25
    ids = switched_all(store)
    assert ids[:2] == ["(t0,0)", "(t0,3)"]
    assert len(set(ids)) == 25


def test_names_with_quotes_spaces_dots_and_umlauts(monkeypatch: pytest.MonkeyPatch) -> None:
    application = Application(database())
    application.run(
        'CREATE SCHEMA "my schema"; CREATE TABLE "my schema"."it""ems; --" '
        '("the id" int PRIMARY KEY, "größe.x" vector(4))'
    )
    rows = [(number, as_text(vector)) for number, vector in enumerate(vectors(25))]
    application.run_many('INSERT INTO "my schema"."it""ems; --" VALUES (%s, %s)', rows)
    store = opened(f'{application.address}#"my schema"."it""ems; --"."größe.x"')
    staged = Staged("größe.x__next", "größe.x__previous", OLD, NEW, "u1")
    assert store.describe().id_column == "the id"
    receipts = build(store, staged)
    assert store.switch(staged, receipts) == []
    store.switch_back(staged)
    assert store.switch(staged, receipts) == []
    store.drop_old(staged)
    assert store.describe().dimension == 6
    assert opened(store.uri).describe().uri == store.uri


def test_the_comment_of_a_column_is_kept_and_its_space_goes_with_it(
    application: Application, uri: str
) -> None:
    application.run("COMMENT ON COLUMN items.vector IS 'made by\nour model'")
    store = opened(uri)
    store.record_space(OLD)
    store.record_space(OLD)
    store.switch(STAGED, build(store))
    comments = dict(application.run(
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
        "WHERE attrelid = 'items'::regclass"
    ))  # fmt: skip
    assert comments["vector__previous"].startswith("made by\nour model\ncrossfade.space: {")
    assert comments["vector__previous"].count("crossfade.space") == 1
    assert store.space() == NEW


def test_halfvec_and_its_index() -> None:
    application = Application(database())
    application.run("CREATE TABLE items (id int PRIMARY KEY, vector halfvec(4))")
    rows = [(number, as_text(vector)) for number, vector in enumerate(vectors(25))]
    application.run_many("INSERT INTO items VALUES (%s, %s)", rows)
    application.run("CREATE INDEX ON items USING ivfflat (vector halfvec_l2_ops) WITH (lists = 3)")
    store = opened(f"{application.address}#items.vector")
    before, receipts = store.describe(), build(store)
    assert before.column_type == "halfvec(4)"
    store.build_index(STAGED, before.index)
    assert all(store.check_part(one) is None for one in receipts.values())
    assert store.switch(STAGED, receipts) == []
    after = store.describe()
    assert (after.column_type, after.index) == ("halfvec(6)", before.index)
    assert after.index.parameters == {"lists": 3}
    found = np.concatenate([one.vectors for one in store.scan()])
    old = np.concatenate([one.vectors for one in store.scan("vector__previous")])
    np.testing.assert_array_equal(found, store.stored(lift(old), STAGED))
    hits = store.search(found[:3], 1, NEW)
    assert [one.ids[0].as_py() for one in hits] == [0, 1, 2]


# --- others write -----------------------------------------------------------------------------


def test_a_row_that_changes_while_it_is_mapped_is_not_written(application: Application, uri: str) -> None:
    """The old vector changes after it was read: what was made from it must never be stored."""
    store, receipts = opened(uri, 100), {}
    seen: list[Any] = []

    def change_in_between(rows: Rows) -> Produced:
        if not seen:
            application.run("UPDATE items SET vector = '[9,9,9,9]' WHERE id = 3")
            application.run("DELETE FROM items WHERE id = 4")
        seen.extend(rows.ids.to_pylist())
        return produce(rows)

    write(store, receipts, make=change_in_between)
    assert column(application, STAGED.name)[3] is None
    (part,) = store.pending(STAGED, receipts)
    assert part.rows == 1
    write(store, receipts)
    assert store.switch(STAGED, receipts) == []
    np.testing.assert_array_equal(column(application)[3], [9, 9, 9, 9, 18, 18])


def test_a_row_that_others_hold_is_left_for_later(application: Application, uri: str) -> None:
    import psycopg

    store, receipts = opened(uri, 100), {}
    store._stage(STAGED)
    with psycopg.connect(application.address) as holder:
        holder.execute("SELECT * FROM items WHERE id = 3 FOR UPDATE")
        started = time.monotonic()
        write(store, receipts)
        assert time.monotonic() - started < 20
    written = column(application, STAGED.name)
    assert [one for one, vector in written.items() if vector is None] == [3]
    assert [part.rows for part in store.pending(STAGED, receipts)] == [1]


def test_columns_that_vectors_are_made_from_are_watched(application: Application, uri: str) -> None:
    store, staged = opened(uri), Staged("vector__next", "vector__previous", OLD, NEW, "u1", ("text",))
    receipts = build(store, staged)
    application.run("UPDATE items SET text = 'other' WHERE id = 3")
    application.run("UPDATE items SET text = text WHERE id = 4")
    assert [part.rows for part in store.pending(staged, receipts)] == [1]


def test_after_the_switch_the_application_has_the_last_word(application: Application, uri: str) -> None:
    store = opened(uri)
    assert store.switch(STAGED, build(store)) == []
    application.run("UPDATE items SET vector = '[1,2,3,4,5,6]' WHERE id = 3")
    application.run("UPDATE items SET vector = NULL WHERE id = 4")
    application.run("UPDATE items SET text = 'other' WHERE id = 5")
    previous = column(application, STAGED.previous)
    assert [one for one, vector in previous.items() if vector is None] == [3, 4]
    assert store.pending(STAGED, {}) == []


def test_an_insert_without_column_names_is_refused_after_the_switch(
    application: Application, uri: str
) -> None:
    """It would put a vector into the third column, which holds the old ones now, and none into the new."""
    import psycopg

    store = opened(uri)
    assert store.switch(STAGED, build(store)) == []
    with pytest.raises(psycopg.errors.RaiseException, match=r"'vector__previous' .* name the columns"):
        application.run("INSERT INTO items VALUES (100, 'item', '[1,2,3,4]')")
    application.run("INSERT INTO items (id, vector) VALUES (100, '[1,2,3,4,5,6]')")
    store.switch_back(STAGED)
    application.run("INSERT INTO items VALUES (101, 'item', '[1,2,3,4]')")


def test_triggers_of_the_application_keep_quiet(application: Application, uri: str) -> None:
    application.run(
        "ALTER TABLE items ADD touched int DEFAULT 0; "
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END'; "
        "CREATE TRIGGER touch BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch()"
    )
    store = opened(uri)
    build(store)
    assert application.run("SELECT DISTINCT touched FROM items") == [(0,)]
    application.run("UPDATE items SET vector = '[1,2,3,4]' WHERE id = 3")
    assert application.run("SELECT touched FROM items WHERE id = 3") == [(1,)]
    assert column(application, STAGED.name)[3] is None


def test_without_its_trigger_a_switch_is_refused(application: Application, uri: str) -> None:
    store = opened(uri)
    receipts = build(store)
    application.run("ALTER TABLE items DISABLE TRIGGER zzz_crossfade_u1")
    with pytest.raises(StoreError, match=r"trigger 'zzz_crossfade_u1' is disabled.*crossfade rollback"):
        store.switch(STAGED, receipts)
    assert not store.switched(STAGED)


# --- locks and connections --------------------------------------------------------------------


@pytest.fixture
def reader(application: Application) -> Iterator[Any]:
    """A transaction that has read the table and stays open."""
    import psycopg

    with psycopg.connect(application.address) as connection:
        connection.execute("SELECT count(*) FROM items")
        yield connection


def test_a_switch_waits_briefly_for_readers_and_holds_up_nobody(
    application: Application, uri: str, reader: Any
) -> None:
    store = opened(uri)
    reader.rollback()
    receipts = build(store)
    reader.execute("SELECT count(*) FROM items")
    slowest, ended = [0.0], threading.Event()

    def read() -> None:
        import psycopg

        with psycopg.connect(application.address, autocommit=True) as connection:
            while not ended.is_set():
                started = time.monotonic()
                connection.execute("SELECT count(*) FROM items")
                slowest[0] = max(slowest[0], time.monotonic() - started)

    others = threading.Thread(target=read)
    others.start()
    switching = threading.Thread(target=lambda: store.switch(STAGED, receipts))
    switching.start()
    time.sleep(1.0)
    assert not store.switched(STAGED)
    reader.rollback()
    switching.join(timeout=30)
    ended.set()
    others.join()
    assert store.switched(STAGED)
    assert slowest[0] < 1.0, "lock timeout and renaming are milliseconds; the rest is this machine's load"


def test_who_holds_the_table_is_named(uri: str, reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfade.stores import pg_server

    monkeypatch.setattr(pg_server, "PATIENCE_SECONDS", 0.3)
    store = opened(uri)
    pid = reader.info.backend_pid
    with pytest.raises(
        StoreError, match=rf"held by process {pid} \(client backend idle in transaction.*nothing was changed"
    ):
        store.write_part(store.parts(STAGED)[0], STAGED, produce)


def test_a_switch_waits_for_a_vacuum_longer_than_for_readers(application: Application, uri: str) -> None:
    """A vacuum holds a lock that lasts; an automatic one gives way only to who waits for a second."""
    import psycopg

    store = opened(uri)
    receipts = build(store)
    with psycopg.connect(application.address) as holder:
        holder.execute("LOCK TABLE items IN SHARE UPDATE EXCLUSIVE MODE")
        switching = threading.Thread(target=lambda: store.switch(STAGED, receipts))
        switching.start()
        waits, until = 0.0, time.monotonic() + 30
        query = (
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0) FROM pg_locks "
            "WHERE relation = 'items'::regclass AND NOT granted AND mode = 'ShareUpdateExclusiveLock'"
        )
        while waits < 1.2 and time.monotonic() < until:
            waits = float(application.run(query)[0][0])
            time.sleep(0.05)
        application.run("UPDATE items SET text = 'not held up' WHERE id = 3")
        holder.rollback()
    switching.join(timeout=30)
    assert waits >= 1.2
    assert store.switched(STAGED)


def test_a_lost_connection_is_replaced(application: Application, uri: str) -> None:
    store = opened(uri)

    def lose(rows: Rows) -> Produced:
        application.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'crossfade' AND datname = current_database()"
        )
        time.sleep(0.2)
        return produce(rows)

    with pytest.raises(StoreError, match=r"no connection, or it was lost.*what was written is kept"):
        store.write_part(store.parts(STAGED)[0], STAGED, lose, rows=3)
    assert store.switch(STAGED, build(store)) == []


# --- what inspect finds -----------------------------------------------------------------------


def kinds(uri: str) -> dict[str, str]:
    return {one.kind: str(one) for one in inspect_store(uri, space=OLD).problems}


def test_a_table_without_a_key(application: Application, uri: str) -> None:
    application.run("ALTER TABLE items DROP CONSTRAINT items_pkey")
    assert "has no primary key" in kinds(uri)["ids"]
    with pytest.raises(StoreError, match=r"no primary key.*ADD PRIMARY KEY"):
        plan(uri, strategy="backfill", items="text", old=OLD, new=NEW)


def test_an_account_that_may_only_read(application: Application, uri: str) -> None:
    application.run(
        "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; "
        "GRANT SELECT ON items TO reader"
    )
    found = inspect_store(uri.replace("user=postgres", "user=reader"), space=OLD)
    assert not found.ready
    assert not found.found.writable
    assert [str(one) for one in found.problems if one.blocks] == [
        "table public.items belongs to postgres, this account is reader, which may not alter it; "
        "connect as postgres, or GRANT postgres TO reader"
    ]


def test_vectors_of_mixed_dimensions(application: Application) -> None:
    application.run("CREATE TABLE mixed (id int PRIMARY KEY, vector vector)")
    application.run("INSERT INTO mixed VALUES (1, '[1,2,3,4]'), (2, '[1,2,3,4]')")
    assert "without a dimension, all vectors have 4" in kinds(f"{application.address}#mixed.vector")["type"]
    application.run("INSERT INTO mixed VALUES (3, '[1,2,3]')")
    found = opened(f"{application.address}#mixed.vector").obstacles()
    assert "mixes vectors of 3 to 4 dimensions" in next(one.message for one in found if one.blocks)


def test_an_old_extension(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfade.stores import pg_obstacles

    monkeypatch.setattr(pg_obstacles, "extension_version", lambda server: (0, 4, 4))
    assert "extension vector is 0.4.4; version 0.5.0 or later" in kinds(uri)["version"]


def test_null_vectors_and_an_empty_table(application: Application, uri: str) -> None:
    application.run("UPDATE items SET vector = NULL WHERE id < 3")
    assert "3 of 25 vectors are unusable (3 null)" in kinds(uri)["invalid"]
    application.run("DELETE FROM items")
    assert "the table has no rows" in kinds(uri)["empty"]


def test_views_row_security_and_other_indexes(application: Application, uri: str) -> None:
    application.run(
        "CREATE VIEW shown AS SELECT id, vector FROM items; "
        "CREATE INDEX first_idx ON items USING hnsw (vector vector_l2_ops); "
        "CREATE INDEX second_idx ON items USING hnsw (vector vector_cosine_ops)"
    )
    found = kinds(uri)
    assert "views go on showing the old vectors after the switch: shown" in found["views"]
    assert "second_idx on column 'vector' will not be built" in found["index"]
    assert inspect_store(uri, space=OLD).ready
    big = Space("big", 2001, "l2")
    (message,) = [one.message for one in opened(uri).obstacles(big) if one.blocks]
    assert "indexed up to 2000 dimensions; the new vectors have 2001" in message


def test_a_column_whose_new_names_would_be_too_long(application: Application) -> None:
    name = "v" * 60
    application.run(f"ALTER TABLE items RENAME vector TO {name}")
    (found,) = opened(f"{application.address}#items.{name}").obstacles()
    assert "has 70 bytes, names in PostgreSQL have 63 at most" in found.message


def test_a_full_disk_is_foreseen(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(uri)
    assert (store.free_bytes() or 0) > 0
    assert store.bytes_for(1000, 100) > 400_000
    store._host = "elsewhere.example"
    assert store.free_bytes() is None
