from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import PICKED

from crossfade.evaluation.result import Evaluation
from crossfade.report import ReportPaths, write_report
from crossfade.report.markdown import escape, table
from crossfade.report.view import matrix


def tables(text: str) -> list[list[str]]:
    """Blocks of lines that start with a pipe."""
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]


def columns(line: str) -> int:
    return len(re.split(r"(?<!\\)\|", line)) - 2


def test_every_table_has_the_same_columns_in_every_line(report: ReportPaths) -> None:
    found = tables(report.markdown.read_text(encoding="utf-8"))
    assert len(found) >= 6
    for lines in found:
        assert re.fullmatch(r"\|( :?---:? \|)+", lines[1])
        assert len({columns(line) for line in lines}) == 1


def test_every_row_and_interval_is_there(report: ReportPaths, evaluation: Evaluation) -> None:
    text = report.markdown.read_text(encoding="utf-8")
    for task in evaluation.tasks:
        for line in matrix(task).lines:
            assert escape(line.name) in text
            assert all(cell.value in text and cell.interval in text for cell in line.cells)


def test_recommended_row_is_bold(report: ReportPaths, evaluation: Evaluation) -> None:
    bold = [
        line for line in report.markdown.read_text(encoding="utf-8").splitlines() if line.startswith("| **")
    ]
    assert len(bold) == len(evaluation.tasks)
    assert all("cascade: k=100, interpolated" in line for line in bold)
    assert evaluation.verdict.row == PICKED


@pytest.mark.parametrize(
    "text", ["a|b", "<script>alert(1)</script>", "[x](javascript:alert(1))", "line\nbreak", "*b*", "`c`"]
)
def test_hostile_text_neither_breaks_a_table_nor_becomes_markup(
    text: str, evaluation: Evaluation, tmp_path: Path
) -> None:
    task = evaluation.tasks[0]
    rows = tuple(replace(row, title=text, notation=text) for row in task.rows)
    written = write_report(replace(evaluation, tasks=(replace(task, rows=rows),)), tmp_path)
    markdown = written.markdown.read_text(encoding="utf-8")
    assert all(len({columns(line) for line in lines}) == 1 for lines in tables(markdown))
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(", markdown)


def test_table_aligns_text_left_and_numbers_right() -> None:
    assert table(["row", "mAP"], [["a", "1.0"]]) == "| row | mAP |\n| :--- | ---: |\n| a | 1.0 |"
