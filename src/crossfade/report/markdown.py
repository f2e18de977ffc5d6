"""The report as Markdown: the same words and tables, in the papers' notation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from crossfade.report.curve_view import LEGEND as CURVE_LEGEND
from crossfade.report.curve_view import CurveTable, curve_view
from crossfade.report.page import Facts, Page
from crossfade.report.samples import BoundedSamples, SampleSearch
from crossfade.report.view import AGREEMENT, FLIPS_LEGEND, GAP_LEGEND, LEGEND, Cell, Line, Matrix, matrix

if TYPE_CHECKING:
    from crossfade.evaluation.curves import BackfillCurve
    from crossfade.evaluation.result import TaskResult


def render(
    page: Page,
    tasks: Sequence[TaskResult],
    recommended: str | None,
    samples: BoundedSamples,
    curves: Sequence[BackfillCurve] = (),
) -> str:
    """The whole report. Text of the user's data is escaped, so it can be neither markup nor HTML."""
    parts = [*_verdict(page)]
    for task in tasks:
        parts += _task(matrix(task, recommended))
        parts += [_curve(curve_view(curve)) for curve in curves if curve.task == task.name]
    parts += _samples(samples)
    parts += _upgrade(page)
    parts += _measured(page)
    if page.commands:
        parts += [
            "## Next",
            *(f"{escape(purpose)}\n\n{_code_block(command)}" for command, purpose in page.commands),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _curve(view: CurveTable) -> str:
    rows = [
        (
            escape(name),
            *values,
            f"{area.value} ({area.interval})",
            f"{difference.value} {f'({difference.interval})' if difference.interval else ''}".strip(),
        )
        for name, values, area, difference in view.rows
    ]
    notes = " ".join([CURVE_LEGEND, *map(escape, view.notes)])
    return "\n\n".join(["### Partial backfill", escape(view.title) + ".", table(view.header, rows), notes])


def escape(text: str) -> str:
    """Text as it is, on one line, with nothing in it that Markdown or HTML would read as markup."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|~!$" else character for character in line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A pipe table whose first `left` columns are text and the others numbers."""
    rule = [":---" if index < left else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _verdict(page: Page) -> list[str]:
    cost = f"**It embeds** {escape(page.cost)}." if page.cost else ""
    reasons = "\n".join(f"- {escape(reason)}" for reason in page.reasons)
    needs = f"**It needs** {escape(page.needs)}." if page.needs else ""
    others = "\n".join(f"- **{escape(name)}**: {escape(text)}" for name, text in page.alternatives)
    label_free = (
        ""
        if page.judged
        else (
            "*Measured without labels: this says how closely the new model is imitated, "
            "not whether search gets better.*"
        )
    )
    return [
        f"# {escape(page.headline)}",
        f"{escape(page.old)} → {escape(page.new)}",
        f"**{escape(page.sentence)}**",
        label_free,
        needs,
        cost,
        reasons,
        others,
    ]


def _task(view: Matrix) -> list[str]:
    chance = f" A random order scores {escape(view.chance)}." if view.chance else ""
    flips = f" {FLIPS_LEGEND}" if view.has_flips else ""
    parts = [
        f"## {escape(view.name)}",
        escape(view.setting),
        _matrix(view),
        "\n".join(
            f"- {escape(group.title.partition(':')[0])}: {escape(note)}"
            for group in view.groups
            for note in group.notes
        ),
        f"95 % intervals in parentheses; the recommended row is bold. {LEGEND} {GAP_LEGEND}{flips}{chance}",
    ]
    if view.agreement:
        rows = [[escape(title), escape(notation), _cell(cell)] for notation, title, cell in view.agreement]
        parts += [
            "### Agreement with the new model's own neighbours",
            AGREEMENT,
            table(["row", "query/gallery", "agreement"], rows, left=2),
        ]
    return parts


def _matrix(view: Matrix) -> str:
    header = [
        "query/gallery",
        "row",
        *map(escape, view.metrics),
        f"{escape(view.primary)} against old/old",
        "gap closed",
    ]
    header += ["flips gained / lost"] * view.has_flips + ["items embedded"] * view.has_embedded
    return table(header, (_row(line, view) for line in view.lines), left=2)


def _row(line: Line, view: Matrix) -> list[str]:
    words = "; ".join(
        filter(
            None, (line.name, f"needs {line.needs}" if line.needs else "", "" if line.measured else line.note)
        )
    )
    cells = [escape(line.notation), escape(words), *map(_cell, line.cells), _cell(line.difference), line.gap]
    cells += [line.flips] * view.has_flips + [line.embedded] * view.has_embedded
    return [f"**{cell}**" if line.recommended and cell else cell for cell in cells]


def _cell(cell: Cell) -> str:
    within = f" ({cell.interval})" if cell.interval else ""
    return f"{cell.value}{within} {cell.symbol}".strip()


def _samples(samples: BoundedSamples) -> list[str]:
    if not samples.searches:
        return []
    legend = "✓ right, ✗ wrong by the ground truth; the pictures are in report.html."
    return ["## Before and after", legend, *map(_search, samples.searches), *map(escape, samples.notes)]


def _search(search: SampleSearch) -> str:
    depth = max((len(hits) for _, hits in search.columns), default=0)
    rows = []
    for place in range(depth):
        hits = [hits[place] if place < len(hits) else None for _, hits in search.columns]
        rows.append(
            [
                f"{place + 1}",
                *("" if hit is None else _hit(hit.caption or hit.id, hit.relevant) for hit in hits),
            ]
        )
    header = ["", *(escape(name) for name, _ in search.columns)]
    return f"### {escape(search.query_text) or 'Query by picture'}\n\n" + table(
        header, rows, left=len(header)
    )


def _hit(text: str, relevant: bool | None) -> str:
    mark = "" if relevant is None else ("✓ " if relevant else "✗ ")
    return mark + escape(text)


def _upgrade(page: Page) -> list[str]:
    if not page.plan and not page.history:
        return []
    return ["## The upgrade", _facts(page.plan), " → ".join(_state(*entry) for entry in page.history)]


def _state(state: str, detail: str) -> str:
    return f"**{escape(state)}** ({escape(detail)})" if detail else f"**{escape(state)}**"


def _measured(page: Page) -> list[str]:
    parts = ["## How this was measured", _facts(page.measured)]
    if page.fits.rows:
        rows = [[escape(value) for value in row] for row in page.fits.rows]
        parts += [
            "### Adapters that were tried",
            table([escape(name) for name in page.fits.columns], rows, left=2),
        ]
    if page.skipped:
        parts += ["### Not tried", _facts(page.skipped)]
    return parts


def _facts(facts: Facts) -> str:
    return "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in facts)


def _code_block(command: str) -> str:
    return "\n".join(f"    {line}" for line in command.splitlines())
