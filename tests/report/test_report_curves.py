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


def merged() -> BackfillCurve:
    """The same, searched as a partial backfill would be."""
    return replace(
        curve(),
        ways=("raw", "raw", "levelled", "levelled, quantile", "levelled, quantile", "raw"),
        raw=order("uncertainty, raw scores", -0.1),
        over_raw={"mAP": Difference(0.02, 0.01, 0.03, 0.001)},
        held_out="500 held-out items",
    )


def test_the_table_holds_some_shares_and_what_an_order_gains() -> None:
    view = curve_view(curve())
    assert view.header == ("Order", "0 %", "10 %", "20 %", "50 %", "100 %", "Area", "Area − random")
    names, values, areas, gains = zip(*view.rows, strict=True)
    assert names == ("random", "uncertainty", "oracle")
    assert values[1] == ("0.400", "0.429", "0.456", "0.525", "0.600")
    assert areas[0].interval == "0.450–0.550"
    assert [gain.mark for gain in gains] == ["", "better", "better"]
    assert view.notes == (
        "Scores of lifted and re-embedded rows are compared as they are.",
        "By distance to class mean: the items have no classes.",
    )


def test_what_is_served_stands_in_front_and_raw_scores_beside_it() -> None:
    view = curve_view(merged())
    assert [row[0] for row in view.rows] == ["random", "uncertainty", "oracle", "uncertainty, raw scores"]
    assert view.notes[0] == (
        "Searched as a partial backfill would be, chosen on 500 held-out items: scores as they are "
        "(10 %); lifted vectors levelled, scores as they are (20 %); lifted vectors levelled, scores merged "
        "by quantile (50 %, 80 %). In the order by uncertainty the area is +0.020 (+0.010 to +0.030) against "
        "scores as they are."
    )
    for text in curve_plot(merged()):
        root = ElementTree.fromstring(text)
        lines = [node for node in root.iter() if node.tag.endswith("polyline")]
        assert ["beside" in line.get("class", "") for line in lines] == [False, False, False, True]
        assert lines[3].get("class") == f"{lines[1].get('class')} beside"  # the colour of the same order
        assert "uncertainty, raw scores" in "".join(root.itertext())


def test_why_scores_are_raw_is_said() -> None:
    said = curve_view(replace(curve(), held_out="12 pairs are too few")).notes[0]
    assert said == "Scores of lifted and re-embedded rows are compared as they are: 12 pairs are too few."


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
