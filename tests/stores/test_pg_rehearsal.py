"""How fast a plan says that PostgreSQL will be: written on trial, with nothing left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgvector_backend import Application, database
from test_pgvector import NEW, OLD, STAGED, insert

from crossfade.adapters import make_adapter
from crossfade.stores import open_store, pg_rehearsal
from crossfade.upgrade import plan

BATCH = 3000


@pytest.fixture
def application() -> Application:
    made = Application(database())
    made.run("CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector(4))")
    insert(made, range(5))
    return made


def batches(taken: list[int]) -> Iterator[np.ndarray]:
    """Three, with values in between that PostgreSQL would refuse."""
    for seed in range(3):
        vectors = np.random.default_rng(seed).standard_normal((BATCH, NEW.dimension)).astype(np.float32)
        vectors[7], vectors[8] = np.nan, np.inf
        yield vectors
        taken.append(seed)


def test_all_is_written_and_nothing_stays(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"{application.address}#items.vector")
    seen: list[int] = []
    honest = pg_rehearsal._update

    def update(connection: Any, *arguments: Any) -> None:
        honest(connection, *arguments)
        rows = "SELECT count(*) FROM crossfade_rehearsal WHERE substr(sha256(vector_send(v)), 1, 8) = m"
        seen.append(connection.execute(rows).fetchone()[0])

    monkeypatch.setattr(pg_rehearsal, "_update", update)
    before, taken = store.describe(), list[int]()
    store.rehearse(batches(taken), STAGED)
    assert taken == [0, 1, 2]
    step = pg_rehearsal.ROWS_PER_STATEMENT
    ends = [min(start + step, BATCH) for start in range(0, BATCH, step)]
    assert seen == [first + end for first in (0, BATCH, 2 * BATCH) for end in ends]
    assert store.describe() == before
    assert application.run("SELECT relname FROM pg_class WHERE relname LIKE 'crossfade%'") == []


def test_what_breaks_off_leaves_nothing(application: Application) -> None:
    store = open_store(f"{application.address}#items.vector")

    def broken() -> Iterator[np.ndarray]:
        yield np.ones((10, NEW.dimension), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.rehearse(broken(), STAGED)
    assert application.run("SELECT relname FROM pg_class WHERE relname LIKE 'crossfade%'") == []
    store.rehearse(batches([]), STAGED)


def test_without_leave_for_temporary_tables_a_file_is_written(application: Application) -> None:
    name = application.run("SELECT current_database()")[0][0]
    application.run(
        "DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; "
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; GRANT SELECT ON items TO plain"
    )
    store = open_store(f"{application.address.replace('user=postgres', 'user=plain')}#items.vector")
    taken: list[int] = []
    store.rehearse(batches(taken), STAGED)
    assert taken == [0, 1, 2]


def test_a_plan_says_how_long_the_server_takes(
    application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.run(
        "INSERT INTO items SELECT g, '', ARRAY[random(), random(), random(), 1]::vector "
        "FROM generate_series(10, 30000) AS g"
    )
    fitted = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    made = make_adapter("ridge").fit(fitted, np.hstack([fitted, fitted[:, :2]]), source=OLD, target=NEW)
    made.save_pretrained(tmp_path / "lift")
    uri = f"{application.address}#items.vector"
    quick = plan(uri, strategy="gallery", adapter=tmp_path / "lift", old=OLD).estimates
    honest = pg_rehearsal._update

    def slow(*arguments: Any) -> None:
        time.sleep(0.01)
        honest(*arguments)

    monkeypatch.setattr(pg_rehearsal, "_update", slow)
    late = plan(uri, strategy="gallery", adapter=tmp_path / "lift", old=OLD).estimates
    assert quick.rows == late.rows == 29_996
    assert late.seconds >= 0.01 * late.rows / pg_rehearsal.ROWS_PER_STATEMENT
    assert late.seconds > quick.seconds
