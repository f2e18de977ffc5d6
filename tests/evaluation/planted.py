"""Planted upgrades: the same items under an old and a new model whose relation is known."""

from __future__ import annotations

import numpy as np

from crossfade.evaluation import (
    Difference,
    Estimate,
    Flips,
    Judgements,
    Pairwise,
    RetrievalTask,
    RowResult,
    TaskResult,
    self_search_task,
)
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, FloatMatrix, Vectors

OLD, NEW = Space("old", 24), Space("new", 32)


def unit(matrix: FloatMatrix) -> FloatMatrix:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def vectors(matrix: np.ndarray, space: Space) -> Vectors:
    return Vectors(np.arange(len(matrix)), matrix, space)


def labelled_upgrade(
    *, n: int = 400, n_pairs: int = 600, noise: float = 0.9, new_noise: float = 0.45, seed: int = 0
) -> tuple[RetrievalTask, ArrayPairs]:
    """Classes on the sphere; the old model is the new one, turned, cut to 24 dimensions, with more noise."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((20, 32)))
    turn = np.linalg.qr(rng.standard_normal((32, 32)))[0][:, :24]
    labels = rng.integers(20, size=n + n_pairs)
    new = unit(centres[labels] + new_noise * unit(rng.standard_normal((len(labels), 32))))
    old = unit(new @ turn + noise * unit(rng.standard_normal((len(labels), 24))))
    held, fitted = slice(0, n), slice(n, None)
    pairs = ArrayPairs(old[fitted], new[fitted], source=OLD, target=NEW)
    return self_search_task(vectors(old[held], OLD), vectors(new[held], NEW), labels[held]), pairs


def unrelated_upgrade(seed: int = 0) -> tuple[RetrievalTask, ArrayPairs]:
    """The new model's vectors are noise: nothing should be recommended but to keep the old one."""
    rng = np.random.default_rng(seed)
    task, pairs = labelled_upgrade(seed=seed, noise=0.3)
    noise = vectors(unit(rng.standard_normal((task.n_queries, 32))), NEW)
    truth = task.ground_truth
    positions = task.query_positions
    task = RetrievalTask("labels", task.queries_old, noise, task.gallery_old, noise, truth, positions)
    return task, ArrayPairs(pairs.X, unit(rng.standard_normal((len(pairs), 32))), source=OLD, target=NEW)


def text_to_image(*, n: int = 300, seed: int = 0) -> tuple[RetrievalTask, ArrayPairs]:
    """Two captions per image; the gallery is the images. The same items as pairs' disjoint images."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((32, 32)))[0][:, :24]
    items = unit(rng.standard_normal((n + 500, 32)))
    old_items = unit(items @ turn + 0.8 * unit(rng.standard_normal((len(items), 24))))
    owner = np.repeat(np.arange(n), 2)
    texts = unit(items[owner] + 0.7 * unit(rng.standard_normal((2 * n, 32))))
    old_texts = unit(texts @ turn + 0.8 * unit(rng.standard_normal((2 * n, 24))))
    truth = Judgements(2 * n, n, np.arange(2 * n), owner, captions=True)
    sides = vectors(old_texts, OLD), vectors(texts, NEW), vectors(old_items[:n], OLD), vectors(items[:n], NEW)
    task = RetrievalTask("text→image", *sides, truth)
    return task, ArrayPairs(old_items[n:], items[n:], source=OLD, target=NEW)


# --- results that were never measured, for the rules of the verdict ----------------------------

COSTS = (
    "query:a",
    "gallery:a",
    "gallery:b",
    "interpolate",
    "cascade:query@20",
    "cascade:query@100",
    "cascade:gallery@20",
)
NEEDS = {"interpolate": ("old encoder",), "cascade": ("raw items",), "lifted-cascade": ("raw items",)}


def result(name: str = "t", n: int = 1000, kind: str = "judged", **means: float) -> TaskResult:
    """A task result in which a row's mean alone decides what is significant: differences of 0.02 and more.

    Keys of `means`: old, query, gallery, gallery_b, interpolate, cascade20, cascade100, lifted20, new.
    """
    names = (
        "old",
        "query",
        "gallery",
        "gallery_b",
        "interpolate",
        "cascade20",
        "cascade100",
        "lifted20",
        "new",
    )
    keys = ("old/old", *COSTS, "new/new")
    values = {key: means.get(short, means["old"]) for short, key in zip(names, keys, strict=True)}
    rows = tuple(_row(key, values) for key in keys)
    differences = [[difference(values[a] - values[b]) for b in keys] for a in keys]
    tables = {
        part: tuple(tuple(getattr(entry, part) for entry in row) for row in differences)
        for part in ("value", "low", "high", "p")
    }
    truth = "the new model's own neighbours" if kind == "neighbours" else "human judgements"
    return TaskResult(name, kind, truth, n, 5000, ("M",), "M", rows, Pairwise(keys, **tables))


def difference(value: float, adjusted: bool = False) -> Difference:
    p = 0.001 if abs(value) >= 0.02 else 0.5
    return Difference(value, value - 0.015, value + 0.015, p, p if adjusted else None)


def _row(key: str, values: dict[str, float]) -> RowResult:
    strategy = {"old/old": "keep", "new/new": "backfill"}.get(key, key.partition(":")[0])
    strategy = "lifted-cascade" if key.startswith("cascade:gallery@") else strategy
    depth = int(key.partition("@")[2]) if "@" in key else None
    gain = difference(values[key] - values["old/old"], adjusted=key in COSTS)
    value = values[key]
    return RowResult(
        key=key,
        notation=key,
        strategy=strategy,
        title=key,
        method="a",
        metrics={"M": Estimate(value, value - 0.01, value + 0.01)},
        against_old={"M": gain},
        gap_closed={"M": None},
        flips=Flips(0.0, 0.0),
        needs=NEEDS.get(strategy, ("raw items",) if strategy == "backfill" else ()),
        candidate=key in COSTS,
        weight=0.5 if strategy == "interpolate" else None,
        depth=depth,
        first_stage=key.partition(":")[2].partition("@")[0] if depth else "",
    )
