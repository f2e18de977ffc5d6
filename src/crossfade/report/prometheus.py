"""What `watch` found, in the text format of Prometheus."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.errors import StoreError

if TYPE_CHECKING:
    from crossfade.upgrade.watching import Watched

Samples = list[tuple[dict[str, str], float]]


def watch_metrics(found: Watched) -> str:
    """Gauges in the text exposition format 0.0.4."""
    which = {"upgrade": found.upgrade, "strategy": found.strategy}
    by_measure = [({**which, "measure": one.name}, one) for one in found.changes]
    metrics: list[tuple[str, str, Samples]] = [
        ("drift", "1 if a measure of the bridge has decayed, else 0.", [(which, float(found.drift))]),
        (
            "alarm",
            "1 if this measure has decayed, else 0.",
            [(at, float(one.alarm)) for at, one in by_measure],
        ),
        ("mean", "Mean of the measure over recent queries.", [(at, one.recent) for at, one in by_measure]),
        (
            "kept_mean",
            "Mean of the measure over the kept queries.",
            [(at, one.kept) for at, one in by_measure],
        ),
        (
            "p_value",
            "One-sided p value that the measure has decayed.",
            [(at, one.difference.p) for at, one in by_measure],
        ),
        ("queries", "Number of recent queries.", [(which, float(found.recent))]),
        ("timestamp_seconds", "Time of the look, seconds since 1970.", [(which, found.at)]),
    ]
    return "\n".join(line for metric in metrics for line in _lines(*metric)) + "\n"


def _lines(name: str, help_: str, samples: Samples) -> Iterator[str]:
    yield f"# HELP crossfade_watch_{name} {help_}"
    yield f"# TYPE crossfade_watch_{name} gauge"
    for labels, value in samples:
        given = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"crossfade_watch_{name}{{{given}}} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_metrics(text: str, path: Path) -> None:
    """Write the file at once, so that a collector never reads half of it.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(draft).chmod(0o644)  # mkstemp makes it private, collectors run as somebody else
            Path(draft).replace(path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: the metrics cannot be written ({error.strerror}); name a file in a folder that can be"
        ) from None
