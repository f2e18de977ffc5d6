"""How long points are read around the switch of a collection is said before it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
from qdrant_client import models
from upgrade_kit import OLD, adapter, old_vectors

from crossfade.stores.collection_parts import READERS
from crossfade.stores.qdrant import client_for
from crossfade.stores.qdrant_collection import QdrantCollection
from crossfade.upgrade import Upgrade, plan

ROWS = 3000
BATCH, BY_BATCH, LISTED, WRITTEN = 1000, 0.2, 0.1, 0.5
"""Points in a call; seconds that it takes to read them, to list all ids, and to write a batch."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes so long that nothing else counts, and far longer to write than to read."""

    def delay(name: str, seconds: Callable[[Any], float]) -> None:
        honest = getattr(QdrantCollection, name)

        def slowly(self: Any, *values: Any) -> Any:
            time.sleep(seconds(values))
            return honest(self, *values)

        monkeypatch.setattr(QdrantCollection, name, slowly)

    monkeypatch.setattr(QdrantCollection, "rows_at_once", BATCH)
    delay("ids", lambda _: LISTED)
    delay("get", lambda values: BY_BATCH * len(values[0]) / BATCH)
    delay("put", lambda values: WRITTEN * len(values[0]) / BATCH)


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A collection behind an alias."""
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path))
    client = client_for(f"qdrant://:memory:{tmp_path}")
    size = models.VectorParams(size=OLD.dimension, distance=models.Distance.COSINE)
    client.create_collection("items v1", vectors_config=size)
    points = [
        models.PointStruct(id=row, vector=one) for row, one in enumerate(old_vectors(range(ROWS)).tolist())
    ]
    client.upsert("items v1", points)
    named = models.CreateAlias(collection_name="items v1", alias_name="items")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=named)])
    return f"qdrant://:memory:{tmp_path}#items"


@pytest.mark.usefixtures("slow")
def test_the_pause_is_as_long_as_the_points_are_read(uri: str) -> None:
    upgrade = Upgrade.create(made := plan(uri, strategy="gallery", adapter=adapter("forward"), old=OLD))
    upgrade.apply()
    upgrade.verify()
    said = upgrade.pause()
    assert said is not None
    started = time.perf_counter()
    upgrade.cutover()
    took = time.perf_counter() - started
    assert took > 2 * (LISTED + BY_BATCH * ROWS / BATCH / READERS)
    assert took / 2 < said.seconds < took * 2
    planned = re.match(r"about ([\d.]+) s: nobody has to wait", made.estimates.pause)
    assert planned is not None
    assert took / 2 < float(planned[1]) < took * 2
