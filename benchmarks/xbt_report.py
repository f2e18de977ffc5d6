"""What benchmarks/xbt.py publishes: tables, a curve over the pairs, everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xbt_measure import NAIVE_SWAP, NAMES, Result, Studied, ablation_keys, claims, curve_keys
from xbt_upgrade import STAGE_1, XBT, Upgrade, variants

from crossfade.evaluation import NAIVE, OLD_OLD, Difference, Estimate, RowResult, TaskResult
from crossfade.report.svg import Drawing, Scale

XBT_NAME = NAMES[XBT]
COLORS = ("#0a6fb5", "#c2571a")
STYLE = (
    "<style>text { font: 13px system-ui, sans-serif; fill: #333 } .grid { stroke: #ddd } "
    ".reference { stroke: #888; stroke-dasharray: 6 4 } .tick { font-size: 11px; fill: #666 } "
    + " ".join(
        f".line-{place} {{ stroke: {color}; fill: none; stroke-width: 2 }} "
        f".dot-{place} {{ fill: {color} }} .bar-{place} {{ stroke: {color} }}"
        for place, color in enumerate(COLORS)
    )
    + "</style>"
)


@dataclass(frozen=True)
class Report:
    """An upgrade, its results by test, and the seconds and machine of every stage."""

    upgrade: Upgrade
    results: Sequence[Result]
    stages: Mapping[str, Mapping[str, Any]]


def write(report: Report, out: Path, prefix: str = "") -> str:
    """Files in `out`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    name = f"{prefix}xbt-{report.upgrade.name}"
    text = json.dumps(_rounded(to_dict(report)), ensure_ascii=False, indent=1, allow_nan=False)
    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    pictures: dict[str, str] = {}
    if report.upgrade.studies:
        for result in report.results:
            for direction, studied in result.studied.items():
                file = f"{name}-{result.name}-{'-to-'.join(direction.split('→'))}.svg"
                title = f"{studied.metrics[-1]} of {direction} against the number of pairs"
                (out / file).write_text(picture(studied, title, report.upgrade.counts), encoding="utf-8")
                pictures[f"{result.name} {direction}"] = file
    page = markdown(report, pictures)
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    return page


def to_dict(report: Report) -> dict[str, Any]:
    """Everything, JSON-ready."""
    return {
        "upgrade": asdict(report.upgrade),
        "stages": dict(report.stages),
        "tests": {
            result.name: {
                "images": result.sizes[0],
                "distinct captions": result.sizes[1],
                "evaluation": result.evaluation.to_dict(),
                "naive": {direction: row.to_dict() for direction, row in result.naive.items()},
                "variants": {direction: _estimates(studied) for direction, studied in result.studied.items()},
                "claims": claims(result, report.upgrade.counts),
            }
            for result in report.results
        },
    }


def _estimates(studied: Studied) -> dict[str, Any]:
    keys = studied.paired[studied.metrics[0]].keys
    return {
        key: {name: studied.paired[name].estimate(key).to_dict() for name in studied.metrics} for key in keys
    }


# --- the page -----------------------------------------------------------------------------------


def markdown(report: Report, pictures: Mapping[str, str]) -> str:
    """The page."""
    upgrade = report.upgrade
    lines = [f"# XBT: {upgrade.name}", "", _protocol(report), ""]
    for result in report.results:
        lines += [f"## {result.name}", "", _sizes(result), ""]
        for task in result.evaluation.tasks:
            lines += [
                f"### {task.name}",
                "",
                *main_table(task, result.naive[task.name]),
                "",
                *_best(task),
                "",
            ]
        lines += ["### Compatibility and verdict", ""]
        lines += [f"* {reason}" for reason in result.evaluation.verdict.reasons if "M(new→old)" in reason]
        lines += [f"* Verdict: {result.evaluation.verdict.sentence}"]
        lines += [f"* {one.sentence}" for one in result.evaluation.verdict.alternatives]
        lines += ["", "### What the method is to show", "", *_claims(result, upgrade), ""]
        if upgrade.studies:
            lines += _studies(result, upgrade, pictures)
    return "\n".join([*lines, "## Time", "", *_times(report.stages), ""])


def _protocol(report: Report) -> str:
    upgrade = report.upgrade
    asked = f"at most {upgrade.queries:,} queries of each direction" if upgrade.queries else "all queries"
    return (
        f"Old model: {upgrade.old}. New model: {upgrade.new}. Percent of {asked}; identical captions are one "
        "caption that is right for several images. 95 % intervals by bootstrap over images "
        f"({upgrade.samples:,} resamples); Δ is the paired difference to old/old on R@1, ▲ and ▼ where it is "
        "significant (for candidates corrected for their number). Flips: first results that became right and "
        "that became wrong, against old/old. The weight of an interpolation is chosen on one half of the "
        f"queries and scored on the other. Stage 2 makes {upgrade.steps} steps whatever the number of pairs. "
        "Direct training fits φ on the pairs' vectors of both models, then tunes as stage 2 does."
    )


def _sizes(result: Result) -> str:
    return f"{result.sizes[0]:,} images, {result.sizes[1]:,} distinct captions."


def main_table(task: TaskResult, naive: RowResult) -> list[str]:
    """The rows of `evaluate` in the papers' notation, the naive swap after old/old."""
    header = ["query/gallery", "", *(name.replace("Recall", "R") for name in task.metrics)]
    header += [f"Δ {task.primary.replace('Recall', 'R')}", "flips +/−", "old model at query time"]
    measured = [row for row in task.rows if row.metrics and row.key != NAIVE]
    rows = [_main_row(row, task) for row in [measured[0], naive, *measured[1:]]]
    return table(header, rows, 2)


def _best(task: TaskResult) -> list[str]:
    """Which way is highest, with the old model at query time and without; SLERP against XBT."""
    ways = [row for row in task.rows if row.candidate]
    lines = []
    for said, rows in (
        ("", ways),
        (" without the old model at query time", [row for row in ways if not row.needs]),
    ):
        best = max(rows, key=lambda row: row.metrics[task.primary].value)
        lines.append(f"* Highest {task.primary.replace('Recall', 'R')}{said}: {_title(best)}.")
    for key in (f"interpolate:{NAMES['procrustes']}", f"interpolate:{XBT_NAME}"):
        against = task.pairwise(key, f"native:{XBT_NAME}")
        lines.append(f"* {_title(task.row(key))} − XBT: {difference(against, marked=True)}.")
    return lines


def _main_row(row: RowResult, task: TaskResult) -> list[str]:
    against = row.against_old[task.primary]
    mark = "▲" if against.significantly_better else "▼" if against.significantly_worse else ""
    flips = "" if row.flips is None else f"{100 * row.flips.positive:.1f}/{100 * row.flips.negative:.1f}"
    same = row.key == OLD_OLD
    asks = "yes" if same or row.needs == ("old encoder",) or row.key.startswith("native-old") else ""
    cells = [percent(row.metrics[name]) for name in task.metrics]
    delta = "" if same else f"{difference(against)} {mark}".strip()
    return [row.notation, _title(row), *cells, delta, "" if same else flips, asks]


def _title(row: RowResult) -> str:
    if row.method == NAIVE_SWAP:
        return "naive swap, the first dimensions"
    if row.strategy == "native" and row.candidate:
        return row.method
    if row.key.startswith("interpolate:"):
        return f"{row.method} + SLERP with the old query, weight {row.weight:g}"
    return row.title


def _claims(result: Result, upgrade: Upgrade) -> list[str]:
    titles = _titles(upgrade)
    metrics = result.studied[next(iter(result.studied))].metrics
    rows = [
        [
            claim["direction"],
            f"{titles[claim['row']]} − {titles[claim['other']]}",
            *(difference(Difference(**claim["metrics"][name]), marked=True) for name in metrics),
        ]
        for claim in claims(result, upgrade.counts)
    ]
    header = ["direction", "difference", *(name.replace("Recall", "R") for name in metrics)]
    return table(header, rows, 2)


def _studies(result: Result, upgrade: Upgrade, pictures: Mapping[str, str]) -> list[str]:
    lines = ["### Number of pairs", ""]
    for direction, studied in result.studied.items():
        file = pictures.get(f"{result.name} {direction}")
        lines += [f"![{direction}]({file})", ""] * bool(file) + [f"{direction}:", ""]
        lines += [*_curve_table(studied, upgrade), ""]
    lines += ["### Ablations", ""]
    for direction, studied in result.studied.items():
        lines += [f"{direction}:", "", *_ablation_table(studied, upgrade), ""]
    return lines


def _curve_table(studied: Studied, upgrade: Upgrade) -> list[str]:
    header = [
        "pairs",
        *(f"{name.replace('Recall', 'R')}, {how}" for how in _WAYS for name in studied.metrics),
    ]
    rows = [
        [count, *(_cell(studied, key, name) for key in keys for name in studied.metrics)]
        for count, *keys in curve_keys(upgrade.counts)
    ]
    return table(header, rows, 1)


_WAYS = ("with stage 1", "without")


def _ablation_table(studied: Studied, upgrade: Upgrade) -> list[str]:
    titles = _titles(upgrade)
    header = ["", *(name.replace("Recall", "R") for name in studied.metrics)]
    header += [f"Δ {name.replace('Recall', 'R')} to it whole" for name in studied.metrics]
    rows = []
    for key in ablation_keys(upgrade):
        whole = STAGE_1 if key.endswith("-0") else XBT
        deltas = [
            "" if key == whole else difference(studied.difference(key, whole, name), marked=True)
            for name in studied.metrics
        ]
        rows.append([titles[key], *(_cell(studied, key, name) for name in studied.metrics), *deltas])
    return table(header, rows, 1)


def _cell(studied: Studied, key: str, metric: str) -> str:
    return percent(studied.paired[metric].estimate(key)) if key else "–"


def _titles(upgrade: Upgrade) -> dict[str, str]:
    found = {one.key: one.title for one in variants(upgrade)}
    return {**found, OLD_OLD: "old/old", "procrustes": "Procrustes from texts", "naive": "naive swap"}


def _times(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            name,
            f"{one['seconds']:,.0f}",
            f"{one['processor_seconds']:,.0f}",
            f"{one['threads']}",
            f"{one['load']}",
        ]
        for name, one in stages.items()
    ]
    total = sum(one["seconds"] for one in stages.values()) / 60
    machines = dict.fromkeys(
        f"{one['processor']}, {one['cores']} cores, torch {one['torch']}, Python {one['python']}"
        for one in stages.values()
    )
    header = ["stage", "seconds", "processor seconds", "threads", "load"]
    return [f"{total:,.0f} minutes in all on {' and '.join(machines)}.", "", *table(header, rows, 1)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """A pipe table; the first `left` columns are text."""
    rule = [":---" if place < left else "---:" for place in range(len(header))]
    return [f"| {' | '.join(row)} |" for row in [header, rule, *rows]]


def percent(one: Estimate) -> str:
    """``12.3 [11.0, 13.7]``."""
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def difference(one: Difference, *, marked: bool = False) -> str:
    """``+1.2 [+0.3, +2.0]``, with a mark where the interval is on one side of zero."""
    mark = "▲" if one.low > 0 else "▼" if one.high < 0 else ""
    text = f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]".replace("-", "−")
    return f"{text} {mark}".strip() if marked else text


# --- the curve ----------------------------------------------------------------------------------


def picture(studied: Studied, title: str, counts: Sequence[int]) -> str:
    """R@10 (the last metric) with intervals, with and without stage 1; steps of pairs at equal distances."""
    metric, points = studied.metrics[-1], curve_keys(counts)
    rows = studied.paired[metric]
    estimates = [rows.estimate(key) for _, *keys in points for key in keys if key]
    references = {
        name: rows.estimate(key).value for name, key in (("old/old", OLD_OLD), ("Procrustes", "procrustes"))
    }
    low = min([one.low for one in estimates] + list(references.values()))
    high = max([one.high for one in estimates] + list(references.values()))
    drawing, y = Drawing(760, 380, title, "plot"), Scale(low, high, 330, 40)
    for tick in y.ticks:
        drawing.line(60, y(tick), 560, y(tick), "grid")
        drawing.text(52, y(tick) + 4, f"{100 * tick:.3g} %", "tick", "end")
    for name, value in references.items():
        drawing.line(60, y(value), 560, y(value), "reference")
        drawing.text(566, y(value) + 4, name, "tick")
    places = [110 + 400 * place / max(1, len(points) - 1) for place in range(len(points))]
    for place, (count, *_) in zip(places, points, strict=True):
        drawing.text(place, 350, count, "tick", "middle")
    for line, way in enumerate(_WAYS):
        _line(drawing, line, [(x, keys[line]) for x, (_, *keys) in zip(places, points, strict=True)], rows, y)
        drawing.circle(70 + 180 * line, 20, 4, f"dot-{line}")
        drawing.text(80 + 180 * line, 24, way, "")
    drawing.text(310, 372, "pairs of stage 2", "tick", "middle")
    head, close, rest = str(drawing).partition(">")
    return f'{head}{close}<rect width="100%" height="100%" fill="white" />{STYLE}{rest}\n'


def _line(drawing: Drawing, line: int, points: Sequence[tuple[float, str]], rows: Any, y: Scale) -> None:
    there = [(x, rows.estimate(key)) for x, key in points if key]
    drawing.polyline([(x, y(one.value)) for x, one in there], f"line-{line}")
    for x, one in there:
        aside = x - 3 + 6 * line
        drawing.line(aside, y(one.low), aside, y(one.high), f"bar-{line}")
        drawing.circle(x, y(one.value), 4, f"dot-{line}", percent(one))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value
