"""What commands print: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int, int], None]


def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False)


def stderr() -> Console:
    """The console for progress and remarks, so that ``--json`` output stays clean."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def emit_json(values: Any) -> None:
    """Print one JSON document on stdout."""
    json.dump(values, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def remark(text: str) -> None:
    """One line on stderr."""
    stderr().print(text, markup=False)


@contextmanager
def progress_bar(label: str, unit: str = "rows") -> Iterator[Advance]:
    """A bar with rate and remaining time on stderr; yields `advance(done, total)`."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=False) as bar:
        task = bar.add_task(label, total=1, rate="", visible=False)  # a step that is refused has none

        def advance(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            bar.update(task, completed=done, total=max(total, 1), rate=rate, visible=True)

        yield advance


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """One bar per stage on stderr; yields `advance(stage, done, total)`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr()) as bar:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield advance
