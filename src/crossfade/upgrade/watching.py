"""Watch whether the bridge of an upgrade serves recent queries as well as those that it was measured on."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.adapters.prepared import require_valid
from crossfade.errors import DataError, StoreError, UnreadableFile, UsageError
from crossfade.evaluation.bridge import Bridge, Sample, require_alike
from crossfade.evaluation.drift import FIDELITY, Change, changes, measure_bridge
from crossfade.spaces import Space
from crossfade.stores import Store
from crossfade.upgrade.checking import open_adapter
from crossfade.upgrade.plans import Plan
from crossfade.vectors import Vectors, open_vectors
from crossfade.vectors.open import open_writer

FOLDER = "watch"
KEPT_ITEMS, KEPT_QUERIES, MOST_QUERIES = 5000, 2000, 5000
LEAST_ITEMS, LEAST_QUERIES = 100, 50
LEAST_ALPHA = 1e-4


@dataclass(frozen=True)
class Watched:
    """What was found.

    Attributes:
        upgrade, strategy, store: what was watched.
        kept, recent: number of queries.
        alpha: chance of an alarm at one look if recent and kept queries are alike, over all measures.
        tolerance: smallest decay that counts.
        changes: every measure.
        at: time of the look, seconds since 1970.
    """

    upgrade: str
    strategy: str
    store: str
    kept: int
    recent: int
    alpha: float
    tolerance: float
    changes: tuple[Change, ...]
    at: float

    @property
    def drift(self) -> bool:
        """Whether any measure has decayed."""
        return any(one.alarm for one in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"drift": self.drift, **asdict(self), "changes": [one.to_dict() for one in self.changes]}


def bridge_of(plan: Plan) -> Bridge:
    """How the queries of a plan meet its gallery.

    Raises:
        UsageError: nothing bridges two spaces there.
        StoreChanged, UnreadableFile: the adapter is not the plan's any more.
    """
    first = plan.first_stage if plan.strategy == "cascade" else plan.strategy
    adapter = open_adapter(plan)
    if first in ("gallery", "lifted-cascade", "partial"):
        if adapter is not None and adapter.side_dimension:
            raise UsageError(
                f"upgrade {plan.id} lifts with side-information, which queries have not; "
                "it cannot be watched: run crossfade evaluate on recent items"
            )
        return Bridge("gallery", adapter)
    if first == "interpolate":
        return Bridge("interpolate", adapter, plan.weight)
    if first == "native":
        return Bridge("native")
    if first == "query":
        return Bridge("query", adapter)
    raise UsageError(f"strategy {plan.strategy} has no bridge between two models; there is nothing to watch")


# --- the sample that is kept ------------------------------------------------------------------


def keep_sample(
    plan: Plan, store: Store, gallery: Sample, queries: Sample | None = None, *, seed: int = 0
) -> tuple[int, int]:
    """Keep what recent queries will be compared with, beside the table; replaces an earlier sample.

    At most 5,000 items and 2,000 queries are kept, at random. None of them should be among the pairs that
    the adapter was fitted on, which it serves better than others.

    Args:
        gallery: items under both models.
        queries: under both models, drawn like the queries to come; None to take half of the items.

    Returns:
        How many items and queries were kept.

    Raises:
        UsageError: a model's vectors are missing, or the strategy has no bridge.
        SpaceError: vectors of other models than the plan's.
        DataError: too few items or queries, or vectors that no search can use.
    """
    bridge = bridge_of(plan)
    rng = np.random.default_rng(seed)
    if queries is None:
        order = rng.permutation(len(gallery))
        gallery, queries = gallery.take(order[::2]), gallery.take(order[1::2])
    for sample, least, what in ((gallery, LEAST_ITEMS, "items"), (queries, LEAST_QUERIES, "queries")):
        _require_enough(sample, least, what)
        _require_spaces(sample, plan, f"{what} to keep", old=True)
    gallery, queries = gallery.some(KEPT_ITEMS, rng), queries.some(KEPT_QUERIES, rng)
    measure_bridge(bridge, gallery, queries)  # what cannot be measured now could not be later
    _write(_folder(plan, store), {"items": gallery, "queries": queries})
    return len(gallery), len(queries)


def _write(folder: Path, samples: dict[str, Sample]) -> None:
    """Write the samples and put them in place of those before, whole or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", dir=folder.parent))
        try:
            for name, sample in samples.items():
                _write_both(draft, name, sample)
            _put_in_place(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"{folder}: the sample cannot be kept ({error.strerror}); free the disk, or run as one who may "
            "write there"
        ) from None


def _write_both(folder: Path, name: str, sample: Sample) -> None:
    for model, vectors in (("old", sample.old), ("new", sample.new)):
        assert vectors is not None
        with open_writer(folder / f"{name}_{model}.parquet", vectors.space) as writer:
            for batch in vectors.batches():
                writer.write(batch)


def _put_in_place(draft: Path, folder: Path) -> None:
    for before in folder.glob("*.parquet"):
        before.unlink()
    if folder.exists():
        folder.rmdir()
    draft.rename(folder)


def _kept(plan: Plan, store: Store) -> tuple[Sample, Sample]:
    folder = _folder(plan, store)
    if not folder.exists():
        raise UsageError(
            f"upgrade {plan.id} has no sample to compare with; keep one under both models, of items "
            "that the adapter was not fitted on: crossfade watch PLAN --keep --old FILE --new FILE"
        )
    try:
        read = {path.stem: open_vectors(path).read() for path in sorted(folder.glob("*.parquet"))}
        samples = tuple(Sample(read[f"{name}_old"], read[f"{name}_new"]) for name in ("items", "queries"))
    except (KeyError, UnreadableFile) as error:
        raise UnreadableFile(
            f"{folder}: the kept sample cannot be read ({error}); keep it again: crossfade watch PLAN --keep"
        ) from None
    for sample in samples:
        _require_spaces(sample, plan, "kept sample", old=True)
    return samples[0], samples[1]


def _folder(plan: Plan, store: Store) -> Path:
    return store.neighbourhood / plan.id / FOLDER


# --- looking ----------------------------------------------------------------------------------


def watch(
    plan: Plan,
    store: Store,
    queries: Sample,
    *,
    alpha: float = 0.01,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Watched:
    """Compare recent queries with the kept ones. Reads nothing of the store but the kept sample.

    Args:
        queries: a random sample of recent queries, under the new model, and under the old one where it is
            still at hand; at most 5,000 are looked at.
        alpha: false alarm rate of one look, at least 0.0001.
        tolerance: a decay of a mean by less than this is never an alarm.
        seed: of what is drawn.

    Raises:
        UsageError: no sample was kept, a model's vectors are missing, or a rate outside of 0.0001 to 0.5.
        SpaceError: vectors of other models than the plan's.
        DataError: too few queries, or vectors that no search can use.
    """
    if not LEAST_ALPHA <= alpha <= 0.5 or not tolerance >= 0:
        raise UsageError(
            f"a false alarm rate goes from {LEAST_ALPHA} to 0.5 and a tolerance is not below 0, "
            f"got {alpha} and {tolerance}"
        )
    bridge = bridge_of(plan)
    items, kept = _kept(plan, store)
    _require_enough(queries, LEAST_QUERIES, "recent queries")
    _require_spaces(queries, plan, "recent queries", old=False)
    queries = queries.some(MOST_QUERIES, np.random.default_rng(seed))
    before, now = measure_bridge(bridge, items, kept), measure_bridge(bridge, items, queries)
    found = changes(before, now, alpha=alpha, tolerance=tolerance, seed=seed)
    return Watched(
        plan.id, plan.strategy, plan.store, len(kept), len(queries), alpha, tolerance, found, time.time()
    )


def _require_enough(sample: Sample, least: int, what: str) -> None:
    if len(sample) < least:
        raise DataError(
            f"{len(sample)} {what} are too few to tell drift from chance; at least {least} are needed, "
            "and hundreds notice smaller changes"
        )


def _require_spaces(sample: Sample, plan: Plan, what: str, *, old: bool) -> None:
    _require_one(sample.under_new(what), plan.new, f"{what}, new model")
    if old or sample.old is not None:
        _require_one(sample.under_old(what), plan.old, f"{what}, old model")


def _require_one(vectors: Vectors, space: Space, what: str) -> None:
    require_alike(vectors.space, space, what)
    require_valid(vectors.matrix, what)


def summary(found: Watched) -> list[tuple[str, str]]:
    """What was found, for people: label and value pairs."""
    facts = [
        ("upgrade", f"{found.upgrade}, strategy {found.strategy}"),
        ("queries", f"{found.recent:,} recent, {found.kept:,} kept"),
        *((one.name, _in_words(one)) for one in found.changes),
    ]
    if not any(one.name == FIDELITY for one in found.changes):
        facts.append(("not measured", f"{FIDELITY}, which needs the queries under the old model, too"))
    noticed = ", ".join(f"{one.noticed:.3f} of {one.name}" for one in found.changes)
    facts.append(("would notice", f"a decay by {noticed}, four times out of five"))
    rate = f"at most {found.alpha:.2%} of looks at unchanged queries"
    facts.append(("false alarms", rate))
    return [*facts, ("next", _DRIFT if found.drift else "look again with later queries")]


_DRIFT = (
    "crossfade evaluate on recent queries says what is best now; fit the map on recent pairs and plan again; "
    "crossfade rollback goes back at once"
)


def _in_words(one: Change) -> str:
    by = one.difference
    return (
        f"{one.recent:.3f} against {one.kept:.3f} ({by.value:+.3f} [{by.low:+.3f}, {by.high:+.3f}], "
        f"p {by.p:.4f})" + ": DECAY" * one.alarm
    )
