from __future__ import annotations

import base64
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from made_up import PICKED, make_evaluation, make_row, make_samples

from crossfade.evaluation.result import Evaluation, Verdict
from crossfade.report import Hit, ReportPaths, SampleSearch, write_report
from crossfade.report.view import matrix

VOID = {"meta", "link", "img", "br", "line", "rect", "circle", "polyline", "polygon", "path"}
LOADING = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "formaction", "background"}
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Page(HTMLParser):
    """The text, the tags and the addresses of a page; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self.addresses += [value or "" for name, value in attrs if name in LOADING]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def render(evaluation: Evaluation, tmp_path: Path, **options: object) -> Page:
    return read(write_report(evaluation, tmp_path, **options).html)  # type: ignore[arg-type]


def test_verdict_comes_first_with_what_it_needs_and_the_alternatives(report: ReportPaths) -> None:
    text = read(report.html).text
    verdict = make_evaluation().verdict
    places = [text.index(part) for part in ("Search in two stages", verdict.sentence, "Before and after")]
    assert places == sorted(places)
    assert "the new encoder, the raw items and the old encoder" in text
    assert "Without raw items Lift it with ridge. Without old encoder The verdict is the same." in text
    assert all(reason in text for reason in verdict.reasons)


def test_verdict_says_what_a_cascade_embeds(report: ReportPaths) -> None:
    assert "It embeds text→image: 3,505 of 5,000 items (70 %) for 2,000 queries" in read(report.html).text
    assert "3,505 of 5,000 items (70 %)" in report.markdown.read_text(encoding="utf-8")


def test_every_row_and_interval_is_in_the_page(report: ReportPaths, evaluation: Evaluation) -> None:
    text = read(report.html).text
    for task in evaluation.tasks:
        for line in matrix(task).lines:
            assert line.label in text
            assert line.notation in text
            for cell in (*line.cells, line.difference):
                assert cell.value in text
                assert cell.interval in text


def test_nothing_is_loaded_and_nothing_runs(report: ReportPaths) -> None:
    source = report.html.read_text(encoding="utf-8")
    page = Page(source)
    assert page.addresses
    assert all(re.match(r"(data:|#)", address) for address in page.addresses)
    assert page.tags["script"] == page.tags["iframe"] == page.tags["object"] == 0
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import", source)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_text_of_the_data_is_escaped(tmp_path: Path, evaluation: Evaluation) -> None:
    task = evaluation.tasks[0]
    rows = tuple(
        replace(row, title=ATTACK, notation=ATTACK, note=ATTACK, needs=(ATTACK,)) for row in task.rows
    )
    hostile = replace(
        evaluation,
        tasks=(replace(task, name=ATTACK, ground_truth=ATTACK, rows=rows),),
        verdict=replace(evaluation.verdict, sentence=ATTACK, reasons=(ATTACK,)),
    )
    hit = Hit(ATTACK, ATTACK, None, True, 1.0)
    pictured = Hit("1", ATTACK, make_samples(1)[0].columns[0][1][0].image)
    samples = [SampleSearch(ATTACK, None, [(ATTACK, [hit, pictured])])]
    page = render(
        hostile,
        tmp_path,
        samples=samples,
        plan=[(ATTACK, ATTACK)],
        history=[(ATTACK, ATTACK)],
        commands=[(ATTACK, ATTACK)],
    )
    assert page.tags["script"] == 0
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(ATTACK) > 20
    assert page.tags["img"] == 1


def test_recommended_row_is_marked_once_per_task(report: ReportPaths, evaluation: Evaluation) -> None:
    picked = [value for name, value in read(report.html).attributes if (name, value) == ("class", "picked")]
    assert len(picked) == len(evaluation.tasks)


def test_significance_is_said_in_words_too(report: ReportPaths) -> None:
    text = read(report.html).text
    for words in ("better than old/old", "worse than old/old", "not distinguishable from old/old"):
        assert words in text


def test_pictures_are_embedded_framed_and_described(report: ReportPaths, samples: list[SampleSearch]) -> None:
    source = report.html.read_text(encoding="utf-8")
    hit = samples[0].columns[0][1][0]
    assert base64.b64encode(hit.image or b"").decode() in source
    page = Page(source)
    described = [value for name, value in page.attributes if name == "alt"]
    assert len(described) == page.tags["img"]
    assert all(described)
    frames = Counter(value for name, value in page.attributes if name == "class" and value.startswith("hit"))
    relevant = sum(bool(hit.relevant) for search in samples for _, hits in search.columns for hit in hits)
    assert frames["hit right"] == relevant
    assert frames["hit wrong"] > relevant


def test_tables_have_headers_and_plots_have_names(report: ReportPaths) -> None:
    page = read(report.html)
    scopes = Counter(value for name, value in page.attributes if name == "scope")
    assert scopes["col"] > 0
    assert scopes["row"] > 40
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert len(labels) == 8  # two kinds of plot, wide and narrow, for two tasks


def test_a_remark_on_several_rows_is_made_once_per_group(report: ReportPaths, evaluation: Evaluation) -> None:
    remarks = read(report.html).text.count("chosen on one half of the queries, scored on the other")
    assert remarks == 3 * len(evaluation.tasks)


def test_agreement_is_apart_and_called_label_free(report: ReportPaths) -> None:
    text = read(report.html).text
    assert "Agreement with the new model’s own neighbours Label-free" in text


def test_skipped_methods_fits_and_conditions_are_reported(report: ReportPaths) -> None:
    text = read(report.html).text
    assert "residual-mlp, backward 'torch' is not installed; run: pip install 'crossfade[train]'" in text
    assert "procrustes backward" in text
    assert "3,000 items embedded by both models" in text
    assert "1,000 bootstrap samples" in text


def test_keep_verdict(tmp_path: Path, evaluation: Evaluation) -> None:
    keep = replace(evaluation, verdict=Verdict("keep", "old/old", "Keep the old model: nothing beats it."))
    text = render(keep, tmp_path).text
    assert "Keep the old model" in text
    assert "It needs" not in text


def test_label_free_verdict_says_so(tmp_path: Path, evaluation: Evaluation) -> None:
    without = replace(evaluation, verdict=replace(evaluation.verdict, judged=False))
    assert "not whether search gets better" in render(without, tmp_path).text


def test_one_row_and_no_gap(tmp_path: Path, evaluation: Evaluation) -> None:
    task = evaluation.tasks[0]
    row = replace(
        make_row("old/old", "old/old", "keep", "status quo", 0), gap_closed={}, against_old={}, flips=None
    )
    only = replace(
        evaluation, tasks=(replace(task, rows=(row,), agreement={}, chance={}),), fits=(), skipped=()
    )
    text = render(only, tmp_path).text
    assert "0.209" in text
    assert "Agreement" not in text


def test_no_gap_to_close_is_a_dash(tmp_path: Path, evaluation: Evaluation) -> None:
    task = evaluation.tasks[0]
    rows = tuple(replace(row, gap_closed=dict.fromkeys(row.gap_closed)) for row in task.rows)
    page = render(replace(evaluation, tasks=(replace(task, rows=rows),)), tmp_path)
    assert "of the gap closed" not in page.text
    assert "– where new/new is not significantly better" in page.text


def test_no_task_at_all(tmp_path: Path, evaluation: Evaluation) -> None:
    assert evaluation.verdict.sentence in render(replace(evaluation, tasks=()), tmp_path).text


def test_hundreds_of_rows_stay_readable(tmp_path: Path, evaluation: Evaluation) -> None:
    task = evaluation.tasks[0]
    many = [make_row(f"query:{i}", "h(new)/old", "query", f"method number {i}", i / 500) for i in range(400)]
    page = render(replace(evaluation, tasks=(replace(task, rows=(*task.rows, *many)),)), tmp_path)
    assert all(f"method number {i}" in page.text for i in range(400))
    assert "more rows are in the table" in page.text
    assert PICKED in {row.key for row in task.rows}
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert any("of 60 rows" in label for label in labels)


def test_page_stays_below_a_megabyte_with_no_pictures(tmp_path: Path, evaluation: Evaluation) -> None:
    assert write_report(evaluation, tmp_path).html.stat().st_size < 1_000_000
