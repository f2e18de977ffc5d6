"""What writers will have to wait for is measured: what is pending, how fast they write, what a row costs."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from pgvector_backend import Application, as_text, database
from test_pgvector import NEW, STAGED, produce

from crossfade.stores import open_store, pg_pause
from crossfade.stores.pg_parts import Names
from crossfade.stores.pg_pause import Backlog, Costs, rows_waited_for

ROWS = 300


@pytest.fixture
def application() -> Application:
    made = Application(database())
    made.run("CREATE TABLE items (id bigint PRIMARY KEY, vector vector(4) NOT NULL)")
    vectors = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    values = [(one, as_text(vector)) for one, vector in enumerate(vectors)]
    made.run_many("INSERT INTO items VALUES (%s, %s)", values)
    return made


def upgraded(application: Application) -> Any:
    """A store whose rows all have their new vectors."""
    store: Any = open_store(f"{application.address}#items.vector")
    for part in store.pending(STAGED, {}):
        store.write_part(part, STAGED, produce)
    return store


def backlog(store: Any) -> Backlog:
    table = store._read()
    return pg_pause.measure_backlog(store._server, table, Names.of(table, store.column, STAGED))


def costs(store: Any) -> Costs:
    table = store._read()
    names = Names.of(table, store.column, STAGED)
    return pg_pause.measure_costs(store._server, table, names, NEW.dimension, 1e6, 0.0)


def test_what_is_pending_is_counted_and_what_others_write(application: Application) -> None:
    store = upgraded(application)
    application.run("UPDATE items SET vector = '[1,2,3,4]' WHERE id < 40")
    quiet = backlog(store)
    assert (quiet.rows, quiet.per_second) == (40, 0)
    ended = threading.Event()
    wrote = [0]

    def write() -> None:
        import psycopg

        with psycopg.connect(application.address, autocommit=True) as connection:
            while not ended.is_set():
                one = ROWS + wrote[0]
                connection.execute("INSERT INTO items VALUES (%s, '[1,2,3,4]')", [one])
                wrote[0] += 1
                time.sleep(0.005)

    writer = threading.Thread(target=write)
    started = time.perf_counter()
    writer.start()
    try:
        busy = backlog(store)
    finally:
        ended.set()
        writer.join()
    rate = wrote[0] / (time.perf_counter() - started)
    assert 40 < busy.rows <= 40 + wrote[0]
    assert rate / 3 < busy.per_second < rate * 3


def test_a_row_costs_more_with_an_index_than_the_first_pass_tells(application: Application) -> None:
    store = upgraded(application)
    assert costs(store).row == pytest.approx(1e-6)
    application.run(
        "CREATE INDEX ON items USING hnsw (vector vector_l2_ops) WITH (m = 40, ef_construction = 400)"
    )
    indexed = costs(store).row
    assert indexed > 1e-4  # that of the new vectors, which is not built yet, counts, too
    application.run("DELETE FROM items")
    assert costs(store).row == pytest.approx(1e-6)


def test_rows_that_are_caught_up_with_before_the_pause_are_not_waited_for() -> None:
    each = Costs(empty=0.1, row=0.001)
    assert rows_waited_for(Backlog(0, 0, 0), each, 100, 5) == 1
    assert rows_waited_for(Backlog(30, 50, 0), each, 100, 5) == pytest.approx(35)
    # a round leaves a tenth; what is locked at a time while it lasts is more than what is left
    assert rows_waited_for(Backlog(1000, 200, 0), each, 100, 5) == pytest.approx(120)
    assert rows_waited_for(Backlog(300, 0, 0), each, 100, 5) == 50
    # writers who are faster than they are caught up with wait for all
    assert rows_waited_for(Backlog(400, 10_000, 0), each, 100, 5) == pytest.approx(1400)
