"""The state machine on a second named vector of Qdrant's: words, searches, other clients, kill -9."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
from qdrant_client import models
from upgrade_kit import OLD, NewEncoder, OldEncoder, adapter, new_vectors, old_vectors

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from faults_network import QdrantRemote, QdrantServer

from crossfade.errors import StoreError, UpgradeError
from crossfade.stores import qdrant
from crossfade.stores.collection_store import CollectionStore
from crossfade.upgrade import Plan, Searcher, State, Upgrade, inspect_store
from crossfade.upgrade import plan as make_plan

ROWS = 240
SCRIPT = Path(__file__).with_name("kill_qdrant.py")


class Items:
    """A collection that is used by its own name."""

    def __init__(self, client: Any, place: str) -> None:
        self.client, self.uri = client, f"qdrant://{place}#items.vector"

    def create(self) -> Items:
        size = models.VectorParams(size=OLD.dimension, distance=models.Distance.COSINE)
        self.client.create_collection("items", vectors_config={"vector": size})
        return self.put(*range(ROWS))

    def put(self, *ids: int, **vectors: np.ndarray) -> Items:
        """The application writes points whole, with their old vectors unless others are given."""
        given = vectors or {"vector": old_vectors(ids)}
        points = [
            models.PointStruct(
                id=one,
                vector={name: made[row].tolist() for name, made in given.items()},
                payload={"text": f"item {one}"},
            )
            for row, one in enumerate(ids)
        ]
        self.client.upsert("items", points)
        return self

    def plan(self, map_: Any = None) -> Plan:
        made = make_plan(self.uri, strategy="gallery", adapter=map_ or adapter("forward"), old=OLD)
        return replace(made, batch_rows=16)

    def read(self, name: str) -> dict[int, np.ndarray]:
        found = self.client.scroll("items", limit=10_000, with_vectors=[name])[0]
        return {one.id: np.float32(one.vector[name]) for one in found if one.vector}

    def names(self) -> set[str]:
        return set(self.client.get_collection("items").config.params.vectors)

    def expect_new(self, name: str) -> None:
        found = self.read(name)
        ids = sorted(found)
        np.testing.assert_allclose(np.stack([found[one] for one in ids]), new_vectors(ids), atol=1e-4)


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Items:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(CollectionStore, "part_rows", 60)
    place = f":memory:{tmp_path}"
    return Items(qdrant.client_for(f"qdrant://{place}"), place).create()


def _apply(plan: Plan) -> Upgrade:
    upgrade = Upgrade.create(plan)
    upgrade.apply()
    assert upgrade.verify().passed
    return upgrade


def test_what_applications_have_to_do_is_said_beforehand(items: Items) -> None:
    remarks = [one for one in inspect_store(items.uri, space=OLD).problems if not one.blocks]
    assert "readers name the vector that they search, 'vector'" in remarks[0].message
    plan = items.plan()
    new = f"vector__{plan.id}"
    said = dict(plan.summary())
    assert f"using='{new}' in place of 'vector'" in said["pause at cutover"]
    steps = " ".join(plan.steps)
    assert f"records in one call that vector '{new}' serves in place of 'vector'" in steps
    assert "deletes 'vector', and what still names it fails then" in steps
    assert "rename" not in steps + plan.way_back
    assert f"'{new}' is kept" in plan.way_back
    upgrade = _apply(plan)
    assert f"using='{new}'" in dict(upgrade.verify().summary())["remark"]
    upgrade.cutover()
    with pytest.raises(UpgradeError, match=r"deletes the old vectors \(.*\), 'vector', and what still names"):
        upgrade.retire()


def test_searches_through_crossfade_follow_at_once(items: Items) -> None:
    upgrade = _apply(items.plan())
    searcher = Searcher(items.uri, old=OldEncoder(), new=NewEncoder())

    def mode() -> str:
        assert [one.ids[0].as_py() for one in searcher.search(["item 3", "item 7"], 1)] == [3, 7]
        return searcher.mode

    assert mode() == "keep"
    upgrade.cutover()
    assert mode() == "gallery"
    upgrade.rollback()
    assert mode() == "keep"
    upgrade.cutover()
    upgrade.retire(confirm=True)
    assert mode() == "gallery"
    assert items.names() == {f"vector__{upgrade.plan.id}"}


def test_points_with_the_old_vector_alone_are_brought_over_before_it_is_deleted(items: Items) -> None:
    upgrade = _apply(items.plan())
    upgrade.cutover()
    new = f"vector__{upgrade.plan.id}"
    own = new_vectors([300])
    items.put(3, ROWS).put(300, **{new: own})
    with pytest.raises(StoreError, match=rf"2 points .* 'vector' alone .*\(3, {ROWS}\).*crossfade rollback"):
        upgrade.retire(confirm=True)
    assert items.names() == {"vector", new}
    found = upgrade.rollback()
    assert "1 rows have no old vector" in found.remarks[0]
    upgrade.cutover()
    upgrade.retire(confirm=True)
    assert upgrade.status().state is State.RETIRED
    assert items.read(new).keys() == {*range(ROWS + 1), 300}
    items.expect_new(new)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder with a server's socket, whose path must be short."""
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        server = QdrantServer(Path(folder) / "q")
        yield Path(folder)
        server.close()


def _final(items: Items, plan: Path) -> dict[str, Any]:
    """Everything that a client can see, bit for bit, and the parts' checksums."""
    points = items.client.scroll("items", limit=10_000, with_vectors=True)[0]
    receipts = Upgrade.create(plan)._receipts.values()
    return {
        "points": [(one.id, one.payload, one.vector) for one in points],
        "names": items.names(),
        "parts": {one.part: (one.rows, one.nulls, one.checksum) for one in receipts},
    }


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_killed_anywhere_it_ends_as_if_it_had_not_been(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process gets one write further than the one before, until one comes to the end."""
    remote = QdrantRemote(served / "q")
    monkeypatch.setattr(qdrant, "client_for", lambda place: remote)
    items = Items(remote, "server:6333").create()
    adapter("forward").save_pretrained(tmp_path / "adapter")
    plan = items.plan(tmp_path / "adapter")
    plan.save(tmp_path / "plan.json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(served / "q")],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:

        def ended(count: int) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{tmp_path / 'plan.json'} {count}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert ended(0) == "done"
        expected = _final(items, tmp_path / "plan.json")
        assert expected["names"] == {f"vector__{plan.id}"}
        items.client.delete_collection("items")
        shutil.rmtree(tmp_path / "home")
        items.create()
        kills = 0
        while (how := ended(kills + 1)) == "killed":
            kills += 1
    assert how == "done"
    assert kills > 10
    assert _final(items, tmp_path / "plan.json") == expected
    items.expect_new(f"vector__{plan.id}")
