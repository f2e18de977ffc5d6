from __future__ import annotations

from pathlib import Path

import pytest
from made_up import make_evaluation, make_samples

from crossfade.evaluation.result import Evaluation
from crossfade.report import ReportPaths, SampleSearch, write_report


@pytest.fixture
def evaluation() -> Evaluation:
    return make_evaluation()


@pytest.fixture
def samples() -> list[SampleSearch]:
    return make_samples(4)


@pytest.fixture
def report(evaluation: Evaluation, samples: list[SampleSearch], tmp_path: Path) -> ReportPaths:
    return write_report(
        evaluation,
        tmp_path / "made" / "report",
        samples=samples,
        plan=[("Strategy", "cascade, k = 100"), ("Rows", "5,000")],
        history=[("planned", "02:14"), ("verified", "5,000 rows")],
    )
