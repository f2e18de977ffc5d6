from __future__ import annotations

import errno
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from crossfade.errors import OutOfSpace, UsageError
from crossfade.evaluation.estimates import Estimate
from crossfade.evaluation.result import Evaluation
from crossfade.report import ReportPaths, write_report


def test_json_is_the_evaluation(report: ReportPaths, evaluation: Evaluation) -> None:
    values = json.loads(report.json.read_text(encoding="utf-8"))
    assert Evaluation.from_dict(values["evaluation"]) == evaluation
    assert values["plan"][0] == {"label": "Strategy", "value": "cascade, k = 100"}
    assert values["history"][1] == {"state": "verified", "detail": "5,000 rows"}
    assert len(values["samples"]) == 4
    assert "image" not in values["samples"][0]["columns"][0]["hits"][0]


def test_json_stays_strict_with_values_that_json_cannot_hold(evaluation: Evaluation, tmp_path: Path) -> None:
    task = evaluation.tasks[0]
    row = replace(task.rows[0], metrics={"Recall@1": Estimate(0.5, math.nan, math.inf)})
    path = write_report(replace(evaluation, tasks=(replace(task, rows=(row,)),)), tmp_path).json

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_credentials_never_reach_a_report(evaluation: Evaluation, tmp_path: Path) -> None:
    plan = [("Store", "postgresql://anna:hunter2@db.example/items#t.vector")]
    paths = write_report(evaluation, tmp_path, plan=plan, history=[("planned", "redis://:hunter2@cache")])
    for path in (paths.html, paths.markdown, paths.json):
        text = path.read_text(encoding="utf-8")
        assert "hunter2" not in text
        assert "db.example/items" in text.replace("\\", "")


def test_same_input_gives_the_same_bytes(evaluation: Evaluation, tmp_path: Path) -> None:
    paths = write_report(evaluation, tmp_path)
    first = [path.read_bytes() for path in (paths.html, paths.markdown, paths.json)]
    write_report(evaluation, tmp_path)
    assert [path.read_bytes() for path in (paths.html, paths.markdown, paths.json)] == first


def test_next_commands_are_commands_of_the_command_line(evaluation: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "my report"
    markdown = write_report(evaluation, folder).markdown.read_text(encoding="utf-8")
    assert f"    crossfade plan lancedb://DIR#table.column --evaluation '{folder}' --items COLUMN" in markdown
    for command in ("apply", "verify", "cutover"):
        assert f"crossfade {command} plan.json" in markdown


def test_full_disk_keeps_the_earlier_report(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(evaluation, tmp_path).html.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutOfSpace, match=r"disk full while writing .*report\.html"):
        write_report(replace(evaluation, pairs=7), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def test_a_file_in_the_way_is_named(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(UsageError, match=r"cannot write .*report\.html: .*; name another folder with --out"):
        write_report(evaluation, tmp_path / "report")
    assert (tmp_path / "report").read_text() == "mine"


def test_importing_the_report_loads_neither_rich_nor_jinja() -> None:
    code = (
        "import sys, crossfade.report, crossfade.report.terminal; "
        "print(sorted({'rich', 'jinja2', 'torch', 'PIL'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
