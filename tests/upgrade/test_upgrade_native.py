"""Strategies `native` and `lifted-cascade`, from plan to rollback, on LanceDB and PostgreSQL."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from upgrade_kit import NEW, OLD, Kit, NewEncoder, OldEncoder, adapter, new_vectors, old_vectors

from crossfade.errors import DimensionMismatch, UnknownSpace, UsageError
from crossfade.spaces import Space
from crossfade.stores import Store, open_store
from crossfade.upgrade import Plan, Searcher, State, Upgrade, plan

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

BCT = Space("bct", OLD.dimension)
COUNT = 120
GONE = 5


@dataclass(frozen=True)
class Table:
    """A gallery in some store; item `GONE` has lost its raw item."""

    uri: str
    read: Callable[[], dict[int, np.ndarray | None]]

    def open(self) -> Store:
        return open_store(self.uri)

    def expect_old(self) -> None:
        found = self.read()
        np.testing.assert_array_equal(
            np.stack([found[one] for one in range(COUNT)]), old_vectors(range(COUNT))
        )


def _lancedb(folder: Path) -> Table:
    import lancedb

    kit = Kit(folder / "db")
    gallery = kit.gallery(list(range(COUNT)))
    texts = [None if one == GONE else f"item {one}" for one in range(COUNT)]
    gallery = gallery.set_column(1, "text", pa.array(texts, pa.string()))
    lancedb.connect(kit.folder).create_table("items", gallery)
    return Table(kit.uri, kit.read)


def _postgresql(folder: Path) -> Table:
    from pgvector_backend import Application, as_array, as_text, database

    application = Application(database())
    application.run("CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector(16) NOT NULL)")
    rows = [
        (one, None if one == GONE else f"item {one}", as_text(vector))
        for one, vector in enumerate(old_vectors(range(COUNT)))
    ]
    application.run_many("INSERT INTO items (id, text, vector) VALUES (%s, %s, %s)", rows)

    def read() -> dict[int, np.ndarray | None]:
        found = application.run("SELECT id, vector::text FROM items")
        return {one: as_array(vector) for one, vector in found}

    return Table(f"{application.address}#items.vector", read)


@pytest.fixture(params=["lancedb", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path))
    return _lancedb(tmp_path) if request.param == "lancedb" else _postgresql(tmp_path)


def carried_out(made: Plan, table: Table) -> Upgrade:
    upgrade = Upgrade.create(made, store=table.open())
    upgrade.apply()
    assert upgrade.verify().passed
    assert upgrade.cutover().state is State.CUT_OVER
    return upgrade


class BctEncoder(OldEncoder):
    @property
    def space(self) -> Space:
        return BCT


# --- native -----------------------------------------------------------------------------------


def test_a_compatible_model_searches_the_old_gallery_and_back(table: Table) -> None:
    made = plan(table.uri, strategy="native", new=BCT, old=OLD)
    assert (made.strategy, made.compatible, made.adapter, made.new) == ("native", True, None, BCT)
    assert made.steps[2].endswith("search the old gallery as they are")
    assert Plan.from_json(made.to_json()) == made
    upgrade = carried_out(made, table)
    searcher = Searcher(table.open(), new=BctEncoder(), old=OldEncoder(), exact=True)
    assert searcher.mode == "native"
    assert [hits.ids[0].as_py() for hits in searcher.search(["item 7", "item 41"], 3)] == [7, 41]
    assert searcher.search(new=old_vectors([9]), k=1)[0].ids[0].as_py() == 9
    table.expect_old()
    upgrade.rollback()
    assert searcher.mode == "keep"
    assert searcher.search(["item 7"], 1)[0].ids[0].as_py() == 7
    upgrade.cutover()
    assert searcher.mode == "native"
    upgrade.retire(confirm=True)
    assert searcher.mode == "native"
    table.expect_old()


def test_an_encoder_names_the_compatible_model(tmp_path: Path) -> None:
    made = plan(_lancedb(tmp_path).uri, strategy="native", encoder=BctEncoder(), old=OLD)
    assert (made.compatible, made.new) == (True, BCT)


def test_native_refuses_what_is_not_compatible(tmp_path: Path) -> None:
    uri = _lancedb(tmp_path).uri
    with pytest.raises(DimensionMismatch, match=r"new-model .* is said to be compatible .* not as long"):
        plan(uri, strategy="native", new=NEW, old=OLD)
    with pytest.raises(UsageError, match="strategy native searches without an adapter"):
        plan(uri, strategy="native", new=BCT, old=OLD, adapter=adapter("backward"))
    with pytest.raises(UnknownSpace, match="nothing says what the new model is"):
        plan(uri, strategy="native", old=OLD)


# --- cascade on a lifted gallery --------------------------------------------------------------


def lifted_cascade(table: Table, depth: int = 20) -> Plan:
    return plan(
        table.uri,
        strategy="lifted-cascade",
        adapter=adapter("forward"),
        items="text",
        depth=depth,
        old=OLD,
    )


def test_candidates_of_the_lifted_gallery_are_reranked_and_their_vectors_kept(table: Table) -> None:
    made = lifted_cascade(table)
    assert "fetches 20 candidates" in made.steps[2]
    assert Plan.from_json(made.to_json()) == made
    upgrade = carried_out(made, table)
    encoder = NewEncoder()
    searcher = Searcher(table.open(), items=encoder, exact=True)
    assert searcher.mode == "lifted-cascade"
    query = new_vectors([500])
    hits = searcher.search(new=query, k=5, columns=["text"])[0]
    embedded = [int(one.split()[1]) for one in encoder.embedded]
    assert 19 <= len(embedded) == len(set(embedded)) <= 20
    best = sorted(embedded, key=lambda one: -float(new_vectors([one])[0] @ query[0]))[:5]
    assert [one for one in hits.ids.to_pylist() if one != GONE] == [
        one for one in best if one in hits.ids.to_pylist()
    ]
    assert hits.columns["text"][0].as_py() == f"item {hits.ids[0].as_py()}"
    Searcher(table.open(), items=encoder, exact=True).search(new=query, k=5)
    assert len(encoder.embedded) == len(embedded)
    upgrade.rollback()
    table.expect_old()
    kept = Searcher(table.open(), old=OldEncoder(), exact=True)
    assert (kept.mode, kept.search(["item 7"], 1)[0].ids[0].as_py()) == ("keep", 7)
    upgrade.cutover()
    upgrade.retire(confirm=True)
    assert Searcher(table.open(), items=encoder, exact=True).search(new=query, k=5)[0].ids == hits.ids
    assert len(encoder.embedded) == len(embedded)


@pytest.mark.parametrize("strategy", ["cascade", "lifted-cascade"])
def test_a_candidate_without_its_raw_item_keeps_its_place(table: Table, strategy: str) -> None:
    if strategy == "cascade":
        made = plan(
            table.uri, strategy="cascade", adapter=adapter("backward"), items="text", depth=20, old=OLD
        )
    else:
        made = lifted_cascade(table)
    carried_out(made, table)
    encoder = NewEncoder()
    hits = Searcher(table.open(), items=encoder, exact=True).search(new=new_vectors([GONE]), k=20)[0]
    assert hits.ids[0].as_py() == GONE  # the first stage put it first, and nothing says otherwise
    assert "item 5" not in encoder.embedded
    assert len(encoder.embedded) == 19
    assert (np.diff(hits.scores) <= 0).all()
    assert np.isfinite(hits.scores).all()
    again = Searcher(table.open(), items=encoder, exact=True).search(new=new_vectors([GONE]), k=1)[0]
    assert again.ids[0].as_py() == GONE
    assert len(encoder.embedded) == 19


def test_where_no_candidate_can_be_embedded_the_first_stage_decides(tmp_path: Path) -> None:
    table = _lancedb(tmp_path)
    carried_out(lifted_cascade(table, depth=1), table)
    hits = Searcher(table.open(), items=NewEncoder(), exact=True).search(new=new_vectors([GONE]), k=1)[0]
    assert hits.ids.to_pylist() == [GONE]


def test_what_a_lifted_cascade_needs_is_said_when_it_is_planned(tmp_path: Path) -> None:
    uri = _lancedb(tmp_path).uri
    given = {"strategy": "lifted-cascade", "adapter": adapter("forward"), "old": OLD}
    with pytest.raises(UsageError, match="name the column that holds them"):
        plan(uri, depth=20, **given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a cascade re-ranks a number of candidates, at least 1, got None"):
        plan(uri, items="text", **given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no column 'image' with raw items"):
        plan(uri, items="image", depth=20, **given)  # type: ignore[arg-type]
