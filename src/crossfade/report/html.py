"""The report as one self-contained HTML file: no script, no font, no request of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.report.cascade_plot import cascade_plot
from crossfade.report.curve_plot import curve_plot
from crossfade.report.curve_view import LEGEND as CURVE_LEGEND
from crossfade.report.curve_view import CurveTable, curve_view
from crossfade.report.interval_plot import interval_plot, rows_left_out
from crossfade.report.page import Page
from crossfade.report.samples import BoundedSamples, data_uri, is_small
from crossfade.report.view import AGREEMENT, FLIPS_LEGEND, GAP_LEGEND, LEGEND, Matrix, matrix

if TYPE_CHECKING:
    from markupsafe import Markup

    from crossfade.evaluation.curves import BackfillCurve
    from crossfade.evaluation.result import TaskResult

SHOWN_SEARCHES = 3
"""Sample searches in plain sight; the others are folded."""

WORDS = {
    "better": "better than old/old",
    "worse": "worse than old/old",
    "same": "not distinguishable from old/old",
}


@dataclass(frozen=True, slots=True)
class _TaskSection:
    matrix: Matrix
    columns: int
    intervals: tuple[Markup, ...]
    cascades: tuple[Markup, ...]
    curves: tuple[tuple[CurveTable, tuple[Markup, ...]], ...]
    left_out: int


def render(
    page: Page,
    tasks: Sequence[TaskResult],
    recommended: str | None,
    samples: BoundedSamples,
    curves: Sequence[BackfillCurve] = (),
) -> str:
    """The whole page. Everything that is not markup of ours is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from crossfade import __version__

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        page=page,
        tasks=[_section(task, recommended, curves) for task in tasks],
        samples=samples,
        shown=SHOWN_SEARCHES,
        data_uri=data_uri,
        is_small=is_small,
        words=WORDS,
        legend=LEGEND,
        flips_legend=FLIPS_LEGEND,
        gap_legend=GAP_LEGEND,
        agreement_legend=AGREEMENT,
        curve_legend=CURVE_LEGEND,
        version=__version__,
    )


def _section(task: TaskResult, recommended: str | None, curves: Sequence[BackfillCurve]) -> _TaskSection:
    from markupsafe import Markup

    view = matrix(task, recommended)
    return _TaskSection(
        matrix=view,
        columns=3 + len(view.metrics) + view.has_flips + view.has_embedded,
        # Well-formed and escaped by the XML writer, so the template may take it as it is.
        intervals=tuple(Markup(plot) for plot in interval_plot(task, recommended)),
        cascades=tuple(Markup(plot) for plot in cascade_plot(task, recommended)),
        curves=tuple(
            (curve_view(one), tuple(Markup(plot) for plot in curve_plot(one)))
            for one in curves
            if one.task == task.name
        ),
        left_out=rows_left_out(task),
    )
