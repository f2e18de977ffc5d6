"""How lifted and re-embedded rows of one column come into one ranking: chosen on a held-out sample."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load, save

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import DataError, StoreChanged, UnreadableFile, UsageError
from crossfade.evaluation.bridge import Sample
from crossfade.evaluation.levelling import Levelling
from crossfade.evaluation.merging import RAW, MergeChoice
from crossfade.evaluation.mixture import LEAST_ITEMS, MOST_ITEMS, HeldOut, Ways
from crossfade.stores import Store
from crossfade.upgrade.doctor import sample_rows
from crossfade.upgrade.plans import Mix, Plan
from crossfade.vectors import Vectors

FILE = "levelling.safetensors"
EMBEDDED_ITEMS = 1000
LARGEST_FILE = 1 << 20


def choose_mix(store: Store, plan: Plan, adapter: Adapter, held_out: Sample, *, seed: int = 0) -> Mix:
    """Measure what becomes of the ranking when part of a lifted gallery is embedded again; take the best.

    One half of the sample fits the levelling, the other half measures: its items ask for each other, the
    share of the plan's budget counts as re-embedded, the most uncertain first.

    Args:
        held_out: items under both models, none that the adapter was fitted on; at most 4,000 are taken.
        seed: of the halves.

    Raises:
        UsageError: the adapter takes side-information.
        SpaceError: vectors of other models than the plan's.
        DataError: fewer than 400 items.
    """
    if adapter.side_dimension:
        raise UsageError(
            f"a held-out sample has no side-information, which this {adapter.name} adapter needs; "
            "plan without held-out items, or with an adapter that takes none"
        )
    held_out = held_out.some(MOST_ITEMS, np.random.default_rng(seed))
    old, new = held_out.under_old("held-out items"), held_out.under_new("held-out items")
    plan.old.require_same(old.space, "held-out items, old model")
    plan.new.require_same(new.space, "held-out items, new model")
    if len(old) < LEAST_ITEMS:
        raise DataError(
            f"{len(old)} held-out items are too few to choose how scores are brought together; at least "
            f"{LEAST_ITEMS} are needed"
        )
    ways = Ways(HeldOut.by(adapter, old.matrix, new.matrix, plan.new.metric), seed=seed)
    plain, levelled = ways.measured(plan.budget or 0.0)
    if levelled is None or ways.level is None:
        return _mix(plain, plain)
    path = store.neighbourhood / plan.id / FILE
    return _mix(plain, levelled, str(path.absolute()), _write(path, ways.level))


def embedded_sample(store: Store, plan: Plan, encoder: Encoder, *, seed: int = 0) -> Sample | None:
    """Random rows of the store, embedded by the new model, in place of items that were held out.

    Some of them may be among the pairs that the adapter was fitted on; where these are a small part of the
    gallery that changes nothing. None if the store has too few rows, or too few with a raw item.
    """
    if plan.found.rows < LEAST_ITEMS:
        return None
    rows = sample_rows(store, EMBEDDED_ITEMS, seed, [plan.items])
    items: pa.Array = rows.columns[plan.items]
    there = np.flatnonzero(items.is_valid().to_numpy(zero_copy_only=False))
    if len(there) < LEAST_ITEMS:
        return None
    made = encoder.encode(items.take(pa.array(there)).to_pylist())
    ids = rows.ids.take(pa.array(there))
    return Sample(Vectors(ids, rows.vectors[there], plan.old), Vectors(ids, made, plan.new))


def _mix(plain: MergeChoice, chosen: MergeChoice, path: str = "", sha256: str = "") -> Mix:
    figures = {RAW: plain.quality[RAW].to_dict()}
    if path:
        figures["levelled"] = chosen.quality[RAW].to_dict()
    prefix = "levelled, " if path else ""
    figures |= {f"{prefix}{name}": one.to_dict() for name, one in chosen.quality.items() if name != RAW}
    return Mix(path, sha256, chosen.merge.to_dict(), figures, chosen.items)


def brings_together(mix: Mix | None) -> bool:
    """Whether lifted and re-embedded rows are searched in another way than by their scores as they are."""
    return mix is not None and (bool(mix.levelling) or mix.merge["method"] != RAW)


# --- the file ---------------------------------------------------------------------------------


def _write(path: Path, level: Levelling) -> str:
    content = save({"scale": np.array([level.scale], dtype=np.float64), "move": level.move})
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=4)
def read_levelling(path: str, sha256: str, dimension: int) -> Levelling:
    """The levelling of a plan.

    Raises:
        UnreadableFile: the file is gone, or holds something else.
        StoreChanged: it is not the one that the plan was made with.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE)
    except OSError as error:
        raise UnreadableFile(
            f"{path}: the plan's levelling cannot be read ({error.strerror}); run crossfade plan again"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise StoreChanged(
            f"{path}: the plan was made with SHA-256 {sha256[:12]}…, now it is {found[:12]}…; "
            "run crossfade plan again"
        )
    try:
        arrays = load(content)
        scale, move = float(arrays["scale"][0]), arrays["move"].astype(np.float32)
    except (SafetensorError, KeyError, IndexError, ValueError) as error:
        raise UnreadableFile(f"{path}: not a levelling ({error}); run crossfade plan again") from None
    if move.shape != (dimension,) or not 0 < scale <= 1 or not np.isfinite(move).all():
        raise UnreadableFile(
            f"{path}: a levelling of {move.shape} values, expected {dimension}; run crossfade plan again"
        )
    return Levelling(scale, move)
