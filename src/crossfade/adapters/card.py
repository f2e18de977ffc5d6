"""The model card of a saved adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.adapters.base import Adapter


def model_card(adapter: Adapter, evaluation: Mapping[str, Any] | None = None) -> str:
    """Markdown with both models, the pairs, held-out figures and, if given, the measured matrix.

    Args:
        evaluation: `Evaluation.to_dict()`.
    """
    lines = [*_header(adapter), *_spaces(adapter), *_fit(adapter), *_usage(adapter)]
    if evaluation:
        lines += _evaluation(evaluation)
    return "\n".join(lines) + "\n"


def _header(adapter: Adapter) -> list[str]:
    models = " → ".join(_inline(space and space.model) for space in (adapter.source, adapter.target))
    return [
        "---",
        "library_name: crossfade",
        "tags: [embeddings, vector-search, embedding-adapter]",
        "---",
        "",
        f"# {models} ({adapter.name})",
        "",
        f"Maps vectors of `{_inline(adapter.source)}` into the space of `{_inline(adapter.target)}`, "
        "so that they can be searched together with the target model's own vectors.",
        "",
    ]


def _spaces(adapter: Adapter) -> list[str]:
    sides = (adapter.source, adapter.target)
    rows: list[list[object]] = [
        ["model", *(space and space.model for space in sides)],
        ["revision", *(space and (space.revision or "not recorded") for space in sides)],
        ["dimension", *adapter.dimensions],
        ["compared by", *(space and space.metric for space in sides)],
        ["unit length by contract", *("yes" if space and space.normalized else "no" for space in sides)],
        ["prompt", *(space and (repr(space.prompt) if space.prompt else "none") for space in sides)],
    ]
    return ["## Spaces", "", *table(["", "source", "target"], rows), ""]


def _fit(adapter: Adapter) -> list[str]:
    rows: list[list[object]] = [["method", adapter.name], ["pairs", f"{adapter.n_pairs:,}"]]
    rows += [["side-information", adapter.side]] if adapter.side_dimension else []
    rows += [[name, value] for name, value in adapter.get_params().items()]
    rows += [[f"chosen: {name}", _number(value)] for name, value in adapter.chosen.items()]
    rows += [[f"held out: {name}", _number(value)] for name, value in adapter.held_out.items()]
    note = [
        "Held-out figures are of a map fitted without those pairs; they say how closely the target vectors",
        "are met, not how good search results are.",
        "",
    ]
    return ["## Fit", "", *table(["", "value"], rows), "", *(note if adapter.held_out else [])]


def _usage(adapter: Adapter) -> list[str]:
    given = "vectors, side" if adapter.side_dimension else "vectors"
    return [
        "## Use",
        "",
        "```python",
        "from crossfade import load_adapter",
        "",
        'adapter = load_adapter("path/to/this/directory")',
        f"mapped = adapter.transform({given})  # (n, source dimension) -> (n, target dimension)",
        "```",
        "",
    ]


def _evaluation(evaluation: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Measured", "")
    sentence = (evaluation.get("verdict") or {}).get("sentence")
    if sentence:
        yield from (_inline(sentence), "")
    for task in evaluation.get("tasks", ()):
        yield from _task(task)


def _task(task: Mapping[str, Any]) -> Iterator[str]:
    metrics: Sequence[str] = task["metrics"]
    yield from (
        f"### {_inline(task['name'])}",
        "",
        f"Ground truth: {_inline(task['ground_truth'])}; {task['n_queries']:,} queries, "
        f"{task['n_gallery']:,} items. Means with 95 % bootstrap intervals over queries.",
        "",
    )
    rows = [
        [row["notation"], row["title"], *(_estimate(row["metrics"].get(metric)) for metric in metrics)]
        for row in task["rows"]
    ]
    yield from (*table(["query/gallery", "", *metrics], rows), "")


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table, one string per line."""
    return [_row(header), _row(["---"] * len(header)), *map(_row, rows)]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(_inline(cell) for cell in cells) + " |"


def _estimate(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def _inline(value: object) -> str:
    """Text that cannot break out of its line or table cell: names come from other people's files."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
