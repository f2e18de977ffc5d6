from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from made_up import PICKED
from rich.console import Console, RenderableType

from crossfade.evaluation.result import Evaluation
from crossfade.report.terminal import facts_panel, inspection_table, matrix_table, state_line, verdict_panel
from crossfade.report.view import matrix


def show(renderable: RenderableType, width: int = 80, *, color: bool = False) -> str:
    file = StringIO()
    Console(file=file, width=width, no_color=not color, force_terminal=color, highlight=False).print(
        renderable
    )
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_matrix_fits_and_has_every_row(evaluation: Evaluation, width: int) -> None:
    task = evaluation.tasks[0]
    text = show(matrix_table(task, PICKED), width)
    assert max(map(len, text.splitlines())) <= width
    for line in matrix(task).lines:
        primary = line.cells[0]
        assert f"{primary.value} {primary.interval}".strip() in text
        assert f"{line.difference.value} {line.difference.symbol}".strip() in text
        assert line.name.split(",")[0] in text


def test_recommended_row_is_marked_without_colour(evaluation: Evaluation) -> None:
    lines = [
        line for line in show(matrix_table(evaluation.tasks[0], PICKED)).splitlines() if line.startswith("●")
    ]
    assert len(lines) == 1
    assert "cascade: k=100, interpolated" in lines[0]
    assert "0.392 0.374–0.411" in lines[0]
    assert "+0.183 ▲" in lines[0]


def test_wide_consoles_show_more_metrics(evaluation: Evaluation) -> None:
    assert "Recall@10" not in show(matrix_table(evaluation.tasks[0]), 80)
    assert "Recall@10" in show(matrix_table(evaluation.tasks[0]), 120)


def test_verdict_panel_has_sentence_needs_and_alternatives(evaluation: Evaluation) -> None:
    text = show(verdict_panel(evaluation), 160)
    assert "Verdict: Search in two stages" in text
    assert "Recall@1 0.392 instead of 0.209" in text
    assert "the new encoder, the raw items and the old encoder" in text
    assert "Without raw items" in text


def test_markup_in_the_data_stays_text(evaluation: Evaluation) -> None:
    task = evaluation.tasks[0]
    rows = tuple(replace(row, method="[red]x[/red] [/]") for row in task.rows)
    text = show(matrix_table(replace(task, name="[bold]t[/]", rows=rows)), color=True)
    assert "[red]x[/red] [/]" in text
    assert "[bold]t[/]" in text
    assert "[/nope]" in show(
        verdict_panel(replace(evaluation, verdict=replace(evaluation.verdict, sentence="[/nope]")))
    )


def test_facts_panel_hides_credentials() -> None:
    text = show(facts_panel("Plan", [("Store", "postgresql://anna:hunter2@db/items#t.v"), ("Rows", "5,000")]))
    assert "hunter2" not in text
    assert "postgresql://…@db/items#t.v" in text


@pytest.mark.parametrize(("ready", "title"), [(True, "ready to plan"), (False, "not ready")])
def test_inspection_says_whether_an_upgrade_can_be_planned(ready: bool, title: str) -> None:
    class Inspected:
        def __init__(self) -> None:
            self.ready = ready

        def summary(self) -> list[tuple[str, str]]:
            return [("rows", "5,000"), ("store", "lancedb://demo#scenes.vector")]

    text = show(inspection_table(Inspected()))  # type: ignore[arg-type]
    assert title in text
    assert "lancedb://demo#scenes.vector" in text


def test_state_line_shows_what_is_done_and_what_is_next() -> None:
    assert show(state_line("built")).strip() == (
        "✓ planned → ✓ transforming → ● built → ○ verified → ○ cut_over → ○ retired"
    )
    assert show(state_line("paused")).strip() == "paused"
