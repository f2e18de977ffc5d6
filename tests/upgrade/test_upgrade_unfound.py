"""Rows that get no new vector: no search finds them after the cutover, and everything says how many."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from upgrade_kit import NEW, OLD, Kit, NewEncoder, OldEncoder, adapter, new_vectors, old_vectors, rows

from crossfade.errors import InvalidVectors
from crossfade.upgrade import Searcher, Upgrade, plan

COUNT = 120
GONE = (3, 50, 51, 97)
SAID = "no search finds them while the new vectors are in use"


def gallery(folder: Path, *, items: bool = True) -> Kit:
    """A gallery in which some rows lack their item, or their old vector."""
    table = rows(range(COUNT), old_vectors(range(COUNT)))
    name = "text" if items else "vector"
    gone = pa.array([one in GONE for one in range(COUNT)])
    values = table.column(name).combine_chunks()
    kept = pa.array([None if one in GONE else row for row, one in enumerate(range(COUNT))], pa.int64())
    table = table.set_column(table.column_names.index(name), name, values.take(kept))
    assert table.column(name).null_count == len(gone.filter(gone)) == len(GONE)
    lance.write_dataset(table, str(folder / "items.lance"))  # without LanceDB's own checks
    return Kit(folder)


def everything(searcher: Searcher, model: str) -> set[int]:
    """All ids that a search for anything finds."""
    asked = new_vectors([1]) if model == "new" else old_vectors([1])
    return set(searcher.search(**{model: asked}, k=COUNT)[0].ids.to_pylist())  # type: ignore[arg-type]


def test_rows_without_an_item_vanish_from_a_backfill_and_are_counted_everywhere(tmp_path: Path) -> None:
    kit = gallery(tmp_path / "db")
    made = kit.plan("backfill", encoder=NewEncoder(), items="text", on_invalid="skip")
    assert dict(made.summary())["left out"] == (
        f"rows without a usable value in column text, which apply counts: {SAID}"
    )
    upgrade, searcher = Upgrade.create(made), Searcher(kit.uri, exact=True)
    upgrade.apply(encoder=NewEncoder())
    assert everything(searcher, "old") == set(range(COUNT))
    assert sorted(int(one) for one, _ in upgrade.skipped()) == list(GONE)
    checks = {one.name: one.detail for one in upgrade.verify(encoder=NewEncoder()).checks}
    assert checks["vectors"] == f"0 unusable, 4 without a vector (at most 4 expected); {SAID}"
    after = upgrade.cutover(encoder=NewEncoder())
    assert after.skipped == len(GONE)
    assert dict(after.summary())["skipped"] == f"4 rows without a new vector: {SAID}"
    assert everything(searcher, "new") == set(range(COUNT)) - set(GONE)
    upgrade.rollback()
    assert everything(searcher, "old") == set(range(COUNT))


def test_rows_without_an_old_vector_are_counted_by_the_plan(tmp_path: Path) -> None:
    kit = gallery(tmp_path / "db", items=False)
    with pytest.raises(InvalidVectors, match="4 null"):
        kit.plan()
    made = kit.plan(on_invalid="skip")
    assert dict(made.summary())["unusable vectors"] == f"4 null; to be skipped: {SAID}"
    upgrade = Upgrade.create(made)
    upgrade.apply()
    assert "4 without a vector" in dict(upgrade.verify().summary())["vectors"]
    assert upgrade.cutover().skipped == len(GONE)
    assert everything(Searcher(kit.uri, exact=True), "new") == set(range(COUNT)) - set(GONE)


def test_a_partial_backfill_lifts_what_it_cannot_embed(tmp_path: Path) -> None:
    """A row whose turn it is and whose item is gone has an old vector all the same."""
    kit = gallery(tmp_path / "db")
    options = {"adapter": adapter("forward"), "items": "text", "budget": 1.0}
    with pytest.raises(InvalidVectors, match=r"cannot be given a new vector \(1 no item\)"):
        Upgrade.create(kit.plan("partial", **options)).apply(encoder=NewEncoder())
    other = gallery(tmp_path / "other")
    upgrade = Upgrade.create(other.plan("partial", on_invalid="skip", **options))
    upgrade.apply(encoder=NewEncoder())
    assert upgrade.verify(encoder=NewEncoder()).passed
    upgrade.cutover(encoder=NewEncoder())
    assert upgrade.status().skipped == 0
    assert everything(Searcher(other.uri, exact=True), "new") == set(range(COUNT))
    found, lifted = other.read(), adapter("forward").transform(old_vectors(list(GONE)))
    for place, one in enumerate(GONE):
        np.testing.assert_allclose(found[one], lifted[place], atol=1e-5)


@pytest.mark.parametrize("strategy", ["cascade", "lifted-cascade"])
def test_a_candidate_whose_item_is_gone_is_found(tmp_path: Path, strategy: str) -> None:
    kit = gallery(tmp_path / "db")
    lifts = strategy == "lifted-cascade"
    made = plan(
        kit.uri,
        strategy=strategy,
        adapter=adapter("forward" if lifts else "backward"),
        items="text",
        depth=COUNT,
        old=OLD,
        new=NEW,
    )
    upgrade = Upgrade.create(made)
    upgrade.apply()
    upgrade.verify()
    upgrade.cutover()
    searcher = Searcher(kit.uri, old=OldEncoder(), items=NewEncoder(), exact=True)
    assert everything(searcher, "new") == set(range(COUNT))
    first = searcher.search(new=new_vectors(list(GONE)), k=1)
    assert [hits.ids[0].as_py() for hits in first] == list(GONE)
