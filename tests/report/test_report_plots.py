from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from made_up import PICKED, make_row, make_task

from crossfade.evaluation.estimates import Estimate
from crossfade.report.cascade_plot import cascade_plot
from crossfade.report.interval_plot import interval_plot, rows_left_out
from crossfade.report.layout import WIDE
from crossfade.report.svg import Drawing, Scale
from crossfade.report.view import matrix

SVG = "{http://www.w3.org/2000/svg}"


def elements(svg: str, tag: str, style: str = "") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(svg).iter(SVG + tag)
    return [element for element in found if style in element.get("class", "").split() or not style]


def test_interval_plot_puts_a_dot_at_every_measured_value() -> None:
    task = make_task()
    for svg in interval_plot(task, PICKED):
        measured = [row for row in task.rows if row.metrics]
        assert len(elements(svg, "circle")) == len(elements(svg, "line", "whisker")) == len(measured)


def test_dots_and_whiskers_stand_in_proportion_to_the_values() -> None:
    task = make_task()
    wide = interval_plot(task)[0]
    by_tip = {
        (dot.findtext(SVG + "title") or ""): float(dot.get("cx", "nan")) for dot in elements(wide, "circle")
    }
    place = {
        row.key: x
        for row in task.rows
        for tip, x in by_tip.items()
        if tip.startswith(f"{row.notation} {row.title}:")
    }
    old, new, picked = place["old/old"], place["new/new"], place["cascade:query@100"]
    assert (picked - old) / (new - old) == pytest.approx(0.82, abs=0.001)
    first = elements(wide, "line", "whisker")[0]
    width = float(first.get("x2", "nan")) - float(first.get("x1", "nan"))
    assert width / (new - old) == pytest.approx(0.037 / 0.203, abs=0.001)


def test_references_are_drawn_at_old_old_and_new_new() -> None:
    wide = interval_plot(make_task())[0]
    lines = {
        tuple(line.get("class", "").split()): line.get("x1") for line in elements(wide, "line", "reference")
    }
    dots = {dot.get("class"): dot.get("cx") for dot in elements(wide, "circle")}
    assert lines["reference", "keep"] == dots["dot keep"]
    assert lines["reference", "backfill"] == dots["dot backfill"]


@pytest.mark.parametrize("share", [1.0, 0.02, -0.02, -0.9])
@pytest.mark.parametrize("other", [None, -1.0, 3.0])
def test_names_of_the_references_never_meet(share: float, other: float | None) -> None:
    task = make_task()
    rows = [task.rows[0], make_row("new/new", "new/new", "backfill", "full backfill", share)]
    if other is not None:  # squeezes the two lines to the right or to the left edge
        rows.append(make_row("query:x", "h(new)/old", "query", "x", other))
    for svg in interval_plot(replace(task, rows=tuple(rows))):
        width = float((ElementTree.fromstring(svg).get("viewBox") or "").split()[2])
        boxes = [name_box(name) for name in elements(svg, "text", "reference-name")]
        assert all(left >= -3 and right <= width + 3 for left, right, _ in boxes)
        (left, right, y), (other_left, other_right, other_y) = boxes
        assert right < other_left or other_right < left or abs(y - other_y) >= 15


def name_box(name: ElementTree.Element) -> tuple[float, float, float]:
    """Left, right and baseline of a name of seven characters."""
    x, y = float(name.get("x", "nan")), float(name.get("y", "nan"))
    return (x - 50, x, y) if name.get("text-anchor") == "end" else (x, x + 50, y)


def test_everything_lies_inside_the_drawing() -> None:
    for svg in (*interval_plot(make_task(), PICKED), *cascade_plot(make_task(), PICKED)):
        _, _, width, height = map(float, (ElementTree.fromstring(svg).get("viewBox") or "").split())
        for circle in elements(svg, "circle"):
            assert 0 <= float(circle.get("cx", "nan")) <= width
            assert 0 <= float(circle.get("cy", "nan")) <= height


def test_cascade_plot_has_a_line_per_first_stage_and_a_point_per_depth() -> None:
    for svg in cascade_plot(make_task(), PICKED):
        lines = elements(svg, "polyline", "series")
        assert [len((line.get("points") or "").split()) for line in lines] == [4, 4, 2]


def test_cascade_plot_says_what_share_of_the_gallery_every_depth_embeds() -> None:
    for svg in cascade_plot(make_task(), PICKED):
        said = [text.text for text in elements(svg, "text", "tick")]
        assert said[-4:] == ["24–27 %", "46–49 %", "70–73 %", "90–93 %"]


def test_cascade_plot_needs_a_cascade() -> None:
    task = make_task()
    without = tuple(row for row in task.rows if "cascade" not in row.strategy)
    assert cascade_plot(replace(task, rows=without)) == []


def test_a_cascade_over_the_lifted_gallery_is_drawn_and_listed_apart() -> None:
    task = make_task()
    for svg in cascade_plot(task):
        assert len(elements(svg, "polyline", "series")) == 3
        assert "lifted gallery, procrustes" in "".join(ElementTree.fromstring(svg).itertext())
    (group,) = (one for one in matrix(task).groups if one.strategy == "lifted-cascade")
    assert group.title.startswith("Lifted cascade: ")
    assert [line.name for line in group.lines] == ["cascade: k=20, lifted", "cascade: k=50, lifted"]
    assert [line.embedded for line in group.lines] == ["1,350", "2,440"]


def test_nothing_measured_gives_no_plot() -> None:
    task = make_task()
    assert interval_plot(replace(task, rows=tuple(replace(row, metrics={}) for row in task.rows))) == []


def test_too_many_rows_keep_the_important_ones() -> None:
    task = make_task()
    many = [make_row(f"query:{i}", "h(new)/old", "query", f"number {i}", i / 100) for i in range(100)]
    task = replace(task, rows=(*many, *task.rows))
    tips = [dot.findtext(SVG + "title") or "" for dot in elements(interval_plot(task, PICKED)[0], "circle")]
    assert len(tips) + rows_left_out(task) == len([row for row in task.rows if row.metrics])
    assert any("keep the old model" in tip for tip in tips)
    assert any("100 candidates by the interpolated query" in tip for tip in tips)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-9])
def test_equal_values_still_make_a_plot(value: float) -> None:
    task = make_task()
    flat = {"Recall@1": Estimate(value, value, value)}
    rows = tuple(replace(row, metrics=flat if row.metrics else {}) for row in task.rows)
    for svg in (*interval_plot(replace(task, rows=rows)), *cascade_plot(replace(task, rows=rows))):
        assert "nan" not in svg
        assert "inf" not in svg


def test_text_is_escaped_by_the_xml_writer() -> None:
    drawing = Drawing(10, 10, '"><script>', "plot")
    drawing.text(0, 0, "<script>&", "label")
    root = ElementTree.fromstring(str(drawing))
    assert root.get("aria-label") == '"><script>'
    assert root.findtext(SVG + "text") == "<script>&"
    assert "<script>" not in str(drawing)


def test_scale_has_round_ticks_around_the_values() -> None:
    scale = Scale(0.191, 0.431, 0, 100)
    assert scale.low <= 0.191
    assert scale.high >= 0.431
    assert [round(tick, 6) for tick in scale.ticks] == pytest.approx([0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45])
    assert scale(scale.low) == 0
    assert scale(scale.high) == pytest.approx(100)


def test_wide_form_comes_first() -> None:
    assert f'class="plot {WIDE.style}"' in interval_plot(make_task())[0]
