"""The journal: durable, one writer, readers never wait."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from upgrade_kit import Kit

from crossfade.errors import IllegalTransition, OutOfSpace, StoreError, UpgradeError, UpgradeLocked
from crossfade.stores import Receipt
from crossfade.upgrade import State, Upgrade
from crossfade.upgrade import lease as leases
from crossfade.upgrade.journal import Journal, _Record


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "journal.sqlite", create=True)
    made.add("u1", "{}")
    return made


def _dead() -> dict[str, Any]:
    """A process of this host that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    who = {**leases.holder("apply"), "pid": process.pid, "start": leases.process_start(process.pid)}
    process.wait()
    return who


def _leave_lease(journal: Journal, who: dict[str, Any]) -> None:
    assert _Record(journal).take("left behind", who, None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SILENCE", 0.3)
    monkeypatch.setattr(leases, "WATCH", 0.01)


def test_states_facts_and_receipts_are_kept(journal: Journal) -> None:
    receipt = Receipt("0", "a:10", 10, 1, "abc", {"path": "x", "bytes": 3})
    journal.record("u1", receipt, [("7", "NaN")])
    journal.record("u1", receipt, [("7", "NaN")])
    journal.move("u1", State.TRANSFORMING, "begun", rows_total=10)
    again = Journal(journal.path)
    assert again.receipts("u1") == {"0": receipt}
    assert again.skipped("u1") == [("7", "NaN")]
    assert again.state("u1") is State.TRANSFORMING
    assert again.fact("u1", "rows_total") == 10
    assert [(one.source, one.target, one.note) for one in again.history("u1")] == [
        ("", "planned", ""),
        ("planned", "transforming", "begun"),
    ]


def test_impossible_transitions_are_refused(journal: Journal) -> None:
    with pytest.raises(IllegalTransition, match="no step leads from planned to verified"):
        journal.move("u1", State.VERIFIED)
    assert journal.state("u1") is State.PLANNED


def test_a_failed_transaction_leaves_nothing(journal: Journal) -> None:
    with pytest.raises(TypeError):
        journal.move("u1", State.TRANSFORMING, fact=object())
    assert journal.state("u1") is State.PLANNED
    assert len(journal.history("u1")) == 1


def test_one_writer_at_a_time(journal: Journal) -> None:
    other = Journal(journal.path)
    with journal.lease("apply"):
        assert other.holder() is not None
        with pytest.raises(UpgradeLocked, match=r"apply by process \d+"), other.lease("verify"):
            pass
        journal.set("u1", fact=1)
    assert other.holder() is None
    with other.lease("verify"):
        other.set("u1", fact=2)


def test_the_lease_of_a_dead_process_is_taken_over_at_once(journal: Journal) -> None:
    _leave_lease(journal, _dead())
    assert journal.holder() is None
    with journal.lease("apply"):
        pass


def test_a_recycled_process_id_is_not_taken_for_its_owner(journal: Journal) -> None:
    _leave_lease(journal, {**leases.holder("apply"), "start": "1"})
    with journal.lease("apply"):
        pass


def test_a_lease_that_could_not_be_given_back_blocks_nobody(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(record: _Record, token: str) -> None:
        raise OutOfSpace("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(_Record, "release", full)
        with journal.lease("apply"):
            pass
    assert journal._all("SELECT count(*) FROM lease") == [(1,)]
    assert journal.holder() is None
    with journal.lease("apply"):
        pass


@pytest.mark.usefixtures("impatient")
def test_a_holder_that_cannot_be_asked_is_dead_when_it_gives_no_sign_of_life(journal: Journal) -> None:
    _leave_lease(journal, {**leases.holder("apply"), "host": "elsewhere", "place": "elsewhere", "pid": 1})
    assert journal.holder() is not None
    began = time.monotonic()
    with journal.lease("apply"):
        assert time.monotonic() - began >= 0.3


@pytest.mark.usefixtures("impatient")
def test_a_holder_that_cannot_be_asked_lives_while_it_gives_signs_of_life(journal: Journal) -> None:
    _leave_lease(journal, {**leases.holder("apply"), "host": "elsewhere", "place": "elsewhere", "pid": 1})
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.02):
            assert _Record(journal).renew("left behind")

    thread = threading.Thread(target=live)
    thread.start()
    try:
        for _ in range(3):
            with pytest.raises(UpgradeLocked, match="on elsewhere"), Journal(journal.path).lease("apply"):
                pass
    finally:
        ended.set()
        thread.join()


@pytest.mark.usefixtures("impatient")
def test_a_holder_that_gives_its_lease_back_while_it_is_watched_is_followed_at_once(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENCE", 60.0)
    _leave_lease(journal, {**leases.holder("apply"), "place": "elsewhere"})
    threading.Timer(0.1, lambda: _Record(Journal(journal.path)).release("left behind")).start()
    with Journal(journal.path).lease("apply"):
        pass


@pytest.mark.usefixtures("impatient")
def test_of_two_who_watched_a_dead_holder_one_follows_it(journal: Journal) -> None:
    _leave_lease(journal, {**leases.holder("apply"), "place": "elsewhere"})
    outcomes: list[str] = []
    entered = threading.Barrier(2, timeout=10)

    def follow() -> None:
        mine = Journal(journal.path)
        try:
            with mine.lease("verify"):
                outcomes.append("took it")
                entered.wait()
        except UpgradeLocked:
            outcomes.append("was told")
            entered.wait()

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(outcomes) == ["took it", "was told"]


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_clock_that_jumps_neither_steals_a_lease_nor_keeps_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    honest = time.time
    other = Journal(journal.path)
    with journal.lease("apply"):
        monkeypatch.setattr(time, "time", lambda: honest() + hours * 3600)
        assert other.holder() is not None
        with pytest.raises(UpgradeLocked, match="apply by process"), other.lease("verify"):
            pass
        journal.set("u1", fact=1)
    _leave_lease(journal, _dead())
    monkeypatch.setattr(time, "time", lambda: honest() - 2 * hours * 3600)
    with other.lease("verify"):
        pass


def test_the_same_process_id_in_another_container_is_another_process(journal: Journal) -> None:
    """It could be alive there, though there is no such process here."""
    held = leases.Held("token", {**_dead(), "place": f"{leases.place()}1"}, 0)
    assert leases.is_dead(held) is None
    assert leases.is_dead(replace(held, who=_dead())) is True


def test_a_lease_is_renewed_while_its_holder_works(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    other = Journal(journal.path)
    with journal.lease("apply"):
        first, deadline = other._held(), time.time() + 30
        while other._held() == first:
            assert time.time() < deadline, "the lease was not renewed"
            time.sleep(0.01)
        assert other.holder() is not None


def test_who_lost_the_lease_writes_no_more(journal: Journal) -> None:
    other = Journal(journal.path)
    with journal.lease("apply"):
        _Record(other).release(str(journal._token))
        with other.lease("verify"), pytest.raises(UpgradeLocked, match="verify by process"):
            journal.record("u1", Receipt("0", "a", 1, 0, "c"))
        with pytest.raises(UpgradeLocked, match="lost; run the same command again"):
            journal.set("u1", fact=1)
        with pytest.raises(UpgradeLocked, match="lost; run the same command again"):
            journal.require_lease()
    assert journal.receipts("u1") == {}


def test_status_is_read_while_a_writer_is_in_a_transaction(journal: Journal) -> None:
    reader = Journal(journal.path)
    with journal._transaction():
        journal._connection.execute("UPDATE upgrade SET state = 'built'")
        began = time.perf_counter()
        assert reader.state("u1") is State.PLANNED
        assert time.perf_counter() - began < 5  # it would wait 30 s for a lock


def test_a_second_operator_is_told_at_once_also_while_the_first_is_in_a_transaction(journal: Journal) -> None:
    other = Journal(journal.path)
    with journal.lease("apply"), journal._transaction():
        began = time.perf_counter()
        with pytest.raises(UpgradeLocked, match="apply by process"), other.lease("verify"):
            pass
        assert time.perf_counter() - began < 5  # it would wait 30 s for a lock


def test_a_journal_of_the_first_version_is_taken_over(journal: Journal) -> None:
    connection = journal._connection
    connection.execute("DROP TABLE lease")
    connection.execute("CREATE TABLE lease (number INTEGER, token TEXT, holder TEXT, expires REAL)")
    connection.execute("INSERT INTO lease VALUES (1, 'old', '{}', 1e12)")
    connection.execute("PRAGMA user_version = 1")
    again = Journal(journal.path)
    assert again.state("u1") is State.PLANNED
    with again.lease("apply"):
        again.set("u1", fact=1)


def test_many_readers_and_one_writer(journal: Journal) -> None:
    failures: list[Exception] = []

    def read() -> None:
        try:
            mine = Journal(journal.path)
            for _ in range(50):
                assert len(mine.receipts("u1")) <= 100
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for one in readers:
        one.start()
    for number in range(100):
        journal.record("u1", Receipt(str(number), "a", 1, 0, "c"))
    for one in readers:
        one.join()
    assert failures == []


def test_a_journal_of_a_newer_version_is_left_alone(journal: Journal) -> None:
    journal._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer version of Crossfade"):
        Journal(journal.path)


def test_a_damaged_journal_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"journal\.sqlite: the journal cannot be used"):
        Journal(path)


def test_no_journal_yet(kit: Kit) -> None:
    with pytest.raises(StoreError, match="no upgrade has been planned here; run crossfade plan"):
        Upgrade.open(kit.uri)
    Journal(kit.folder / ".crossfade" / "items.vector.sqlite", create=True)
    with pytest.raises(UpgradeError, match="no upgrade was begun"):
        Upgrade.open(kit.uri)


def test_every_write_is_flushed_to_disk(journal: Journal) -> None:
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_journal_does_not_show_up_as_a_table(kit: Kit) -> None:
    import lancedb

    kit.upgrade().apply()
    assert kit.folder.joinpath(".crossfade").is_dir()
    assert list(lancedb.connect(kit.folder).list_tables().tables) == ["items"]


def test_a_write_that_was_torn_is_rolled_back(journal: Journal, tmp_path: Path) -> None:
    """The tail of the write-ahead log is cut at every length; what was committed before it is kept."""
    journal.record("u1", Receipt("0", "a", 1, 0, "c"))
    log = journal.path.with_name(journal.path.name + "-wal")
    before = log.stat().st_size
    journal.record("u1", Receipt("1", "a", 1, 0, "c"))
    content, database = log.read_bytes(), journal.path.read_bytes()
    for length in range(before, len(content), 517):
        folder = tmp_path / str(length)
        folder.mkdir()
        copy = folder / "journal.sqlite"
        copy.write_bytes(database)
        copy.with_name("journal.sqlite-wal").write_bytes(content[:length])
        torn = Journal(copy)
        assert set(torn.receipts("u1")) == {"0"}
        assert torn._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sqlite_errors_do_not_cross_the_boundary(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal._connection.close()
    with pytest.raises(StoreError, match="the journal cannot be used"):
        journal.state("u1")
    assert not issubclass(StoreError, sqlite3.Error)
