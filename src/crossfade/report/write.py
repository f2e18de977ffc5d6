"""Write a report: one HTML file, the same as Markdown, and every figure as JSON."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.errors import OutOfSpace, UsageError
from crossfade.report import html, markdown
from crossfade.report.page import Facts, page
from crossfade.report.samples import BoundedSamples, SampleSearch, bound

if TYPE_CHECKING:
    from crossfade.evaluation.result import Evaluation


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the three forms of a report were written."""

    html: Path
    markdown: Path
    json: Path


def write_report(
    evaluation: Evaluation,
    directory: str | Path,
    *,
    samples: Sequence[SampleSearch] = (),
    plan: Facts | None = None,
    history: Facts = (),
    commands: Facts | None = None,
) -> ReportPaths:
    """Write ``report.html``, ``report.md`` and ``report.json`` into `directory`, each atomically.

    Args:
        evaluation: what was measured.
        directory: where to write; made if it is absent.
        samples: searches before and after, with pictures; see `samples.bound` for what is kept.
        plan: label and value pairs that describe the plan.
        history: (state, detail) pairs of the upgrade, oldest first.
        commands: (command, what it does) pairs to try next; by default those of the verdict.

    Raises:
        UsageError: the directory cannot be written.
        OutOfSpace: the disk is full; earlier reports are left as they were.
    """
    content = page(evaluation, plan=plan or (), history=history, commands=commands, folder=str(directory))
    bounded = bound(samples)
    recommended = evaluation.verdict.row
    # All three are made before any is written: a report is never half new.
    texts = {
        "report.html": html.render(content, evaluation.tasks, recommended, bounded, evaluation.curves),
        "report.md": markdown.render(content, evaluation.tasks, recommended, bounded, evaluation.curves),
        "report.json": _json(evaluation, bounded, content.plan, content.history),
    }
    paths = [_write(Path(directory), name, text) for name, text in texts.items()]
    return ReportPaths(*paths)


def _json(evaluation: Evaluation, samples: BoundedSamples, plan: Facts, history: Facts) -> str:
    values = {
        "evaluation": evaluation.to_dict(),
        "plan": [{"label": label, "value": value} for label, value in plan],
        "history": [{"state": state, "detail": detail} for state, detail in history],
        "samples": [search.to_dict() for search in samples.searches],
    }
    return json.dumps(_strict(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    """NaN and infinity become null: JSON has no word for them."""
    if isinstance(value, dict):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutOfSpace(
                f"disk full while writing {path} ({len(text):,} characters); free space and run it again"
            ) from None
        raise UsageError(f"cannot write {path}: {error.strerror}; name another folder with --out") from None
    return path


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
