"""The report on a terminal: verdict, matrices, plan and status as rich renderables.

Colour only repeats what the marks say, so that nothing is lost under ``NO_COLOR``; text of the user's data is
never read as rich markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossfade.report.curve_view import curve_view
from crossfade.report.page import Facts, page, redacted
from crossfade.report.view import Cell, Line, Mark, Matrix, matrix

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

    from crossfade.evaluation.curves import BackfillCurve
    from crossfade.evaluation.result import Evaluation, TaskResult
    from crossfade.upgrade.inspection import Inspection

STYLES: dict[Mark, str] = {"better": "green", "worse": "red", "same": "dim", "": ""}
LEGEND = "▲ better  ▼ worse  ≈ not distinguishable from old/old (95 %); ● recommended"
NARROWEST_NAME = 24
WIDEST_NAME = 44

STATES = ("planned", "transforming", "built", "verified", "cut_over", "retired")


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """A task's query/gallery matrix that adapts to the width of the console."""

    view: Matrix

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(self.view.name, style="bold")
        yield Text(self.view.setting, style="dim")
        yield Text()
        yield _table(self.view, _others_that_fit(self.view, options.max_width))
        yield Text()
        yield Text(LEGEND, style="dim")


def matrix_table(task: TaskResult, recommended: str | None = None) -> MatrixTable:
    """The task's matrix: row, metrics with intervals, difference to old/old with its mark, gap closed."""
    return MatrixTable(matrix(task, recommended))


def curve_table(curve: BackfillCurve) -> RenderableType:
    """A backfill curve: the orders, their quality at some shares, the area and what it gains over random."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    view = curve_view(curve)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(view.header):
        table.add_column(name, justify="right" if place else "left")
    for name, values, area, difference in view.rows:
        table.add_row(name, *values, area.value, _marked(difference))
    parts: list[RenderableType] = [Text(view.title, style="bold"), table]
    return Group(*parts, *(Text(note, style="dim") for note in view.notes), Text())


def verdict_panel(evaluation: Evaluation) -> RenderableType:
    """The verdict in a frame: what to do, the sentence with its numbers, what it needs, and the facts."""
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    content = page(evaluation)
    parts: list[RenderableType] = [Text(content.sentence, style="bold")]
    if not content.judged:
        parts.append(
            Text("Without labels: how closely the new model is imitated, not how good it is.", style="yellow")
        )
    rows = [("·", reason) for reason in content.reasons]
    facts = (
        [("needs", content.needs)] * bool(content.needs)
        + [("embeds", content.cost)] * bool(content.cost)
        + [*content.alternatives]
    )
    parts += [_grid(entries) for entries in (rows, facts) if entries]
    for place in range(len(parts) - 1, 0, -1):
        parts.insert(place, Text())
    title = Text.assemble("Verdict: ", (content.headline, "bold"))
    return Panel(
        Group(*parts), title=title, title_align="left", box=box.ROUNDED, border_style="cyan", padding=(1, 2)
    )


def facts_panel(title: str, facts: Facts) -> RenderableType:
    """Label and value pairs in a frame: a plan's summary, an upgrade's status."""
    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    return Panel(
        _grid(redacted(facts)),
        title=Text(title, style="bold"),
        title_align="left",
        box=box.ROUNDED,
        border_style="cyan",
        padding=(0, 2),
    )


def inspection_table(inspection: Inspection) -> RenderableType:
    """What is in a store, in a frame, and whether an upgrade can be planned."""
    return facts_panel("ready to plan" if inspection.ready else "not ready", inspection.summary())


def state_line(state: str, states: Sequence[str] = STATES) -> Text:
    """Where an upgrade stands on its way: states behind it, the present one, states ahead."""
    from rich.text import Text

    if state not in states:
        return Text(state, style="bold")
    here = states.index(state)
    line = Text()
    for place, name in enumerate(states):
        sign, style = ("✓", "green") if place < here else ("●", "bold") if place == here else ("○", "dim")
        line.append(f"{sign} {name}", style=style)
        line.append(" → " if place < len(states) - 1 else "", style="dim")
    return line


def _grid(facts: Facts) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(Text(name), Text(value))
    return grid


def _others_that_fit(view: Matrix, width: int) -> list[str]:
    """Metrics beside the primary one, as many as leave the rows' names unbroken."""
    name = min(WIDEST_NAME, max((len(line.name) for line in view.lines), default=NARROWEST_NAME))
    room = width - name - 56
    shown: list[str] = []
    for metric in view.metrics:
        room -= 0 if metric == view.primary else max(len(metric), 5) + 1
        if metric != view.primary and room >= 0:
            shown.append(metric)
    return shown


def _table(view: Matrix, others: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("")
    table.add_column("row", overflow="fold", min_width=NARROWEST_NAME)
    numbers = [view.primary, *others, "vs old/old", "gap", *["embedded"] * view.has_embedded]
    for header in numbers:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for group in view.groups:
        for line in group.lines:
            style = "bold" if line.recommended else ""
            table.add_row(*_row(line, view, others), style=style, end_section=line is group.lines[-1])
    return table


def _row(line: Line, view: Matrix, others: Sequence[str]) -> list[Text]:
    from rich.text import Text

    name = Text(line.name)
    if line.note and not line.measured:
        name.append(f"\n{line.note}", style="dim")
    cells = dict(zip(view.metrics, line.cells, strict=True))
    row = [Text("●" if line.recommended else "", style="cyan"), name, _estimate(cells[view.primary])]
    row += [Text(cells[metric].value) for metric in others]
    row += [_marked(line.difference), Text(line.gap)]
    return [*row, Text(line.embedded)] if view.has_embedded else row


def _estimate(cell: Cell) -> Text:
    from rich.text import Text

    return Text.assemble(cell.value, (f" {cell.interval}" if cell.interval else "", "dim"))


def _marked(cell: Cell) -> Text:
    from rich.text import Text

    return Text.assemble((f"{cell.value} {cell.symbol}".strip(), STYLES[cell.mark]))
