"""A gallery with a planted map between two spaces, and what upgrades it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa

from crossfade.adapters import Adapter, make_adapter
from crossfade.encoders import Encoder
from crossfade.spaces import Space
from crossfade.upgrade import Plan, Upgrade, plan

D_OLD, D_NEW = 16, 24
OLD, NEW = Space("old-model", D_OLD), Space("new-model", D_NEW)
MAP = np.linalg.qr(np.random.default_rng(7).standard_normal((D_NEW, D_OLD)))[0].T.astype(np.float32)


def old_vectors(ids: Sequence[int]) -> np.ndarray:
    """What the old model makes of items: a function of their id alone."""
    return np.stack([_old_vector(one) for one in ids])


@cache
def _old_vector(one: int) -> np.ndarray:
    return np.random.default_rng(one).standard_normal(D_OLD).astype(np.float32)


def new_vectors(ids: Sequence[int]) -> np.ndarray:
    """What the new model makes of items: a linear map of the old vector."""
    made = old_vectors(ids) @ MAP
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


def rows(ids: Sequence[int], vectors: np.ndarray | None, column: str = "vector") -> pa.Table:
    columns: dict[str, Any] = {"id": pa.array(ids, pa.int64()), "text": [f"item {one}" for one in ids]}
    if vectors is not None:
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        columns[column] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table(columns)


class NewEncoder(Encoder):
    """The new model; counts the items that it embeds."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    @property
    def space(self) -> Space:
        return NEW

    def encode(self, items: Sequence[Any]) -> np.ndarray:
        self.embedded += items
        return new_vectors([int(str(item).split()[1]) for item in items])


class OldEncoder(Encoder):
    """The old model."""

    @property
    def space(self) -> Space:
        return OLD

    def encode(self, items: Sequence[Any]) -> np.ndarray:
        return old_vectors([int(str(item).split()[1]) for item in items])


class Kit:
    """A LanceDB table under `folder`, and adapters both ways."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"lancedb://{folder}#items.vector"

    def create(self, count: int = 240, parts: int = 4) -> Kit:
        shutil.rmtree(self.folder, ignore_errors=True)
        chunks = np.array_split(np.arange(count), parts)
        table = lancedb.connect(self.folder).create_table("items", self.gallery(chunks[0].tolist()))
        for chunk in chunks[1:]:
            table.add(self.gallery(chunk.tolist()))
        return self

    @staticmethod
    def gallery(ids: Sequence[int]) -> pa.Table:
        return rows(ids, old_vectors(ids))

    @property
    def table(self) -> Any:
        return lancedb.connect(self.folder).open_table("items")

    def write(self, added: pa.Table) -> None:
        """Append without LanceDB's own checks."""
        lance.write_dataset(added, str(self.folder / "items.lance"), mode="append")

    @property
    def dataset(self) -> Any:
        return lance.dataset(str(self.folder / "items.lance"))

    def read(self, column: str = "vector") -> dict[int, np.ndarray | None]:
        found = self.dataset.to_table(columns=["id", column])
        pairs = zip(found.column("id").to_pylist(), found.column(column).to_pylist(), strict=True)
        return {one: None if value is None else np.array(value, np.float32) for one, value in pairs}

    def plan(self, strategy: str = "gallery", **options: Any) -> Plan:
        if strategy in ("gallery", "query", "interpolate", "cascade"):
            options.setdefault("adapter", adapter("forward" if strategy == "gallery" else "backward"))
        options.setdefault("old", OLD)
        return replace(plan(self.uri, strategy=strategy, **options), batch_rows=options.get("batch_rows", 16))

    def upgrade(self, strategy: str = "gallery", **options: Any) -> Upgrade:
        return Upgrade.create(self.plan(strategy, **options))

    def expect_new(self, column: str = "vector") -> None:
        """Every row's new vector is what the new model makes of it."""
        found = self.read(column)
        ids = sorted(found)
        np.testing.assert_allclose(np.stack([found[one] for one in ids]), new_vectors(ids), atol=1e-4)

    def expect_old(self) -> None:
        """Every row's vector is the old model's, bit for bit."""
        found = self.read()
        ids = sorted(found)
        np.testing.assert_array_equal(np.stack([found[one] for one in ids]), old_vectors(ids))


@cache
def adapter(direction: str) -> Adapter:
    """Fitted on items that are not in the gallery."""
    ids = list(range(100_000, 100_400))
    x, y = old_vectors(ids), new_vectors(ids)
    if direction == "forward":
        return make_adapter("ridge").fit(x, y, source=OLD, target=NEW)
    return make_adapter("ridge").fit(y, x, source=NEW, target=OLD)


def measured(
    difference: tuple[float, float, float], key: str = "gallery:ridge", **options: Any
) -> dict[str, Any]:
    """An evaluation as `Evaluation.to_dict` writes it, in which one row differs from old/old like this."""
    low, value, high = difference
    estimate = {"value": 0.5 + value, "low": 0.4, "high": 0.7}
    against = {"value": value, "low": low, "high": high, "p": 0.01}
    zero = {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    plain = {"gap_closed": {}, "flips": None, "needs": [], "candidate": True, "embedded": None, "note": ""}
    strategy, _, method = key.partition("@")[0].partition(":")
    row = {
        "key": key,
        "notation": "new/h(old)",
        "strategy": strategy,
        "title": key,
        "method": method,
        **plain,
    }
    row |= {"metrics": {"nDCG@10": estimate}, "against_old": {"nDCG@10": against}}
    row |= {"weight": None, "depth": None, "first_stage": "", **options}
    status_quo = {**row, "key": "old/old", "strategy": "keep", "method": "", "against_old": {"nDCG@10": zero}}
    status_quo["metrics"] = {"nDCG@10": {"value": 0.5, "low": 0.4, "high": 0.6}}
    pairwise: dict[str, Any] = {"keys": [], "value": [], "low": [], "high": [], "p": []}
    task = {"name": "judged text", "kind": "judged", "ground_truth": "human judgements", "n_queries": 100}
    task |= {"n_gallery": 240, "left_out": 0, "metrics": ["nDCG@10"], "primary": "nDCG@10", "agreement": {}}
    task |= {"rows": [status_quo, row], "pairwise": pairwise, "chance": {}, "distance": ["cosine", "cosine"]}
    verdict = {"strategy": strategy, "row": key, "sentence": "do it", "reasons": [], "method": method}
    verdict |= {
        "weight": None,
        "depth": None,
        "first_stage": "",
        "alternatives": [],
        "remaining": {},
        "gain": {},
    }
    verdict |= {"judged": True, **{name: value for name, value in options.items() if name in verdict}}
    spaces = {"old": OLD.to_dict(), "new": NEW.to_dict()}
    rest = {"pairs": 400, "fits": [], "skipped": [], "seed": 0, "samples": 1000, "seconds": 1.0}
    read: dict[str, Any] = json.loads(json.dumps({"tasks": [task], "verdict": verdict, **spaces, **rest}))
    return read
