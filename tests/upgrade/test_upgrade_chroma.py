"""The state machine on Chroma, beside a client that keeps the old collection in its hands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="chromadb is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

from chroma_backend import ChromaBackend, client
from upgrade_kit import OLD, adapter, new_vectors, old_vectors

from crossfade.errors import StoreError
from crossfade.stores.collection_store import CollectionStore
from crossfade.upgrade import Upgrade, plan

ROWS = 240


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChromaBackend:
    monkeypatch.setattr(CollectionStore, "part_rows", 60)
    made = ChromaBackend(tmp_path / "db")
    made.create(list(range(ROWS)), old_vectors(range(ROWS)), parts=4)
    return made


def read(collection: Any) -> dict[str, np.ndarray]:
    found = collection.get(include=["embeddings"], limit=10_000)
    return {one: np.float32(vector) for one, vector in zip(found["ids"], found["embeddings"], strict=True)}


def test_what_a_client_wrote_to_the_old_collection_comes_over(backend: ChromaBackend) -> None:
    name = backend.uri.partition("#")[2]
    held = client().get_collection(name, embedding_function=None)
    upgrade = Upgrade.create(plan(backend.uri, strategy="gallery", adapter=adapter("forward"), old=OLD))
    upgrade.apply()
    upgrade.verify()
    upgrade.cutover()
    held.upsert(["3", "900"], old_vectors([500, 501]), metadatas=[{"text": "again"}, {"text": "late"}])
    held.delete(["7"])
    with pytest.raises(StoreError, match=r"3 records were written to the old collection"):
        upgrade.retire(confirm=True)
    upgrade.rollback()
    upgrade.cutover()
    upgrade.retire(confirm=True)
    served = read(client().get_collection(name, embedding_function=None))
    assert set(served) == {str(one) for one in range(ROWS) if one != 7} | {"900"}
    for one, source in (("3", 500), ("900", 501), ("8", 8)):
        np.testing.assert_allclose(served[one], new_vectors([source])[0], atol=1e-4)
