"""Which items a partial backfill embeds again: chosen once, kept in a file that the plan vouches for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.adapters import Adapter
from crossfade.errors import StoreChanged, UnreadableFile, UsageError
from crossfade.evaluation.result import Evaluation
from crossfade.stores import Store
from crossfade.upgrade.plans import ChosenItems, Plan
from crossfade.upgrade.quality import searched_order
from crossfade.upgrade.strategies.lifting import expected_error
from crossfade.vectors import BATCH_ROWS
from crossfade.vectors.ids import normalize_ids

FILE = "chosen.parquet"


def budget_for(retained: float, evaluation: Evaluation | None, method: str, *, merged: bool) -> float:
    """Share of the gallery that keeps `retained` of the full backfill's quality in every task.

    Args:
        merged: whether lifted and re-embedded rows will be brought into one ranking; else the curve of scores
            as they are is read.

    Raises:
        UsageError: no curve of this method was measured, or `retained` is no share.
    """
    curves = [one for one in evaluation.curves if one.method == method] if evaluation else []
    if not curves:
        raise UsageError(
            f"a target quality is read off a backfill curve of {method}, and none was measured; "
            "run crossfade evaluate --backfill-curve and give its folder (--evaluation), or give --budget"
        )
    return max(curve.share_for(retained, order=searched_order(merged)) for curve in curves)


def choose_items(store: Store, plan: Plan, adapter: Adapter, budget: float) -> ChosenItems:
    """The ids of the most uncertain items, written beside the table. Reads the gallery once.

    Of equally uncertain items those that the store lists first are taken. Items that cannot be lifted are not
    among them: what is to happen to these is for the plan's `on_invalid` to say.

    Args:
        budget: share of the gallery's rows.
    """
    columns = [plan.side] if plan.side else []
    parts = [
        (normalize_ids(rows.ids, store.uri), expected_error(adapter, rows, plan))
        for rows in store.scan(rows=BATCH_ROWS, columns=columns)
    ]
    ids = pa.concat_arrays([ids for ids, _ in parts])
    uncertainty = np.concatenate([values for _, values in parts])
    order = np.argsort(-uncertainty, kind="stable")[: round(budget * len(ids))]
    liftable = order[np.isfinite(uncertainty[order])]
    path = store.neighbourhood / plan.id / FILE
    _write(path, ids.take(pa.array(np.sort(liftable))))
    return ChosenItems(str(path.absolute()), len(liftable), _checksum(path))


def read_chosen(chosen: ChosenItems) -> pa.Array:
    """The ids, in the order of the store at the time of the plan.

    Raises:
        UnreadableFile: the file is gone.
        StoreChanged: it is not the one that the plan was made with.
    """
    path = Path(chosen.path)
    try:
        found = _checksum(path)
    except OSError as error:
        raise UnreadableFile(
            f"{path}: the items that the plan chose cannot be read ({error.strerror}); "
            "run crossfade plan again"
        ) from None
    if found != chosen.sha256:
        raise StoreChanged(
            f"{path}: the plan was made with SHA-256 {chosen.sha256[:12]}…, now it is {found[:12]}…; "
            "run crossfade plan again"
        )
    return pq.read_table(path).column("id").combine_chunks()


def _write(path: Path, ids: pa.Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        pq.write_table(pa.table({"id": ids}), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
