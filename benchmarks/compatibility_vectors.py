"""Compatibility of two models on their vectors: one table in the papers' notation, and the backfill curves.

    python benchmarks/compatibility_vectors.py --work DIR [--data DIR] [--out benchmarks/results]
    python benchmarks/compatibility_vectors.py --work DIR --data DIR --stand-in

Reads what benchmarks/compatibility.py left in WORK/vectors (and the new model's classifier in
WORK/models/new), trains h and its rivals on the 50,000 training photographs, and searches the 5,000
validation photographs: each is query and gallery, the query itself taken out, distances are those of the
models' spaces (L2; cosine for the model of the metric loss), intervals 95 % bootstrap over queries. Every map
is saved under WORK/maps and is not trained again.

--stand-in takes three published MobileNets instead (old v1 0.25, side-information v1 0.75, new v2 1.0), of
which only the validation photographs are at hand: 3,000 of them, drawn at random, are trained on, 2,000
searched. It tests this script; it is no result about training for compatibility.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from compatibility import read_stages

from crossfade.adapters import Adapter, load_adapter, make_adapter
from crossfade.evaluation import BackfillCurve, Difference, Estimate, backfill_curve, self_search_task
from crossfade.evaluation.assemble import gap_closed
from crossfade.evaluation.bootstrap import Groups
from crossfade.evaluation.ground_truth import Labels
from crossfade.evaluation.measure import Measurer
from crossfade.evaluation.paired import PairedRows, paired_rows
from crossfade.evaluation.rows import SingleStage
from crossfade.evaluation.scoring import Scorer
from crossfade.evaluation.unseen import unseen_items
from crossfade.report.curve_plot import curve_plot
from crossfade.report.curve_view import curve_view
from crossfade.spaces import Metric
from crossfade.vectors import ArrayPairs, FloatMatrix, Vectors, open_vectors

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parents[1] / "recipes" / "tiny-imagenet-100"
CLOSED_FORM = ("procrustes", "ridge", "residual-mlp")
OLD_OLD, NEW_NEW = "old/old", "new/new"


@dataclass(frozen=True)
class Split:
    """The same photographs under every model, row for row, with their classes."""

    vectors: dict[str, Vectors]
    labels: np.ndarray

    def pairs(self, new: str, *, labels: np.ndarray | None = None) -> ArrayPairs:
        """Old → new, with side-information, and classes if given."""
        old, target, side = self.vectors["old"], self.vectors[new], self.vectors["side-info"]
        return ArrayPairs(
            old.matrix,
            target.matrix,
            source=old.space,
            target=target.space,
            side=side.matrix,
            side_space=side.space,
            labels=labels,
        )


@dataclass(frozen=True)
class Row:
    """A search: queries of one model on a gallery, in the papers' notation."""

    key: str
    notation: str
    title: str
    queries: FloatMatrix
    gallery: FloatMatrix
    metric: Metric


# --- data -------------------------------------------------------------------------------------


def trained_vectors(work: Path) -> tuple[Split, Split]:
    """What the models' stages wrote; models that are not there yet are left out."""
    names = ("old", "new", "side-info", "bct", "metric")
    there = [name for name in names if (work / "vectors" / f"{name}.validation.parquet").exists()]
    missing = {"old", "new", "side-info"} - set(there)
    if missing:
        sys.exit(f"{work}/vectors lacks {', '.join(sorted(missing))}; run benchmarks/compatibility.py first")
    return tuple(_split(work, there, part) for part in ("train", "validation"))  # type: ignore[return-value]


def _split(work: Path, names: Sequence[str], part: str) -> Split:
    read = {
        name: open_vectors(str(work / "vectors" / f"{name}.{part}.parquet")).read(("label",))
        for name in names
    }
    return Split(read, read["old"].columns["label"].to_numpy(zero_copy_only=False))


def stand_in(data: Path, seed: int) -> tuple[Split, Split]:
    """Three MobileNets on the validation photographs."""
    folder = data / "tiny-imagenet-100" / "embeddings"
    files = sorted(folder.glob("*.parquet"))
    by_dimension = {}
    for file in files:
        found = open_vectors(str(file), space=file.stem).read(("label",))
        by_dimension[found.space.dimension] = found
    names = dict(
        zip(("old", "side-info", "new"), (by_dimension[d] for d in sorted(by_dimension)), strict=True)
    )
    labels = names["old"].columns["label"].to_numpy(zero_copy_only=False)
    order = np.random.default_rng(seed).permutation(len(labels))
    first, second = np.sort(order[:3000]), np.sort(order[3000:])
    return tuple(  # type: ignore[return-value]
        Split({name: one.take(rows) for name, one in names.items()}, labels[rows]) for rows in (first, second)
    )


# --- maps -------------------------------------------------------------------------------------


class Maps:
    """Adapters by name, trained once and saved under `folder`."""

    def __init__(self, folder: Path, fitted: Split, options: argparse.Namespace) -> None:
        self.folder, self.fitted, self.options = folder, fitted, options
        self.seconds: dict[str, float] = {}

    def get(self, name: str, method: str, new: str = "new", **changes: Any) -> Adapter:
        """The map `name`, trained if it is not there yet."""
        directory = self.folder / name
        note = directory.with_suffix(".json")
        if not note.exists():
            print(f"{time.strftime('%H:%M:%S')} train {name}", file=sys.stderr, flush=True)
            started = time.perf_counter()
            self._train(directory, method, new, changes)
            note.write_text(json.dumps({"seconds": round(time.perf_counter() - started, 1)}) + "\n")
        self.seconds[name] = json.loads(note.read_text())["seconds"]
        return load_adapter(directory)

    def _train(self, directory: Path, method: str, new: str, changes: dict[str, Any]) -> None:
        if method in CLOSED_FORM:
            make_adapter(method, seed=self.options.seed).fit_pairs(self.fitted.pairs(new)).save_pretrained(
                directory
            )
            return
        from crossfade.training.transformations import TransformationRecipe, label_codes, train_transformation

        recipe = TransformationRecipe.read(RECIPES / f"{method}.yaml", method, self.options.set)
        recipe = recipe.with_options(seed=self.options.seed, **changes)
        classifier = self._classifier(new) if method == "fastfill" else None
        codes = label_codes(self.fitted.labels.tolist(), classifier)
        pairs = self.fitted.pairs(new, labels=None if method == "fct" else codes)
        backward = changes.get("direction") == "backward"
        train_transformation(
            recipe,
            pairs.reversed() if backward else pairs,
            directory,
            classifier=classifier,
            device=self.options.device,
            progress=printing(directory.name),
        )

    def _classifier(self, new: str) -> Any:
        from crossfade.training.classifier import load_classifier

        folder = self.options.work / "models" / new
        return load_classifier(folder) if not self.options.stand_in and folder.exists() else None


def printing(name: str) -> Any:
    """Progress as a line now and then."""
    state = {"printed": 0.0}

    def advance(done: int, total: int) -> None:
        if time.perf_counter() - state["printed"] > 60:
            state["printed"] = time.perf_counter()
            print(f"{name}: {done:,}/{total:,} pairs", file=sys.stderr, flush=True)

    return advance


# --- rows -------------------------------------------------------------------------------------


def rows_between_same(maps: Maps, searched: Split) -> list[Row]:
    """Old and new of one architecture: every way in the papers."""
    old, new = searched.vectors["old"], searched.vectors["new"]
    side = searched.vectors["side-info"].matrix
    rows = [Row(OLD_OLD, "old/old", "status quo", old.matrix, old.matrix, old.space.metric)]
    if old.space.dimension == new.space.dimension:
        rows.append(_on_old("independent", "new/old", "trained freely", new.matrix, old))
    if "bct" in searched.vectors:
        bct = searched.vectors["bct"]
        rows.append(_on_old("bct", "new/old", "BCT", bct.matrix, old))
        rows.append(Row("bct-new", "new/new", "BCT", bct.matrix, bct.matrix, bct.space.metric))
    back = maps.get("lambda-orthogonal-back", "lambda-orthogonal", direction="backward")
    rows.append(_on_old("lambda-back", "new/old", "λ-orthogonal, B(new)", back.transform(new.matrix), old))
    lifts = {
        "procrustes": ("Procrustes", maps.get("procrustes", "procrustes")),
        "ridge": ("ridge", maps.get("ridge", "ridge")),
        "residual-mlp": ("residual MLP", maps.get("residual-mlp", "residual-mlp")),
        "lambda": (
            "λ-orthogonal, B⁻¹(F(old))",
            maps.get("lambda-orthogonal", "lambda-orthogonal", side_information=False),
        ),
        "fct": ("FCT without side-information", maps.get("fct", "fct", side_information=False)),
        "fct-side": ("FCT with side-information", maps.get("fct-side", "fct")),
        "fastfill": ("FastFill", maps.get("fastfill", "fastfill")),
    }
    for key, (title, adapter) in lifts.items():
        lifted = adapter.transform(old.matrix, side if adapter.side_dimension else None)
        rows.append(Row(key, "new/h(old)", title, new.matrix, lifted, new.space.metric))
    return [*rows, Row(NEW_NEW, "new/new", "full backfill", new.matrix, new.matrix, new.space.metric)]


def rows_between_different(maps: Maps, searched: Split) -> list[Row]:
    """A softmax ResNet of 256 dimensions → another ResNet of 128, trained with a metric loss."""
    old, new = searched.vectors["old"], searched.vectors["metric"]
    side = searched.vectors["side-info"].matrix
    lifts = {
        "ridge": ("ridge", maps.get("metric-ridge", "ridge", "metric")),
        "fct": (
            "FCT without side-information",
            maps.get("metric-fct", "fct", "metric", side_information=False),
        ),
        "fct-side": ("FCT with side-information", maps.get("metric-fct-side", "fct", "metric")),
    }
    rows = [Row(OLD_OLD, "old/old", "ResNet, softmax", old.matrix, old.matrix, old.space.metric)]
    for key, (title, adapter) in lifts.items():
        lifted = adapter.transform(old.matrix, side if adapter.side_dimension else None)
        rows.append(Row(key, "new/h(old)", title, new.matrix, lifted, new.space.metric))
    title = "other ResNet, metric loss"
    return [*rows, Row(NEW_NEW, "new/new", title, new.matrix, new.matrix, new.space.metric)]


def _on_old(key: str, notation: str, title: str, queries: FloatMatrix, old: Vectors) -> Row:
    return Row(key, notation, title, queries, old.matrix, old.space.metric)


# --- measuring --------------------------------------------------------------------------------


def measure(rows: Sequence[Row], labels: np.ndarray, *, samples: int, seed: int) -> dict[str, PairedRows]:
    """All rows on the same queries, by metric."""
    truth = Measurer(Labels(labels, labels), np.arange(len(labels)))
    measured: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        found = SingleStage(row.key, row.queries, Scorer(row.gallery, row.metric), np.arange(len(labels)))
        measured[row.key] = truth(found)[row.key].values
    names = list(measured[OLD_OLD])
    values = {name: {key: found[name] for key, found in measured.items()} for name in names}
    return paired_rows(values, Groups(len(labels)), samples=samples, seed=seed)


def section(rows: Sequence[Row], labels: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """A table as plain values, with the share of the gap that each row closes."""
    paired = measure(rows, labels, samples=options.samples, seed=options.seed)
    return {
        "rows": [
            {
                "key": row.key,
                "notation": row.notation,
                "title": row.title,
                "metrics": {name: asdict(table.estimate(row.key)) for name, table in paired.items()},
                "gap closed": {name: gap_closed(table, row.key) for name, table in paired.items()},
            }
            for row in rows
        ],
        "differences": [
            {
                "rows": [first, second],
                **{name: asdict(table.difference(first, second)) for name, table in paired.items()},
            }
            for first, second in COMPARED
            if {first, second} <= {row.key for row in rows}
        ],
    }


COMPARED = (
    ("fct-side", "fct"),
    ("fct-side", "residual-mlp"),
    ("fct-side", "ridge"),
    ("fct-side", OLD_OLD),
    ("fastfill", "fct-side"),
    ("fct", "ridge"),
    ("bct", OLD_OLD),
    ("bct-new", NEW_NEW),
    ("lambda", "fct"),
    ("lambda-back", OLD_OLD),
)


def curves(maps: Maps, searched: Split, options: argparse.Namespace) -> dict[str, BackfillCurve]:
    """FastFill's curve, and that of the λ-orthogonal forward map."""
    task = self_search_task(
        searched.vectors["old"], searched.vectors["new"], searched.labels, side=searched.vectors["side-info"]
    )
    found = {}
    for name in ("fastfill", "lambda-orthogonal"):
        print(f"{time.strftime('%H:%M:%S')} curve {name}", file=sys.stderr, flush=True)
        adapter = load_adapter(maps.folder / name)
        _, reason = unseen_items(task, adapter, None)
        found[name] = backfill_curve(task, adapter, reason=reason, samples=options.samples, seed=options.seed)
    return found


# --- writing ----------------------------------------------------------------------------------


def markdown(report: dict[str, Any], found: dict[str, BackfillCurve], name: str) -> str:
    """The tables and the plots."""
    lines = [f"# {report['title']}", "", report["protocol"], ""]
    for heading, content in report["sections"].items():
        lines += [f"## {heading}", "", *table(content), ""]
    lines += ["## Partial backfill", ""]
    for method, curve in found.items():
        view = curve_view(curve)
        lines += [f"![{view.title}]({name}-{method}.svg)", "", view.title + ".", ""]
        lines += ["| " + " | ".join(view.header) + " |", "|:---|" + "---:|" * (len(view.header) - 1)]
        for order, values, area, gain in view.rows:
            cells = [order, *values, f"{area.value} ({area.interval})"]
            lines.append("| " + " | ".join([*cells, f"{gain.value} {gain.interval}".strip()]) + " |")
        lines += ["", " ".join(view.notes), ""]
    environment = ", ".join(f"{key} {value}" for key, value in report["environment"].items())
    times = ", ".join(f"{key} {value:,.0f} s" for key, value in report["seconds"].items())
    return "\n".join(
        [
            *lines,
            *stages_table(report["stages"]),
            f"`{report['command']}`",
            "",
            f"{environment}.",
            f"Training of the maps: {times}.",
            "",
        ]
    )


def stages_table(stages: dict[str, dict[str, Any]]) -> list[str]:
    """What the models' stages took; the processor's seconds do not count what else the machine did."""
    if not stages:
        return []
    lines = ["## The models' stages", "", "| stage | seconds | processor seconds | machine | load |"]
    lines += ["|:---|---:|---:|:---|---:|"]
    for name, one in stages.items():
        machine = f"{one['processor']}, {one['cores']} cores, torch {one['torch']}"
        clocks = f"{one['seconds']:,.0f} | {one['processor_seconds']:,.0f}"
        lines.append(f"| {name} | {clocks} | {machine} | {one['load']} |")
    total = [sum(one[clock] for one in stages.values()) for clock in ("seconds", "processor_seconds")]
    return [*lines, f"| all | {total[0]:,.0f} | {total[1]:,.0f} | | |", ""]


def table(content: dict[str, Any]) -> list[str]:
    """Rows in the papers' notation; percentages with 95 % intervals."""
    names = list(content["rows"][0]["metrics"])
    header = [
        "query/gallery",
        "",
        *(name.replace("@", "-") for name in names),
        "gap closed, " + names[0].replace("@", "-"),
    ]
    lines = ["| " + " | ".join(header) + " |", "|:---|:---|" + "---:|" * (len(header) - 2)]
    for row in content["rows"]:
        cells = [row["notation"], row["title"], *(_percent(row["metrics"][name]) for name in names)]
        ends = row["key"] in (OLD_OLD, NEW_NEW)
        share = row["gap closed"][names[0]]
        gap = "" if ends else "–" if share is None else f"{100 * share:.0f} %"
        lines.append("| " + " | ".join([*cells, gap]) + " |")
    lines += ["", "Differences over the same queries:", ""]
    titles = {row["key"]: f"{row['notation']} {row['title']}" for row in content["rows"]}
    for one in content["differences"]:
        first, second = (titles[key] for key in one["rows"])
        figures = ", ".join(f"{name.replace('@', '-')} {_difference(one[name])}" for name in names)
        lines.append(f"* {first} − {second}: {figures}")
    return lines


def _percent(values: dict[str, float]) -> str:
    one = Estimate(**values)
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def _difference(values: dict[str, Any]) -> str:
    one = Difference(**values)
    return f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


COLORS = ("#777", "#0a6fb5", "#c2571a", "#2a8a4a")
SVG_STYLE = (
    "<style>text { font: 13px system-ui, sans-serif; fill: #333 } .grid { stroke: #ddd } "
    ".reference { stroke: #888; stroke-dasharray: 6 4 } .tick { font-size: 11px } "
    + " ".join(
        f".series-{place} {{ stroke: {color} }} .dot.series-{place} {{ fill: {color} }}"
        for place, color in enumerate(COLORS)
    )
    + " .series { fill: none; stroke-width: 2 } .series-name { stroke: none; font-weight: 600 }</style>"
)


def picture(curve: BackfillCurve) -> str:
    """The plot as a file of its own."""
    wide = curve_plot(curve)[0]
    head, close, rest = wide.partition(">")
    return f'{head}{close}<rect width="100%" height="100%" fill="white" />{SVG_STYLE}{rest}\n'


def environment() -> dict[str, Any]:
    """Where it ran."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CROSSFADE_DATA"), help="the data folder")
    parser.add_argument("--work", type=Path, default=Path("runs/compatibility"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--stand-in", action="store_true", help="three published models instead of our own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipes")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.stand_in and options.data is None:
        parser.error("give --data DIR, or set CROSSFADE_DATA")
    run(options)


def run(options: argparse.Namespace) -> None:
    """Maps, tables, curves, files."""
    name = "compatibility-stand-in" if options.stand_in else "compatibility"
    fitted, searched = (
        stand_in(Path(options.data), options.seed) if options.stand_in else trained_vectors(options.work)
    )
    folder = options.work / ("maps-stand-in" if options.stand_in else "maps")
    folder.mkdir(parents=True, exist_ok=True)
    maps = Maps(folder, fitted, options)
    sections = {"Old and new model": section(rows_between_same(maps, searched), searched.labels, options)}
    if "metric" in searched.vectors:
        different = rows_between_different(maps, searched)
        sections["Another data set, loss and architecture"] = section(different, searched.labels, options)
    found = curves(maps, searched, options)
    report = {
        "title": "Training for compatibility" + (" (stand-in vectors)" if options.stand_in else ""),
        "protocol": f"{len(searched.labels):,} photographs are queries and gallery, the query itself taken "
        f"out; maps trained on {len(fitted.labels):,} others. Percent, 95 % bootstrap intervals over them.",
        "command": "python benchmarks/compatibility_vectors.py --work DIR"
        + " --data DIR --stand-in" * options.stand_in
        + "".join(f" --set {one}" for one in options.set)
        + f" --samples {options.samples} --seed {options.seed}",
        "environment": environment(),
        "seconds": maps.seconds,
        "stages": {} if options.stand_in else read_stages(options.work),
        "sections": sections,
        "curves": {method: curve.to_dict() for method, curve in found.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(markdown(report, found, name))
    for method, curve in found.items():
        (options.out / f"{name}-{method}.svg").write_text(picture(curve))
    print(markdown(report, found, name))


if __name__ == "__main__":
    main()
