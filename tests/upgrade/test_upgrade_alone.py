"""Two operators on two machines, whose journals know nothing of each other, upgrade one PostgreSQL table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_upgrade_pgvector import PgKit
from upgrade_kit import OLD, adapter

from crossfade.errors import UpgradeLocked
from crossfade.stores import pg_lock
from crossfade.stores.pg_lock import lock_key
from crossfade.upgrade import Plan, State, Upgrade, plan


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Whatever is opened from now on keeps its journal on the machine of this name."""
    return lambda name: monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / name))


@pytest.fixture
def kit(machine: Callable[[str], None]) -> PgKit:
    machine("one")
    return PgKit()


@pytest.fixture
def made(kit: PgKit) -> Plan:
    return replace(plan(kit.uri, strategy="gallery", adapter=adapter("forward"), old=OLD), batch_rows=16)


@pytest.fixture
def here(kit: PgKit, made: Plan) -> Upgrade:
    return Upgrade.create(made, store=kit.open())


@pytest.fixture
def elsewhere(here: Upgrade, kit: PgKit, made: Plan, machine: Callable[[str], None]) -> Upgrade:
    machine("two")
    upgrade = Upgrade.create(made, store=kit.open())
    assert upgrade.store.journal != here.store.journal
    return upgrade


class _Working:
    """An `apply` that stands still after its first batch."""

    def __init__(self, upgrade: Upgrade) -> None:
        self._upgrade, self._go_on, self._reached = upgrade, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._apply)
        self.error: BaseException | None = None

    def _apply(self) -> None:
        def stand_still(done: int, total: int) -> None:
            if done:
                self._reached.set()
                self._go_on.wait(60)

        try:
            self._upgrade.apply(stand_still)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> _Working:
        self._thread.start()
        assert self._reached.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._thread.join()


def _steps(upgrade: Upgrade) -> Iterator[Callable[[], Any]]:
    yield from (upgrade.apply, upgrade.verify, upgrade.cutover, upgrade.rollback)
    yield lambda: upgrade.retire(confirm=True)


def _cut_locks(kit: PgKit) -> None:
    kit.application.run(
        "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'advisory' AND a.datname = current_database()"
    )


def test_the_second_is_told_who_is_at_work(
    kit: PgKit, here: Upgrade, elsewhere: Upgrade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_lock, "PATIENCE_SECONDS", 0.1)
    with _Working(here) as working:
        for step in _steps(elsewhere):
            message = r"another process is working on this upgrade: crossfade apply, process \d+ on .*; wait"
            with pytest.raises(UpgradeLocked, match=message):
                step()
        assert elsewhere.status().state is State.PLANNED
    assert working.error is None
    assert here.verify().passed
    kit.expect_new("vector__next")


def test_the_second_goes_on_where_the_first_has_stopped(
    kit: PgKit, here: Upgrade, elsewhere: Upgrade
) -> None:
    here.apply()
    elsewhere.apply()
    elsewhere.verify()
    elsewhere.cutover()
    kit.expect_new()
    assert here.rollback().state is State.ROLLED_BACK
    elsewhere.rollback()
    kit.expect_old()


def test_another_column_and_another_table_are_not_locked() -> None:
    assert len({lock_key(1, "vector"), lock_key(2, "vector"), lock_key(1, "other")}) == 3


def test_a_lock_whose_connection_was_lost_is_taken_again(kit: PgKit, here: Upgrade) -> None:
    cut = iter([True])

    def lose(done: int, total: int) -> None:
        if next(cut, False):
            _cut_locks(kit)

    here.apply(lose)
    assert here.verify().passed
    here.cutover()
    kit.expect_new()


def test_without_its_lock_nothing_is_switched(
    kit: PgKit, here: Upgrade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of the lock is lost, and somebody else has it when it is to be taken again."""
    here.apply()
    here.verify()
    honest, thief = here.store.pending, kit.open()
    taken: list[Any] = []

    def lose(*arguments: Any) -> Any:
        if not taken:
            _cut_locks(kit)
            taken.append(thief.alone("apply"))
            taken[0].__enter__()
        return honest(*arguments)

    monkeypatch.setattr(here.store, "pending", lose)
    with pytest.raises(UpgradeLocked, match="crossfade apply, process"):
        here.cutover()
    kit.expect_old()
    taken[0].__exit__(None, None, None)
    here.cutover()
    kit.expect_new()


def test_the_status_is_read_while_the_table_is_locked(kit: PgKit, here: Upgrade) -> None:
    import psycopg

    here.apply()
    with psycopg.connect(kit.application.address) as connection:
        connection.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = '20s'")  # if it has to wait
        assert Upgrade.open(kit.uri).status().state is State.BUILT
        connection.execute("SELECT 1")  # else the server has ended this connection
