"""Which step may follow which, and what each does to the table."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
from upgrade_kit import NEW, OLD, Kit, NewEncoder, new_vectors, old_vectors, rows

from crossfade.errors import (
    IllegalTransition,
    Interrupted,
    StoreError,
    UpgradeError,
    UsageError,
    VerificationFailed,
)
from crossfade.stores import open_store
from crossfade.upgrade import State, Upgrade
from crossfade.upgrade.states import STEPS, may_follow

PATHS = {
    State.PLANNED: (),
    State.BUILT: ("apply",),
    State.VERIFIED: ("apply", "verify"),
    State.CUT_OVER: ("apply", "verify", "cutover"),
    State.ROLLED_BACK: ("apply", "verify", "cutover", "rollback"),
    State.RETIRED: ("apply", "verify", "cutover", "retire"),
}
LEGAL = {
    State.PLANNED: {"apply", "rollback"},
    State.TRANSFORMING: {"apply", "rollback"},
    State.BUILT: {"apply", "verify", "rollback"},
    State.VERIFIED: {"apply", "verify", "cutover", "rollback"},
    State.CUT_OVER: {"rollback", "retire"},
    State.ROLLED_BACK: {"apply", "cutover", "retire"},
    State.RETIRED: set(),
}


def do(upgrade: Upgrade, step: str) -> object:
    return upgrade.retire(confirm=True) if step == "retire" else getattr(upgrade, step)()


def bring(kit: Kit, state: State) -> Upgrade:
    """An upgrade in this state."""
    upgrade = kit.upgrade()
    if state is State.TRANSFORMING:
        stop_after(upgrade, 60)
    for step in PATHS.get(state, ()):
        do(upgrade, step)
    assert upgrade.status().state is state
    return upgrade


def stop_after(upgrade: Upgrade, done: int) -> None:
    """Ctrl-C after so many rows."""

    def interrupt(rows_done: int, total: int) -> None:
        if rows_done >= done:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"interrupted after \d+ of 240 rows.*run the same command again"):
        upgrade.apply(interrupt)


@pytest.mark.parametrize("state", list(State), ids=str)
@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_every_step_from_every_state(kit: Kit, state: State, step: str) -> None:
    upgrade = bring(kit, state)
    if step in LEGAL[state]:
        do(upgrade, step)
        return
    before = kit.dataset.version
    with pytest.raises(IllegalTransition, match=f"is {state}; {step} needs one that is .*; next: crossfade"):
        do(upgrade, step)
    assert upgrade.status().state is state
    assert kit.dataset.version == before


def test_the_table_of_transitions_is_what_the_steps_allow() -> None:
    """Besides: `apply` goes through two states, and a second `verify` may fail."""
    besides = {(State.TRANSFORMING, State.BUILT), (State.VERIFIED, State.BUILT)}
    for source in State:
        for target in State:
            by_step = any(source in step.allowed and target in step.through[:1] for step in STEPS)
            assert may_follow(source, target) == (by_step or source == target or (source, target) in besides)


def test_from_plan_to_retirement(kit: Kit) -> None:
    upgrade = kit.upgrade()
    status = upgrade.apply()
    assert (status.state, status.rows_done, status.rows_total) == (State.BUILT, 240, 240)
    kit.expect_old()
    kit.expect_new("vector__next")
    found = upgrade.verify()
    assert found.passed
    assert "240 recomputed" in dict(found.summary())["samples"]
    assert "99.9% confidence fewer than 2.84% of rows are wrong" in dict(found.summary())["samples"]
    upgrade.cutover()
    kit.expect_new()
    assert open_store(kit.uri).space() == NEW
    upgrade.rollback()
    kit.expect_old()
    assert open_store(kit.uri).space() == OLD
    upgrade.cutover()
    kit.expect_new()
    upgrade.retire(confirm=True)
    kit.expect_new()
    assert kit.dataset.schema.names == ["id", "text", "vector"]
    targets = [entry.target for entry in upgrade.status().history]
    assert targets == [
        "planned", "transforming", "built", "verified", "cut_over", "rolled_back", "cut_over", "retired",
    ]  # fmt: skip


def test_applying_what_is_built_changes_nothing(kit: Kit) -> None:
    upgrade = bring(kit, State.VERIFIED)
    version, status = kit.dataset.version, upgrade.status()
    assert upgrade.apply() == status
    assert kit.dataset.version == version


def test_interrupted_apply_resumes_where_it_was(kit: Kit) -> None:
    upgrade = kit.upgrade()
    stop_after(upgrade, 130)
    kit.expect_old()
    assert "vector__next" not in kit.dataset.schema.names
    status = upgrade.status()
    assert (status.state, status.rows_done, status.rows_total) == (State.TRANSFORMING, 120, 240)
    seen: list[int] = []
    upgrade.apply(lambda done, total: seen.append(done))
    assert seen[0] == 120
    assert seen[-1] == 240
    kit.expect_new("vector__next")


def test_retire_says_what_it_would_delete_and_needs_confirmation(kit: Kit) -> None:
    upgrade = bring(kit, State.CUT_OVER)
    with pytest.raises(
        UpgradeError, match=r"deletes the old vectors \(old-model.*, about 15.4 KB\).*--confirm"
    ):
        upgrade.retire()
    assert "vector__previous" in kit.dataset.schema.names
    upgrade.rollback()
    with pytest.raises(UpgradeError, match="deletes the new vectors"):
        upgrade.retire()


def test_retire_after_rollback_deletes_the_new_vectors(kit: Kit) -> None:
    upgrade = bring(kit, State.ROLLED_BACK)
    upgrade.retire(confirm=True)
    kit.expect_old()
    assert kit.dataset.schema.names == ["id", "text", "vector"]


def test_rollback_before_verification_does_not_open_cutover(kit: Kit) -> None:
    upgrade = bring(kit, State.BUILT)
    upgrade.rollback()
    kit.expect_old()
    with pytest.raises(UpgradeError, match="rolled back before it was verified"):
        upgrade.cutover()
    for step in ("apply", "verify", "cutover"):
        do(upgrade, step)
    kit.expect_new()


def test_rows_that_change_while_a_sample_is_taken_are_not_wrong(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their part is late by then, though it was not when the sample was asked for."""
    kit.dataset.create_scalar_index("id", "BTREE")  # with it an update leaves rows in their fragment
    upgrade = bring(kit, State.BUILT)
    honest, writes = upgrade.store.sample, iter(range(2))

    def sample(*arguments: Any) -> Any:
        if (number := next(writes, None)) is not None:
            changed = list(range(60 * number, 60 * number + 5))
            update = kit.table.merge_insert("id").when_matched_update_all()
            update.execute(rows(changed, old_vectors([one + 500 for one in changed])))
        return honest(*arguments)

    monkeypatch.setattr(upgrade.store, "sample", sample)
    assert upgrade.verify().passed
    assert next(writes, None) is None
    upgrade.cutover()
    found = kit.read()
    for one in (0, 64):
        np.testing.assert_allclose(found[one], new_vectors([one + 500])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("write", ["update", "add"])
def test_what_began_before_the_switch_is_not_committed_after_it(kit: Kit, write: str) -> None:
    """It would change old vectors under their new name, and leave the new ones stale or missing."""
    kit.dataset.create_scalar_index("id", "BTREE")
    upgrade = bring(kit, State.VERIFIED)
    # Begun at the version before; executed without reading the table anew, as a commit under way is.
    before = kit.dataset
    changed = rows([5], old_vectors([505])) if write == "update" else rows([900], old_vectors([900]))
    uncommitted = (
        before.merge_insert("id").when_matched_update_all().execute_uncommitted(changed)[0]
        if write == "update"
        else lance.fragment.write_fragments(changed, str(before.uri), mode="append", return_transaction=True)
    )
    upgrade.cutover()
    with pytest.raises((OSError, RuntimeError), match=r"(?i)conflict"):
        lance.LanceDataset.commit(before, uncommitted)
    kit.expect_new()


def test_writers_that_never_pause_keep_the_switch_from_happening(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade, numbers = bring(kit, State.VERIFIED), iter(range(1000, 2000))
    honest = upgrade.store.switch

    def switch(*arguments: Any, **options: Any) -> Any:
        one = [next(numbers)]
        kit.table.add(rows(one, old_vectors(one)))
        return honest(*arguments, **options)

    monkeypatch.setattr(upgrade.store, "switch", switch)
    monkeypatch.setattr(type(upgrade.store), "strict_rounds", 3)
    with pytest.raises(
        StoreError, match=r"nothing was switched: let writers pause .* crossfade cutover again"
    ):
        upgrade.cutover()
    monkeypatch.undo()
    assert "vector__previous" not in kit.dataset.schema.names
    upgrade.cutover()
    kit.expect_new()


def test_a_damaged_part_keeps_cutover_closed(kit: Kit) -> None:
    upgrade = bring(kit, State.BUILT)
    path = sorted(kit.folder.rglob("crossfade-*.lance"))[2]
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationFailed, match=r"checksums: file crossfade-.* has other content"):
        upgrade.verify()
    with pytest.raises(IllegalTransition):
        upgrade.cutover()
    kit.expect_old()


def test_a_wrong_vector_is_found_by_recomputing(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfade.upgrade.building import Builder

    honest = Builder._advance

    def broken(self: Builder, batch: object) -> object:
        made = honest(self, batch)  # type: ignore[arg-type]
        made.vectors[0] = made.vectors[1]
        return made

    monkeypatch.setattr(Builder, "_advance", broken)
    upgrade = bring(kit, State.BUILT)
    with pytest.raises(VerificationFailed, match=r"samples: 16 of 240 recomputed vectors differ: 0, 16"):
        upgrade.verify()
    assert upgrade.status().state is State.BUILT


def test_rows_written_while_the_new_vectors_serve_survive_a_rollback(kit: Kit) -> None:
    upgrade = bring(kit, State.CUT_OVER)
    kit.table.add(rows([900, 901], new_vectors([900, 901])))
    status = upgrade.rollback()
    assert "2 rows have no old vector" in status.remarks[0]
    assert kit.read()[900] is None
    upgrade.cutover()
    np.testing.assert_array_equal(kit.read()[900], new_vectors([900, 901])[0])
    kit.expect_new()


def test_rows_written_after_a_rollback_are_caught_up_with(kit: Kit) -> None:
    upgrade = bring(kit, State.ROLLED_BACK)
    kit.table.add(kit.gallery([900]))
    status = upgrade.cutover()
    assert "caught up with 1 rows" in status.history[-1].note
    kit.expect_new()


def test_a_second_plan_waits_for_the_end_of_the_first(kit: Kit) -> None:
    upgrade = bring(kit, State.BUILT)
    upgrade.rollback()
    upgrade.retire(confirm=True)
    again = kit.upgrade()
    again.apply()
    with pytest.raises(UsageError, match="column 'vector__next' exists already"):
        kit.upgrade()
    other = kit.plan("query")
    with pytest.raises(UpgradeError, match=rf"upgrade {again.plan.id} is built; end it first"):
        Upgrade.create(other)


def test_a_plan_that_was_never_begun_gives_way(kit: Kit) -> None:
    first, second = kit.upgrade(), kit.upgrade()
    assert Upgrade.open(kit.uri).plan == second.plan
    assert first.plan.id != second.plan.id
    assert Upgrade.create(second.plan).status() == second.status()


def test_keep_ends_where_it_begins(kit: Kit) -> None:
    upgrade = kit.upgrade("keep")
    with pytest.raises(UpgradeError, match="keeps the old model; there is nothing to apply"):
        upgrade.apply()
    assert upgrade.status().state is State.PLANNED


def test_a_switch_that_was_not_recorded_is_noticed(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process had been killed between the commit and the journal."""
    upgrade = bring(kit, State.VERIFIED)
    store = open_store(kit.uri)
    assert store.switch(upgrade.plan.staging, upgrade._receipts) == []
    assert upgrade.status().state is State.VERIFIED
    upgrade.rollback()
    kit.expect_old()
    assert [entry.note for entry in upgrade.status().history][-2:] == [
        "found switched after an interruption",
        "",
    ]
    upgrade.cutover()
    store.switch_back(upgrade.plan.staging)
    upgrade.cutover()
    kit.expect_new()
    store.drop_old(upgrade.plan.staging)
    with pytest.raises(IllegalTransition, match="is retired"):
        upgrade.rollback()


def test_readers_see_either_all_old_or_all_new(kit: Kit) -> None:
    """A reader that opens the table again and again, while it is switched back and forth."""
    upgrade = bring(kit, State.VERIFIED)
    seen: set[int] = set()
    wrong: list[object] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            table = kit.dataset.to_table(columns=["vector"])
            widths = {len(one) for one in table.column(0).to_pylist() if one is not None}
            seen.update(widths)
            if len(widths) != 1 or table.num_rows != 240 or table.column(0).null_count:
                wrong.append((widths, table.num_rows, table.column(0).null_count))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(8):
            upgrade.cutover()
            upgrade.rollback()
    finally:
        ended.set()
        reader.join()
    assert wrong == []
    assert seen == {16, 24}


def test_rows_appended_while_apply_and_cutover_run_are_not_lost(kit: Kit) -> None:
    upgrade = kit.upgrade(changed_rows=1.0)
    added: list[int] = []
    ended = threading.Event()

    def write() -> None:
        table, number = kit.table, 5000
        while not ended.is_set():
            if kit.dataset.schema.field("vector").type.list_size != 16:
                return
            try:
                table.checkout_latest()
                table.add(kit.gallery([number]))
            except (ValueError, RuntimeError):  # the application notices that its vectors no longer fit
                return
            added.append(number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for step in ("apply", "verify", "cutover"):
            do(upgrade, step)
    finally:
        ended.set()
        writer.join()
    assert added
    found = kit.read()
    assert set(added) <= set(found)
    kit.expect_new()


def test_index_is_carried_through(kit: Kit) -> None:
    kit.dataset.create_index("vector", "IVF_FLAT", metric="cosine", num_partitions=2, name="vector_idx")
    upgrade = kit.upgrade()
    before = open_store(kit.uri).describe().index
    assert before is not None
    for step in ("apply", "verify"):
        do(upgrade, step)
        assert open_store(kit.uri).describe().index == before
    upgrade.cutover()
    found = open_store(kit.uri).describe().index
    assert found is not None
    assert before.same_kind(found)
    assert found.name != before.name
    upgrade.rollback()
    assert open_store(kit.uri).describe().index == before


def test_the_application_can_optimise_its_table_in_every_state(kit: Kit) -> None:
    """Lance fails to when new rows hold only nulls in an indexed column; so none is left on such a column."""
    kit.dataset.create_index("vector", "IVF_FLAT", metric="cosine", num_partitions=2, name="vector_idx")
    upgrade = kit.upgrade()
    for number, step in enumerate(("apply", "verify", "cutover", "rollback", "cutover", "retire")):
        do(upgrade, step)
        serves_new = upgrade.status().state in (State.CUT_OVER, State.RETIRED)
        one = [7000 + number]
        kit.table.add(rows(one, new_vectors(one) if serves_new else old_vectors(one)))
        kit.table.optimize()
        assert open_store(kit.uri).describe().index is not None
    assert set(kit.read()) == {*range(240), *range(7000, 7006)}


def test_backfill_resumes_between_batches(kit: Kit) -> None:
    """What an encoder made is never made again, even inside a part."""
    upgrade, encoder = kit.upgrade("backfill", items="text", new=NEW), NewEncoder()
    batches = iter(range(6))

    class Dies(NewEncoder):
        def encode(self, items: object) -> np.ndarray:
            if next(batches, None) is None:
                raise KeyboardInterrupt
            return super().encode(items)  # type: ignore[arg-type]

    dying = Dies()
    with pytest.raises(Interrupted):
        upgrade.apply(encoder=dying)
    upgrade.apply(encoder=encoder)
    assert sorted(dying.embedded + encoder.embedded) == sorted(f"item {one}" for one in range(240))
    upgrade.verify(encoder=NewEncoder())
    upgrade.cutover()
    kit.expect_new()
    assert not list(kit.folder.rglob("*.npz"))


def test_states_survive_reopening(kit: Kit, tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.json"
    kit.plan().save(plan_file)
    Upgrade.create(plan_file).apply()
    Upgrade.open(kit.uri).verify()
    Upgrade.open(kit.uri).cutover()
    assert Upgrade.create(plan_file).status().state is State.CUT_OVER
    kit.expect_new()
