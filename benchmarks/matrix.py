"""The query/gallery matrix on real vectors, with intervals, tests and the verdict.

    python benchmarks/matrix.py --data DIR [--out benchmarks/results] [--only tiny-imagenet|fashion|cisi]

Writes ``matrix-NAME.json`` (everything) and ``matrix-NAME.md`` (the tables). Everything is drawn with seed 0.
``--decide-again`` measures nothing: it takes the committed figures and writes the verdict they lead to now.

Protocols:
  tiny-imagenet: 3,000 of the 5,000 validation photographs, drawn at random, are the pairs; the other 2,000
    are both queries and gallery, the query itself taken out. Photographs that a map was fitted on are not
    in the gallery, because they would flatter the lifted galleries.
  fashion: the given split; train items are the pairs, test items are queries and gallery; the label is the
    article type. Test items that are alone in their class are in the gallery but are no queries.
  cisi: the 1,460 documents are the gallery and, unlabelled, the pairs; the 76 judged queries are held out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.datasets.beir import Beir, locate
from crossfade.evaluation import (
    Difference,
    Estimate,
    Evaluation,
    Judgements,
    RetrievalTask,
    RowResult,
    TaskResult,
    decide,
    evaluate,
    labelled_task,
    pairs_of,
    self_search_task,
)
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, Vectors, open_vectors

SEED = 0
PAIRS = 3000
MOBILENETS = {
    "mobilenet_v1_0.25_128": Space("mobilenet-v1-0.25-128", 256),
    "mobilenet_v1_0.75_192": Space("mobilenet-v1-0.75-192", 768),
    "mobilenet_v2_1.0_224": Space("mobilenet-v2-1.0-224", 1280),
}
TEXT = {
    "lsa-256": Space("lsa-256", 256),
    "minilm-l3": Space("minilm-l3", 384),
    "minilm-l6": Space("minilm-l6", 384),
}
NEW_IMAGE, NEW_TEXT = "mobilenet_v2_1.0_224", "minilm-l6"


@dataclass(frozen=True)
class Case:
    """One upgrade to measure."""

    name: str
    task: RetrievalTask
    pairs: ArrayPairs


def tiny_imagenet(data: Path) -> Iterator[Case]:
    folder = data / "tiny-imagenet-100" / "embeddings"
    new = _read(folder / f"{NEW_IMAGE}.parquet", MOBILENETS[NEW_IMAGE], "label")
    for name in ("mobilenet_v1_0.25_128", "mobilenet_v1_0.75_192"):
        old = _read(folder / f"{name}.parquet", MOBILENETS[name], "label")
        labels = new.columns["label"].to_numpy()
        yield Case(f"{name} → {NEW_IMAGE}", *labelled_task(old, new, labels, PAIRS, seed=SEED))


def fashion(data: Path) -> Iterator[Case]:
    folder = data / "fashion" / "embeddings"
    new = _read(folder / f"{NEW_IMAGE}.parquet", MOBILENETS[NEW_IMAGE], "label", "split")
    split = np.asarray(new.columns["split"].to_pylist())
    train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    for name in ("mobilenet_v1_0.25_128", "mobilenet_v1_0.75_192"):
        old = _read(folder / f"{name}.parquet", MOBILENETS[name], "label", "split")
        labels = np.asarray(new.columns["label"].to_pylist())[test]
        task = self_search_task(old.take(test), new.take(test), labels, name="article types")
        yield Case(f"{name} → {NEW_IMAGE}", task, pairs_of(old, new, train))


def cisi(data: Path) -> Iterator[Case]:
    folder = data / "cisi"
    judgements = Beir.open(folder).judgements()
    new = {part: _read(_cisi(folder, NEW_TEXT, part), TEXT[NEW_TEXT]) for part in ("queries", "corpus")}
    for name in ("lsa-256", "minilm-l3"):
        old = {part: _read(_cisi(folder, name, part), TEXT[name]) for part in ("queries", "corpus")}
        truth = Judgements.from_relevance(locate(judgements, old["queries"].ids, old["corpus"].ids))
        sides = old["queries"], new["queries"], old["corpus"], new["corpus"]
        task = RetrievalTask("judged text", *sides, truth)
        yield Case(f"{name} → {NEW_TEXT}", task, pairs_of(old["corpus"], new["corpus"]))


CASES: dict[str, Callable[[Path], Iterator[Case]]] = {
    "tiny-imagenet": tiny_imagenet,
    "fashion": fashion,
    "cisi": cisi,
}


def _cisi(folder: Path, model: str, part: str) -> Path:
    return folder / "embeddings" / f"{model}.{part}.parquet"


def _read(path: Path, space: Space, *columns: str) -> Vectors:
    return open_vectors(path, space=space).read(columns=columns)


# --- output -----------------------------------------------------------------------------------


def table(task: TaskResult) -> str:
    """The matrix of one task as a Markdown table."""
    header = ["query/gallery", "", *task.metrics, f"Δ {task.primary}", "p", "gap closed", "flips +/−"]
    header += ["agreement@10 with new model (label-free)", "embedded"]
    lines = [header, ["---"] * len(header), *(_row(row, task) for row in task.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(row: RowResult, task: TaskResult) -> list[str]:
    if not row.metrics:
        return [row.notation, f"{row.title}: {row.note}", *[""] * (len(task.metrics) + 6)]
    scale = 1 if task.kind == "judged" else 100
    figures = [_estimate(row.metrics[name], scale) for name in task.metrics]
    difference, gap = row.against_old[task.primary], row.gap_closed[task.primary]
    changed = "" if row.flips is None else f"{100 * row.flips.positive:.1f}/{100 * row.flips.negative:.1f} %"
    return [
        row.notation,
        row.title,
        *figures,
        _difference(difference, scale),
        _p(difference),
        "" if gap is None else f"{100 * gap:.0f} %",
        changed,
        f"{task.agreement[row.key].value:.2f}",
        "" if row.embedded is None else f"{row.embedded:,} of {task.n_gallery:,}",
    ]


def _estimate(estimate: Estimate, scale: int) -> str:
    digits = 3 if scale == 1 else 1
    value, low, high = (
        f"{scale * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def _difference(difference: Difference, scale: int) -> str:
    digits = 3 if scale == 1 else 1
    numbers = (difference.value, difference.low, difference.high)
    value, low, high = (f"{scale * number:+.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def _p(difference: Difference) -> str:
    if difference.p_adjusted is None:
        return f"{difference.p:.4f} ¹"
    return f"{difference.p_adjusted:.4f}"


def document(name: str, results: dict[str, Evaluation]) -> str:
    """The Markdown page of one data set."""
    parts = [
        f"# {name}",
        f"Made by `python benchmarks/matrix.py --only {name}`, seed {SEED}. 95 % intervals by bootstrap over "
        "queries (1,000 resamples); Δ and p: paired against old/old, by 10,000 sign flips, corrected for the "
        "number of candidates (step-down maxT); ¹ not corrected, because it is no candidate. Maps for "
        "interpolation and cascades, and the weight, are chosen on one half of the queries and scored on the "
        "other.",
    ]
    for case, evaluation in results.items():
        parts.append(f"## {case}")
        parts += [_facts(task, evaluation) + "\n\n" + table(task) for task in evaluation.tasks]
        parts.append(f"**Verdict:** {evaluation.verdict.sentence}")
        parts.append("\n".join(f"* {reason}" for reason in evaluation.verdict.reasons))
        parts.append("\n".join(f"* {entry.sentence}" for entry in evaluation.verdict.alternatives))
        parts += [f"Not fitted: {s.method} ({s.direction}): {s.reason}" for s in evaluation.skipped]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(task: TaskResult, evaluation: Evaluation) -> str:
    left_out = f" ({task.left_out} more have nothing relevant in the gallery)" if task.left_out else ""
    chance = ", ".join(f"{name} {value:.3f}" for name, value in task.chance.items())
    return (
        f"Ground truth: {task.ground_truth}. {task.n_queries:,} queries{left_out}, {task.n_gallery:,} items "
        f"in the gallery, {evaluation.pairs:,} pairs. Compared by {' / '.join(task.distance)}. "
        f"Chance: {chance}."
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def _machine() -> dict[str, Any]:
    return {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def measure(name: str, data: Path, out: Path) -> None:
    """Evaluate the cases of one data set and write both files."""
    results = {case.name: evaluate([case.task], case.pairs, seed=SEED) for case in CASES[name](data)}
    write(name, results, out)


def decide_again(name: str, out: Path) -> None:
    """The verdict of today's rules on the figures that were measured before."""
    report = json.loads((out / f"matrix-{name}.json").read_text("utf-8"))
    measured = {case: Evaluation.from_dict(values) for case, values in report["cases"].items()}
    write(name, {case: replace(one, verdict=decide(one.tasks)) for case, one in measured.items()}, out)


def write(name: str, results: dict[str, Evaluation], out: Path) -> None:
    """Both files of one data set."""
    cases = {case: _rounded(result.to_dict()) for case, result in results.items()}
    report = {"dataset": name, "seed": SEED, "machine": _machine(), "cases": cases}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"matrix-{name}.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", "utf-8")
    text = document(name, results)
    (out / f"matrix-{name}.md").write_text(text, "utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("CROSSFADE_DATA"), help="folder of the data sets"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", choices=CASES, help="one data set; all by default")
    parser.add_argument(
        "--decide-again", action="store_true", help="only the verdict, from committed figures"
    )
    options = parser.parse_args()
    if options.decide_again:
        for name in [options.only] if options.only else CASES:
            decide_again(name, options.out)
        return
    if options.data is None:
        parser.error("say where the data sets are: --data DIR, or the variable CROSSFADE_DATA")
    for name in [options.only] if options.only else CASES:
        measure(name, Path(options.data), options.out)


if __name__ == "__main__":
    main()
