"""A gallery whose rows are of different origin, and the ways to bring their scores into one ranking.

    python benchmarks/mixed.py --data DIR [--out benchmarks/results] [--curves]

Real photographs and products under two models (MobileNet v1 0.25 → v2). Maps by ridge regression on four
fifths of the pairs, levelling on the others; held-out items as queries and gallery, the query itself taken
out. Of the gallery 0, 25, 50, 75 or 100 % are re-embedded; the rest is lifted (as in a partial backfill), or
old (searched by the mapped query), or one half of each. Re-embedded are random items or, where the rest is
lifted, those of the largest predicted error. Scales are fitted on one half of the queries and scored on
the other. `levelled`: the lifted vectors themselves are moved before they are written, then scores are
compared as they are; `levelled, quantile`: both. Seed 0.

At the end the backfill curve of `crossfade evaluate`, of a ridge map on all pairs, searched as a partial
backfill would be; --curves measures it alone and keeps the tables that were measured before.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matrix import Case, fashion, tiny_imagenet

from crossfade.adapters import Adapter, make_adapter
from crossfade.evaluation.backfill_curve import backfill_curve
from crossfade.evaluation.bootstrap import Groups
from crossfade.evaluation.curves import BackfillCurve
from crossfade.evaluation.levelling import fit_levelling
from crossfade.evaluation.measure import Measurement, Measurer, measure, nearest_neighbours
from crossfade.evaluation.merging import LIFTED, METHODS, OLD, QUANTILE, RAW, RE_EMBEDDED, MixedRows
from crossfade.evaluation.paired import paired_rows
from crossfade.evaluation.ranking import largest_first
from crossfade.evaluation.rows import SingleStage
from crossfade.evaluation.scoring import Scorer
from crossfade.evaluation.task import RetrievalTask
from crossfade.evaluation.unseen import unseen_items
from crossfade.report.curve_view import curve_view
from crossfade.report.markdown import table
from crossfade.vectors import FloatMatrix

RESULTS = Path(__file__).parent / "results"
SEED = 0
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CURVE_SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
SHOWN = 5e-5
"""Differences that the table's digits do not show are not marked."""
AGREEMENT = "agreement@10"
COLUMNS = {
    **{method: method for method in METHODS},
    "levelled raw": "levelled",
    "levelled quantile": "levelled, quantile",
}
ORDERS = {"random": "at random", "uncertainty": "by predicted error"}
RESTS = {"lifted": (LIFTED,), "old": (OLD,), "old and lifted": (OLD, LIFTED)}


@dataclass(frozen=True)
class Scored:
    """(Q, N) scores of every row as each origin would score it, the same with levelled rows; the map."""

    plain: dict[int, FloatMatrix]
    levelled: dict[int, FloatMatrix]
    forward: Adapter


def scores_of(case: Case) -> Scored:
    """Fit both maps on four fifths of the pairs, level on the others, score everything."""
    task, order = case.task, np.random.default_rng(SEED).permutation(len(case.pairs))
    cut = len(order) * 4 // 5
    pairs, rest = case.pairs.take(order[:cut]), case.pairs.take(order[cut:])
    forward = make_adapter("ridge").fit_pairs(pairs)
    backward = make_adapter("ridge").fit_pairs(pairs.reversed())
    new, old = task.queries_new.matrix, task.gallery_old
    metric = task.gallery_new.space.metric
    lifted = task.lift_gallery(forward)
    level = fit_levelling(forward.transform(rest.X), rest.Y, rest.Y)
    whole = Scorer(task.gallery_new.matrix, metric).scores(new)
    return Scored(
        {
            RE_EMBEDDED: whole,
            LIFTED: Scorer(lifted, metric).scores(new),
            OLD: Scorer(old.matrix, old.space.metric).scores(backward.transform(new)),
        },
        {RE_EMBEDDED: whole, LIFTED: Scorer(level(lifted), metric).scores(new)},
        forward,
    )


def origins_of(rest: str, order: np.ndarray[Any, np.dtype[np.intp]], share: float) -> np.ndarray[Any, Any]:
    """(N,) origin of every row: the first of `order` re-embedded, the others in turn of the rest's."""
    origins = np.empty(len(order), dtype=np.int64)
    count = round(share * len(order))
    origins[order[:count]] = RE_EMBEDDED
    kinds = RESTS[rest]
    for place, kind in enumerate(kinds):
        origins[order[count + place :: len(kinds)]] = kind
    return origins


def measure_case(case: Case) -> list[dict[str, Any]]:
    """Every rest, order, share and merge."""
    answerable = np.flatnonzero(Measurer(case.task.ground_truth, case.task.query_positions).answerable())
    task = case.task.take_queries(answerable)
    scores = scores_of(Case(case.name, task, case.pairs))
    chance = np.random.default_rng(SEED).permutation(task.n_gallery)
    uncertain = largest_first(scores.forward.uncertainty(task.gallery_old.matrix))
    plans = [(rest, "random", chance) for rest in RESTS] + [("lifted", "uncertainty", uncertain)]
    made = []
    for rest, name, order in plans:
        for share in SHARES:
            found = measured(task, scores, origins_of(rest, order, share))
            made += [{"case": case.name, "rest": rest, "order": name, "share": share, **one} for one in found]
        print(f"{case.name}: {rest}, {name}", flush=True)
    return made


def measured(task: RetrievalTask, scores: Scored, origins: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Labels and agreement of every merge, with the paired difference to raw scores."""
    merges: list[MixedRows] = [MixedRows(scores.plain, origins, task.query_positions, SEED)]
    if not (origins == OLD).any():
        moved = (scores.levelled, origins, task.query_positions, SEED, "levelled ")
        merges.append(MixedRows(*moved, methods=(RAW, QUANTILE)))
    new = Scorer(task.gallery_new.matrix, task.gallery_new.space.metric)
    near = nearest_neighbours(
        SingleStage("", task.queries_new.matrix, new, task.query_positions), task.n_gallery
    )
    by_label: dict[str, Measurement] = {}
    by_new: dict[str, Measurement] = {}
    for rows in merges:
        truths = [Measurer(task.ground_truth, task.query_positions), Measurer(near, task.query_positions)]
        for found, one in zip((by_label, by_new), measure(rows, truths), strict=True):
            found |= one
    metrics = [metric.name for metric in task.ground_truth.metrics]
    values = {name: {key: by_label[key].values[name] for key in by_label} for name in metrics}
    values[AGREEMENT] = {key: by_new[key].values[AGREEMENT] for key in by_new}
    paired = paired_rows(values, Groups(task.n_queries), samples=1000, seed=SEED)
    return [
        {
            "merge": method,
            "metrics": {name: rows.estimate(method).to_dict() for name, rows in paired.items()},
            "against raw": {name: rows.difference(method, RAW).to_dict() for name, rows in paired.items()},
        }
        for method in by_label
    ]


def measure_curve(case: Case) -> dict[str, Any]:
    """The backfill curve as it would be served, with raw scores beside it."""
    adapter = make_adapter("ridge", seed=SEED).fit_pairs(case.pairs)
    held_out, reason = unseen_items(case.task, adapter, case.pairs, seed=SEED)
    curve = backfill_curve(
        case.task, adapter, held_out=held_out, reason=reason, shares=CURVE_SHARES, seed=SEED
    )
    return curve.to_dict()


# --- tables -----------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """A table per case, rest and order."""
    lines = ["# Mixed galleries", ""]
    lines += [" ".join((__doc__ or "").split("\n\n")[2].split()), ""]
    lines += ["▲ better, ▼ worse than raw scores (95 % interval of the paired difference).", ""]
    for name, metric in results["primary"].items():
        rows = [one for one in results["rows"] if one["case"] == name]
        lines += [f"## {name}", "", f"{results['sizes'][name]}", ""]
        for rest, order in dict.fromkeys((one["rest"], one["order"]) for one in rows):
            chosen = [one for one in rows if (one["rest"], one["order"]) == (rest, order)]
            for shown in (metric, AGREEMENT):
                heading = f"The rest {rest}, re-embedded {ORDERS[order]}: {shown}"
                lines += [heading, "", *_table(chosen, shown), ""]
        lines += _curve(BackfillCurve.from_dict(results["curves"][name]))
    return "\n".join(lines)


def _curve(curve: BackfillCurve) -> list[str]:
    """As `crossfade evaluate` shows it."""
    view = curve_view(curve)
    rows = [
        (order, *values, f"{area.value} ({area.interval})", f"{against.value} {against.interval}".strip())
        for order, values, area, against in view.rows
    ]
    heading = f"The backfill curve: {view.title}"
    return [heading, "", table(view.header, rows), "", " ".join(view.notes), ""]


def _table(rows: list[dict[str, Any]], metric: str) -> list[str]:
    merges = [{one["merge"] for one in rows if one["share"] == share} for share in SHARES]
    shown = [one for one in COLUMNS if all(one in some for some in merges)]
    heads = " | ".join(COLUMNS[one] for one in shown)
    lines = [f"| re-embedded | {heads} |", "|---|" + "---|" * len(shown)]
    for share in SHARES:
        by_merge = {one["merge"]: one for one in rows if one["share"] == share}
        lines.append(f"| {share:.0%} | {' | '.join(_cell(by_merge[one], metric) for one in shown)} |")
    return lines


def _cell(row: dict[str, Any], metric: str) -> str:
    value, against = row["metrics"][metric], row["against raw"][metric]
    mark = " ▲" if against["low"] > SHOWN else " ▼" if against["high"] < -SHOWN else ""
    return f"{value['value']:.4f}{mark}"


def _nothing() -> dict[str, Any]:
    return {"seed": SEED, "primary": {}, "sizes": {}, "rows": [], "curves": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CROSSFADE_DATA"), help="the data folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--curves", action="store_true", help="measure the backfill curves only")
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data DIR, or set CROSSFADE_DATA")
    cases = [next(make(Path(options.data))) for make in (tiny_imagenet, fashion)]
    path, results = options.out / "mixed.json", _nothing()
    if options.curves:
        results = {**json.loads(path.read_text(encoding="utf-8")), "curves": {}}
    for case in cases:
        name = f"{case.task.name}: {case.name}"
        results["curves"][name] = measure_curve(case)
        if not options.curves:
            results["primary"][name] = case.task.ground_truth.primary
            results["sizes"][name] = f"{len(case.pairs):,} pairs; {case.task.n_gallery:,} gallery items."
            results["rows"] += measure_case(Case(name, case.task, case.pairs))
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (options.out / "mixed.md").write_text(markdown(results), encoding="utf-8")


if __name__ == "__main__":
    main()
