"""Rows of PostgreSQL are written in an order that leaves most of them in their page, and indexes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from pgvector_backend import Application, database
from test_pgvector import OLD, STAGED, build, opened, produce

from crossfade.stores import pg_obstacles
from crossfade.stores.pg_server import Server
from crossfade.upgrade import inspect_store

ROWS = 12_000


def filled() -> Application:
    """A table of full pages, about 20 rows in each, with an index on the vectors."""
    made = Application(database())
    made.run("CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector(4))")
    made.run(
        "INSERT INTO items SELECT g, repeat(md5(g::text), 10), "
        "ARRAY[random(), random(), random(), 1]::vector FROM generate_series(1, %s) AS g",
        [ROWS],
    )
    made.run("CREATE INDEX items_idx ON items USING ivfflat (vector vector_l2_ops) WITH (lists = 5)")
    return made


def pages(application: Application) -> int:
    return int(application.run("SELECT pg_relation_size('items')")[0][0])


def written(application: Application, store: Any) -> list[int]:
    """Sizes of the batches in which all rows were written."""
    sizes: list[int] = []

    def make(rows: Any) -> Any:
        sizes.append(len(rows))
        return produce(rows)

    for part in store.pending(STAGED, {}):
        store.write_part(part, STAGED, make, rows=2048)
    return sizes


def test_most_rows_stay_in_their_page_and_out_of_the_indexes() -> None:
    application = filled()
    before = pages(application)
    store = opened(f"{application.address}#items.vector", part_rows=6_000)
    assert sum(written(application, store)) == ROWS
    assert pages(application) / before < 1.4  # a row that finds no room begins a page; then all would: 2


def test_a_reader_that_holds_old_versions_costs_room_and_nothing_else() -> None:
    application = filled()
    before = pages(application)
    store = opened(f"{application.address}#items.vector", part_rows=6_000)
    with psycopg.connect(application.address) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        written(application, store)
        assert pages(application) / before > 1.9
    found = application.run("SELECT count(*), count(vector__next) FROM items")[0]
    assert tuple(found) == (ROWS, ROWS)


def test_rows_that_others_changed_are_not_kept_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    application = filled()
    store = opened(f"{application.address}#items.vector", part_rows=6_000)
    receipts = build(store)
    application.run("UPDATE items SET vector = vector + '[1, 1, 1, 1]'")
    asked: list[tuple[Any, Any]] = []
    honest = Server._connect

    def connect(self: Server) -> Any:
        made = honest(self)
        cursor = made.cursor

        def noted(*names: Any, **options: Any) -> Any:
            asked.append((names, options))
            return cursor(*names, **options)

        made.cursor = noted
        return made

    monkeypatch.setattr(Server, "_connect", connect)
    late = opened(f"{application.address}#items.vector", part_rows=6_000)
    (part,) = late.pending(STAGED, receipts)
    late.write_part(part, STAGED, produce, rows=2048)
    kept = [options["withhold"] for names, options in asked if "crossfade_rows" in names]
    assert kept
    assert not any(kept)
    assert application.run("SELECT count(*) FROM items WHERE vector__next IS NULL")[0][0] == 0


def test_batches_are_no_larger_than_asked_for() -> None:
    application = filled()
    store = opened(f"{application.address}#items.vector", part_rows=6_000)
    sizes = written(application, store)
    assert max(sizes) <= 2048
    assert np.sum(sizes) == ROWS


def test_a_transaction_that_stays_open_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_obstacles, "OPEN_SECONDS", 0.0)
    application = filled()
    uri = f"{application.address}#items.vector"
    assert not [one for one in inspect_store(uri, space=OLD).problems if one.kind == "transactions"]
    with psycopg.connect(application.address) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        process = other.execute("SELECT pg_backend_pid()").fetchone()[0]
        (found,) = [one for one in inspect_store(uri, space=OLD).problems if one.kind == "transactions"]
    assert not found.blocks
    assert f"process {process} (idle in transaction, for 0:00:0" in str(found)
