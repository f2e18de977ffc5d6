"""The state machine on PostgreSQL: the whole way, beside writers, and out of what a crash leaves."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upgrade_kit import D_NEW, NEW, OLD, NewEncoder, adapter, new_vectors, old_vectors

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

from pgvector_backend import Application, as_array, as_text, database

from crossfade.errors import StoreError, UsageError, VerificationFailed
from crossfade.stores import Store, open_store, pg_switch
from crossfade.upgrade import State, Upgrade, inspect_store, plan

PART_ROWS = 60


class PgKit:
    """A table with the gallery of `Kit`."""

    def __init__(self) -> None:
        self.application = Application(database())
        self.uri = f"{self.application.address}#items.vector"
        self.application.run(
            "CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector(16) NOT NULL)"
        )
        self.insert(list(range(240)))
        self.application.run(
            "CREATE INDEX items_vector_idx ON items USING hnsw (vector vector_cosine_ops) WITH (m = 8)"
        )

    def insert(self, ids: list[int], vectors: np.ndarray | None = None) -> None:
        made = old_vectors(ids) if vectors is None else vectors
        rows = [(one, f"item {one}", as_text(vector)) for one, vector in zip(ids, made, strict=True)]
        self.application.run_many("INSERT INTO items (id, text, vector) VALUES (%s, %s, %s)", rows)

    def open(self) -> Store:
        store: Any = open_store(self.uri)
        store.part_rows = PART_ROWS
        return store

    def upgrade(self, strategy: str = "gallery", **options: Any) -> Upgrade:
        if strategy == "gallery":
            options.setdefault("adapter", adapter("forward"))
        made = plan(self.uri, strategy=strategy, old=OLD, **options)
        return Upgrade.create(replace(made, batch_rows=16), store=self.open())

    def read(self, column: str = "vector") -> dict[int, np.ndarray | None]:
        rows = self.application.run(f"SELECT id, {column}::text FROM items")  # noqa: S608
        return {one: as_array(vector) for one, vector in rows}

    def columns(self) -> list[str]:
        rows = self.application.run(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnum > 0 "
            "AND NOT attisdropped ORDER BY attnum"
        )
        return [name for (name,) in rows]

    def expect_not_null(self) -> None:
        import psycopg

        with pytest.raises(psycopg.errors.NotNullViolation):
            self.application.run("INSERT INTO items (id) VALUES (900)")

    def expect_new(self, column: str = "vector") -> None:
        found = self.read(column)
        ids = sorted(found)
        np.testing.assert_allclose(np.stack([found[one] for one in ids]), new_vectors(ids), atol=1e-4)

    def expect_old(self) -> None:
        found = self.read()
        ids = sorted(found)
        np.testing.assert_array_equal(np.stack([found[one] for one in ids]), old_vectors(ids))


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PgKit:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path))
    return PgKit()


def test_from_plan_to_retirement(kit: PgKit) -> None:
    before = kit.open().describe()
    assert inspect_store(kit.uri, space=OLD).ready
    upgrade = kit.upgrade()
    status = upgrade.apply()
    assert (status.state, status.rows_done, status.rows_total) == (State.BUILT, 240, 240)
    kit.expect_old()
    kit.expect_new("vector__next")
    with pytest.raises(UsageError, match="column 'vector__next' exists already"):
        kit.upgrade()
    found = upgrade.verify()
    assert "240 recomputed" in dict(found.summary())["samples"]
    upgrade.cutover()
    kit.expect_new()
    after = kit.open().describe()
    assert (after.space, after.dimension, after.index) == (NEW, D_NEW, before.index)
    upgrade.rollback()
    kit.expect_old()
    assert kit.open().describe().index == before.index
    upgrade.cutover()
    upgrade.retire(confirm=True)
    kit.expect_new()
    assert kit.columns() == ["id", "text", "vector"]
    assert kit.open().describe().index == before.index
    kit.expect_not_null()


def test_retired_after_a_rollback_nothing_is_left(kit: PgKit) -> None:
    upgrade = kit.upgrade()
    for step in (upgrade.apply, upgrade.verify, upgrade.cutover, upgrade.rollback):
        step()
    upgrade.retire(confirm=True)
    kit.expect_old()
    assert kit.columns() == ["id", "text", "vector"]
    assert kit.application.run("SELECT 1 FROM pg_proc WHERE proname LIKE 'crossfade%'") == []
    kit.expect_not_null()


def test_rows_written_while_the_new_vectors_serve_survive_a_rollback(kit: PgKit) -> None:
    upgrade = kit.upgrade()
    for step in (upgrade.apply, upgrade.verify, upgrade.cutover):
        step()
    kit.insert([900, 901], new_vectors([900, 901]))
    kit.application.run("UPDATE items SET vector = %s WHERE id = 5", [as_text(new_vectors([7])[0])])
    status = upgrade.rollback()
    assert "3 rows have no old vector" in status.remarks[0]
    assert kit.read()[900] is None
    upgrade.cutover()
    found = kit.read()
    np.testing.assert_allclose(found[900], new_vectors([900])[0], atol=1e-6)
    np.testing.assert_allclose(found[5], new_vectors([7])[0], atol=1e-6)


def test_a_changed_vector_keeps_cutover_closed(kit: PgKit) -> None:
    upgrade = kit.upgrade()
    upgrade.apply()
    kit.application.run(
        "UPDATE items SET vector__next = (SELECT vector__next FROM items WHERE id = 8) WHERE id = 7"
    )
    with pytest.raises(VerificationFailed, match="checksums: rows 7 of part 0 have other content"):
        upgrade.verify()


def test_unusable_rows_are_skipped_once_and_listed(kit: PgKit) -> None:
    kit.application.run("UPDATE items SET vector = array_fill(0, ARRAY[16])::vector WHERE id IN (3, 200)")
    upgrade = kit.upgrade(on_invalid="skip")
    for step in (upgrade.apply, upgrade.verify, upgrade.cutover):
        step()
    assert [one for one, _ in upgrade.skipped()] == ["3", "200"]
    assert [one for one, vector in kit.read().items() if vector is None] == [3, 200]


def test_backfill_embeds_also_what_has_no_old_vector(kit: PgKit) -> None:
    kit.application.run("ALTER TABLE items ALTER vector DROP NOT NULL")
    kit.application.run("INSERT INTO items (id, text) VALUES (500, 'item 500')")
    upgrade, encoder = kit.upgrade("backfill", items="text", new=NEW), NewEncoder()
    upgrade.apply(encoder=encoder)
    kit.application.run("UPDATE items SET text = 'item 1000' WHERE id = 0")
    upgrade.verify(encoder=NewEncoder())
    upgrade.cutover(encoder=encoder)
    found = kit.read()
    np.testing.assert_allclose(found[0], new_vectors([1000])[0], atol=1e-6)
    np.testing.assert_allclose(found[500], new_vectors([500])[0], atol=1e-6)
    assert len(encoder.embedded) == 242


def test_none_lost_and_none_stale_beside_writers(kit: PgKit) -> None:
    """Two writers insert, update and delete through apply, verify and cutover, without a pause."""
    upgrade, ended = kit.upgrade(changed_rows=1.0), threading.Event()
    counts = {"insert": 0, "update": 0, "delete": 0}
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        import psycopg

        generator, made = np.random.default_rng(seed), seed * 100_000
        with psycopg.connect(kit.application.address, autocommit=True) as connection:
            while not ended.is_set():
                kind = ("insert", "update", "delete")[generator.choice(3, p=[0.4, 0.5, 0.1])]
                one = int(generator.integers(240))
                made += 1
                statement, values = {
                    "insert": (
                        "INSERT INTO items (id, text, vector) VALUES (%s, %s, %s)",
                        [made, f"item {made}", as_text(old_vectors([made])[0])],
                    ),
                    "update": (
                        "UPDATE items SET vector = %s WHERE id = %s",
                        [as_text(old_vectors([made])[0]), one],
                    ),
                    "delete": ("DELETE FROM items WHERE id = %s", [one if seed == 1 else -1]),
                }[kind]
                try:
                    connection.execute(statement, values)
                except psycopg.errors.DataException as error:
                    if "expected 24 dimensions" not in str(error):  # else: it sees that the switch was made
                        failures.append(error)
                    return
                except psycopg.Error as error:
                    failures.append(error)
                    return
                counts[kind] += 1
                time.sleep(0.002)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for one in writers:
        one.start()
    try:
        upgrade.apply()
        upgrade.verify()
        upgrade.cutover()
    finally:
        ended.set()
        for one in writers:
            one.join()
    assert failures == []
    assert min(counts.values()) > 0
    old, new = kit.read("vector__previous"), kit.read()
    assert all(one is not None for one in new.values())
    lift = adapter("forward")
    ids = sorted(old)
    expected = lift.transform(np.stack([old[one] for one in ids]))
    np.testing.assert_allclose(np.stack([new[one] for one in ids]), expected, atol=1e-5)


@pytest.mark.parametrize("statement", ["ADD CONSTRAINT", "VALIDATE", "SET NOT NULL", "DROP COLUMN"])
@pytest.mark.parametrize("then", ["retire", "rollback"])
def test_interrupted_while_nulls_are_forbidden_again(
    kit: PgKit, monkeypatch: pytest.MonkeyPatch, statement: str, then: str
) -> None:
    """Retire goes on where it was; after a rollback rows may come without a new vector."""
    upgrade = kit.upgrade()
    for step in (upgrade.apply, upgrade.verify, upgrade.cutover):
        step()
    honest = pg_switch.text

    def fail(query: str, **parts: Any) -> Any:
        if statement in query:
            raise StoreError("the connection was lost")
        return honest(query, **parts)

    with monkeypatch.context() as patched:
        patched.setattr(pg_switch, "text", fail)
        if statement == "DROP COLUMN":
            patched.setattr(pg_switch, "drop", lambda *_: fail(statement))
        with pytest.raises(StoreError, match="was lost"):
            upgrade.retire(confirm=True)
    if then == "rollback":
        upgrade.rollback()
        kit.insert([900])
        kit.expect_old()
        upgrade.apply()
        upgrade.verify()
        upgrade.cutover()
    upgrade.retire(confirm=True)
    kit.expect_new()
    kit.expect_not_null()
    assert kit.columns() == ["id", "text", "vector"]
    assert kit.application.run("SELECT 1 FROM pg_constraint WHERE conname LIKE 'crossfade%'") == []


def test_a_step_that_was_done_and_not_recorded_is_done(kit: PgKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeating the command that a crash cut short is no mistake."""
    upgrade = kit.upgrade()
    for step in (upgrade.apply, upgrade.verify, upgrade.cutover):
        step()

    def fail(*_: Any, **__: Any) -> None:
        raise StoreError("the journal cannot be used")

    for step, options, state in (
        (upgrade.rollback, {}, State.ROLLED_BACK),
        (upgrade.cutover, {}, State.CUT_OVER),
        (upgrade.retire, {"confirm": True}, State.RETIRED),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(upgrade._journal, "move", fail)
            with pytest.raises(StoreError, match="cannot be used"):
                step(**options)
        status = upgrade.status()
        assert status.interrupted == step.__name__
        assert status.next.startswith(f"crossfade {step.__name__}")
        assert status.next.endswith("again: it was interrupted")
        done = step(**options)
        assert (done.state, done.interrupted) == (state, "")
    kit.expect_new()


@pytest.mark.parametrize("row_seconds", [0.0, 0.005])
def test_the_pause_that_is_said_is_the_one_that_writers_meet(
    kit: PgKit, monkeypatch: pytest.MonkeyPatch, row_seconds: float
) -> None:
    """The longest write that is under way during the cutover, of two writers; also with a slow map."""
    kind = type(adapter("forward"))
    honest = kind.transform

    def slow(self: Any, rows: np.ndarray, *others: Any) -> np.ndarray:
        time.sleep(row_seconds * len(rows))
        return honest(self, rows, *others)

    monkeypatch.setattr(kind, "transform", slow)
    upgrade, ended = kit.upgrade(changed_rows=1.0), threading.Event()
    waits: list[tuple[float, float]] = []

    def write(seed: int) -> None:
        import psycopg

        generator = np.random.default_rng(seed)
        with psycopg.connect(kit.application.address, autocommit=True) as connection:
            while not ended.is_set():
                vector = as_text(old_vectors([int(generator.integers(10**6))])[0])
                started = time.perf_counter()
                try:
                    connection.execute(
                        "UPDATE items SET vector = %s WHERE id = %s", [vector, int(generator.integers(240))]
                    )
                except psycopg.errors.DataException:  # the switch was made
                    return
                finally:
                    waits.append((started, time.perf_counter()))
                time.sleep(generator.exponential(0.02))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for one in writers:
        one.start()
    try:
        upgrade.apply()
        upgrade.verify()
        alone = statistics.median(end - start for start, end in waits)
        said = upgrade.pause()
        began = time.perf_counter()
        upgrade.cutover()
        switched = time.perf_counter()
    finally:
        ended.set()
        for one in writers:
            one.join()
    assert said is not None
    measured = max(end - start for start, end in waits if end > began and start < switched)
    assert alone <= said.seconds
    assert measured <= 3 * said.seconds + 0.3
    assert said.seconds <= 3 * measured + 0.3
    assert said.seconds >= row_seconds
