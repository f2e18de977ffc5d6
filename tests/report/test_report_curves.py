"""The backfill curve in a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from made_up import make_evaluation

from crossfade.evaluation.curves import BackfillCurve, BackfillOrder
from crossfade.evaluation.estimates import Difference, Estimate
from crossfade.report import write_report
from crossfade.report.curve_plot import curve_plot
from crossfade.report.curve_view import curve_view

SHARES = (0.0, 0.1, 0.2, 0.5, 0.8, 1.0)


def order(name: str, lift: float) -> BackfillOrder:
    values = tuple(Estimate(0.4 + 0.2 * share + lift * share * (1 - share), 0.3, 0.7) for share in SHARES)
    difference = Difference(lift, lift - 0.01, lift + 0.01, 0.001)
    return BackfillOrder(
        name,
        {"mAP": values},
        {"mAP": (difference,) * len(SHARES)},
        {"mAP": Estimate(0.5, 0.45, 0.55)},
        {} if name == "random" else {"mAP": difference},
    )


def curve(task: str = "text→image") -> BackfillCurve:
    orders = order("random", 0.0), order("uncertainty", 0.1), order("oracle", 0.3)
    return BackfillCurve(
        task,
        "fastfill",
        ("mAP",),
        "mAP",
        SHARES,
        5000,
        {"mAP": 0.35},
        orders,
        {"distance to class mean": "the items have no classes"},
    )


def test_the_table_holds_some_shares_and_what_an_order_gains() -> None:
    view = curve_view(curve())
    assert view.header == ("Order", "0 %", "10 %", "20 %", "50 %", "100 %", "Area", "Area − random")
    names, values, areas, gains = zip(*view.rows, strict=True)
    assert names == ("random", "uncertainty", "oracle")
    assert values[1] == ("0.400", "0.429", "0.456", "0.525", "0.600")
    assert areas[0].interval == "0.450–0.550"
    assert [gain.mark for gain in gains] == ["", "better", "better"]
    assert view.notes == ("By distance to class mean: the items have no classes.",)


def test_the_plot_is_well_formed_and_higher_is_better() -> None:
    for text in curve_plot(curve()):
        root = ElementTree.fromstring(text)
        lines = [node for node in root.iter() if node.tag.endswith("polyline")]
        assert len(lines) == 3
        middle = [float(line.get("points", "").split()[3].split(",")[1]) for line in lines]
        assert middle[2] < middle[1] < middle[0]  # SVG counts downwards
        tips = [node.text or "" for node in root.iter() if node.tag.endswith("title")]
        assert "uncertainty, 50 %: 0.525 (0.300–0.700)" in tips


def test_reports_show_the_curve_of_their_task_and_none_without(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    task = evaluation.tasks[0].name
    plain = write_report(evaluation, tmp_path / "plain")
    assert "Partial backfill" not in plain.html.read_text()
    paths = write_report(replace(evaluation, curves=(curve(task),)), tmp_path / "with")
    html, markdown = paths.html.read_text(), paths.markdown.read_text()
    assert html.count("Partial backfill: which items first?") == 1
    assert "| uncertainty | 0.400 | 0.429 |" in markdown
    assert "By distance to class mean: the items have no classes." in html
