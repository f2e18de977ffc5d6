"""Partial backfill: everything is lifted, exactly the chosen items are embedded again; side-information."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upgrade_kit import MAP, NEW, OLD, Kit, NewEncoder, adapter, measured, new_vectors, old_vectors, rows

from crossfade.adapters import Adapter
from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.adapters.procrustes import Procrustes
from crossfade.errors import DimensionMismatch, InvalidVectors, StoreChanged, UnreadableFile, UsageError
from crossfade.spaces import Space
from crossfade.upgrade import Plan, Upgrade

SIDE = Space("side-model", 4)
SCRIPT = Path(__file__).with_name("kill_apply.py")


def partial(kit: Kit, **options: object) -> Plan:
    given = {"adapter": adapter("forward"), "items": "text", "budget": 0.1, **options}
    return kit.plan("partial", **given)


def most_uncertain(count: int, of: int = 240) -> set[int]:
    uncertainty = adapter("forward").uncertainty(old_vectors(range(of)))
    return set(np.argsort(-uncertainty, kind="stable")[:count].tolist())


class Marked(NewEncoder):
    """A new model whose vectors differ from lifted ones, so that one can tell them apart."""

    def encode(self, items: object) -> np.ndarray:
        made = super().encode(items)  # type: ignore[arg-type]
        return -made


# --- choosing ---------------------------------------------------------------------------------


def test_the_most_uncertain_items_are_embedded_again_and_no_others(tmp_path: Path) -> None:
    kit, encoder = Kit(tmp_path / "db").create(), Marked()
    made = partial(kit)
    assert made.chosen is not None
    assert made.chosen.count == 24
    upgrade = Upgrade.create(made)
    upgrade.apply(encoder=encoder)
    expected = most_uncertain(24)
    assert {int(item.split()[1]) for item in encoder.embedded} == expected
    assert len(encoder.embedded) == 24
    found = kit.read("vector__next")
    lifted = adapter("forward").transform(old_vectors(range(240)))
    for one in range(240):
        wanted = -new_vectors([one])[0] if one in expected else lifted[one]
        np.testing.assert_allclose(found[one], wanted, atol=1e-5)
    assert upgrade.verify(encoder=Marked()).passed
    upgrade.cutover(encoder=Marked())
    hits = upgrade.store.search(lifted[:1], 1, NEW, exact=True)[0]
    assert hits.ids[0].as_py() == 0 or 0 in expected


def test_the_same_gallery_gives_the_same_choice(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create()
    first, second = partial(kit).chosen, partial(kit).chosen
    assert first is not None
    assert second is not None
    assert first.sha256 == second.sha256
    assert first.path != second.path
    listed = pq.read_table(first.path).column("id").to_pylist()
    assert set(listed) == most_uncertain(24)


def test_a_changed_or_missing_list_is_refused(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create()
    made = partial(kit)
    assert made.chosen is not None
    path = Path(made.chosen.path)
    pq.write_table(pa.table({"id": [1, 2]}), path)
    with pytest.raises(
        StoreChanged, match=r"chosen.parquet: the plan was made with SHA-256 .*run crossfade plan"
    ):
        Upgrade.create(made).apply(encoder=NewEncoder())
    path.unlink()
    with pytest.raises(UnreadableFile, match=r"items that the plan chose cannot be read"):
        Upgrade.create(made).apply(encoder=NewEncoder())


def test_a_plan_survives_its_file_and_says_what_it_embeds(tmp_path: Path) -> None:
    made = partial(Kit(tmp_path / "db").create(), budget=0.25)
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made
    facts = dict(made.summary())
    assert facts["strategy"] == "partial (25.0% embedded again)"
    assert facts["embedded again"].startswith("60 items, listed in ")
    assert "embeds the 60 items whose lifted vectors are least certain" in made.steps[0]


# --- budgets ----------------------------------------------------------------------------------


def with_curve(values: tuple[float, ...], method: str = "ridge") -> dict[str, object]:
    """An evaluation that measured a backfill curve."""
    read = measured((0.01, 0.05, 0.09))
    points = [{"value": value, "low": value - 0.01, "high": value + 0.01} for value in values]
    against = [{"value": value - 0.5, "low": value - 0.6, "high": value - 0.4, "p": 0.01} for value in values]
    order = {"name": "uncertainty", "values": {"nDCG@10": points}, "against_old": {"nDCG@10": against}}
    order |= {"area": {"nDCG@10": points[0]}, "against_random": {}}
    shares = np.linspace(0, 1, len(values)).tolist()
    curve = {"task": "judged text", "method": method, "metrics": ["nDCG@10"], "primary": "nDCG@10"}
    curve |= {"shares": shares, "n_gallery": 240, "old": {"nDCG@10": 0.5}, "orders": [order], "skipped": {}}
    return json.loads(json.dumps({**read, "curves": [curve]}))  # type: ignore[no-any-return]


def test_a_target_quality_is_read_off_the_curve(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create()
    evaluation = with_curve((0.6, 0.7, 0.8))
    made = partial(kit, budget=None, target_quality=0.9375, evaluation=evaluation)  # 0.75 of 0.8
    assert made.budget == pytest.approx(0.75)
    assert made.chosen is not None
    assert made.chosen.count == 180
    (quality,) = made.quality
    assert quality.value == 0.7  # of the measured share below, not a guess above
    assert quality.old == 0.5
    with pytest.raises(UsageError, match=r"the lifted gallery alone keeps 70\.0%"):
        partial(kit, budget=None, target_quality=0.7, evaluation=evaluation)


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create()
    with pytest.raises(UsageError, match=r"none was measured; run crossfade evaluate --backfill-curve"):
        partial(kit, budget=None, target_quality=0.9)
    with pytest.raises(UsageError, match=r"none was measured"):
        partial(kit, budget=None, target_quality=0.9, evaluation=with_curve((0.6, 0.8), "fastfill"))
    with pytest.raises(UsageError, match=r"budget \(0.1\) or a target quality \(0.9\); give one"):
        partial(kit, target_quality=0.9)
    with pytest.raises(UsageError, match=r"above 0 and at most 1, got None; give --budget"):
        partial(kit, budget=None)
    with pytest.raises(UsageError, match=r"for a partial backfill, not for gallery"):
        kit.plan("gallery", budget=0.1)
    plain = Procrustes().fit(old_vectors(range(400)), new_vectors(range(400)), source=OLD, target=NEW)
    with pytest.raises(UsageError, match=r"procrustes predicts no uncertainty; use ridge"):
        partial(kit, adapter=plain)
    with pytest.raises(UsageError, match="name the column that holds them"):
        partial(kit, items="")
    with pytest.raises(UsageError, match="needs the encoder of new-model"):
        Upgrade.create(partial(kit)).apply()


# --- interruptions ----------------------------------------------------------------------------


def run(path: Path, *arguments: object) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent), *sys.path])
    command = [sys.executable, str(SCRIPT), str(path), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def test_killed_it_embeds_no_finished_batch_again_and_ends_in_the_same_vectors(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "db").create(240, 2)
    encoders = {"items": "python:upgrade_kit:NewEncoder"}
    made = partial(kit, budget=0.5, encoders=encoders, encoder=NewEncoder())
    made.save(tmp_path / "plan.json")
    assert run(tmp_path / "plan.json", "batch", 5) == -signal.SIGKILL
    assert run(tmp_path / "plan.json", "part written", 1) == -signal.SIGKILL
    encoder = NewEncoder()
    upgrade = Upgrade.open(kit.uri)
    upgrade.apply(encoder=encoder)
    assert len(encoder.embedded) < 120
    undisturbed = Kit(tmp_path / "other").create(240, 2)
    Upgrade.create(partial(undisturbed, budget=0.5)).apply(encoder=NewEncoder())
    expected, found = undisturbed.read("vector__next"), kit.read("vector__next")
    for one in range(240):
        np.testing.assert_array_equal(found[one], expected[one])


# --- side-information -------------------------------------------------------------------------


def side_vectors(ids: range | list[int]) -> np.ndarray:
    """Something that the old vector does not hold."""
    return np.stack([np.random.default_rng(1_000_000 + one).standard_normal(4) for one in ids]).astype("f")


def new_with_side(ids: range | list[int]) -> np.ndarray:
    made = old_vectors(ids) @ MAP + side_vectors(ids) @ MAP[:4]
    return np.asarray(made, dtype=np.float32)


def with_side(folder: Path, side: np.ndarray | None = None) -> Kit:
    """A gallery that carries side-information."""
    kit = Kit(folder)
    table = rows(range(120), old_vectors(range(120)))
    values = side_vectors(range(120)) if side is None else side
    flat = pa.array(values.reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    lancedb.connect(folder).create_table("items", table.append_column("side", column))
    return kit


@pytest.fixture(scope="module")
def with_psi() -> Adapter:
    ids = list(range(100_000, 100_600))
    made = ForwardTransformation(inner=32, epochs=4, warm_up_epochs=1, batch_rows=64, learning_rate=3e-3)
    return made.fit(
        old_vectors(ids), new_with_side(ids), source=OLD, target=NEW, side=side_vectors(ids), side_space=SIDE
    )


def test_the_upgrade_reads_side_information_from_its_column(tmp_path: Path, with_psi: Adapter) -> None:
    kit = with_side(tmp_path / "db")
    upgrade = Upgrade.create(kit.plan("gallery", adapter=with_psi, side="side"))
    upgrade.apply()
    assert upgrade.verify().passed
    found = kit.read("vector__next")
    expected = with_psi.transform(old_vectors(range(120)), side_vectors(range(120)))
    np.testing.assert_allclose(np.stack([found[one] for one in range(120)]), expected, atol=1e-5)
    assert dict(upgrade.plan.summary())["side-information"] == "column side"


def test_a_column_of_side_information_must_be_there_and_fit(tmp_path: Path, with_psi: Adapter) -> None:
    kit = with_side(tmp_path / "db")
    with pytest.raises(UsageError, match=r"needs the side-information of every item, 4 dimensions.*--side"):
        kit.plan("gallery", adapter=with_psi)
    with pytest.raises(UsageError, match=r"no column 'psi' with side-information; it has .*text, side"):
        kit.plan("gallery", adapter=with_psi, side="psi")
    with pytest.raises(UsageError, match=r"this ridge adapter takes none; leave --side out"):
        kit.plan("gallery", side="side")
    other = with_side(tmp_path / "other", side_vectors(range(120))[:, :3])
    with pytest.raises(DimensionMismatch, match=r"column 'side'.* has 3 dimensions, expected 4"):
        other.plan("gallery", adapter=with_psi, side="side")


def test_rows_with_unusable_side_information_are_refused_or_left_out(
    tmp_path: Path, with_psi: Adapter
) -> None:
    side = side_vectors(range(120))
    side[7] = np.nan
    kit = with_side(tmp_path / "db", side)
    with pytest.raises(InvalidVectors, match=r"1 rows cannot be given a new vector.*first ids: 7"):
        Upgrade.create(kit.plan("gallery", adapter=with_psi, side="side")).apply()
    skipping = with_side(tmp_path / "other", side)
    upgrade = Upgrade.create(skipping.plan("gallery", adapter=with_psi, side="side", on_invalid="skip"))
    upgrade.apply()
    assert [one for one, _ in upgrade.skipped()] == ["7"]
    assert skipping.read("vector__next")[7] is None
