"""Read an evaluation back from the folder that a report was written to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from crossfade.adapters import load_adapter
from crossfade.errors import UnreadableFile
from crossfade.evaluation import Evaluation

ADAPTERS = "adapters"


def adapter_folder(directory: Path, row: str) -> Path:
    """Where the adapter of a row of the matrix is saved beside the report."""
    return directory / ADAPTERS / row.replace(":", "-")


def read_evaluation(directory: str | Path) -> Evaluation:
    """The evaluation in ``report.json`` and its adapters.

    Raises:
        UnreadableFile: there is no report, or it was cut short.
    """
    folder = Path(directory)
    path = folder / "report.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        evaluation = Evaluation.from_dict(values["evaluation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(
            f"{path}: no evaluation that can be read ({error}); run crossfade evaluate --out {folder} again"
        ) from None
    rows = [row for task in evaluation.tasks for row in task.rows]
    keys = {row.key for row in rows if row.strategy in ("query", "gallery")}
    saved = {key: adapter_folder(folder, key) for key in sorted(keys)}
    adapters = {key: load_adapter(path) for key, path in saved.items() if path.is_dir()}
    return replace(evaluation, adapters=adapters)
