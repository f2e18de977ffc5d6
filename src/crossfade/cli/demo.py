"""``crossfade demo``: one upgrade from beginning to end, offline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from crossfade.cli.options import Json

MARKER = ".crossfade-demo"


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the gallery, the plan and the report.")] = Path(
        "crossfade-demo"
    ),
    scenes: Annotated[int, typer.Option(min=500, max=100_000, help="Scenes in the gallery.")] = 5000,
    json: Json = False,
) -> None:
    """Upgrade a gallery of 5,000 pictures: measure every way out, take the best, undo it, redo it."""
    from crossfade.cli.console import emit_json, stderr, stdout
    from crossfade.demo.run import Demo

    _clear_earlier_demo(out)
    result = Demo(out, stderr() if json else stdout(), scenes).run()
    (out / MARKER).touch()
    if json:
        emit_json(result.to_dict())


def _clear_earlier_demo(out: Path) -> None:
    """Remove what an earlier demo made, and nothing else."""
    if (out / MARKER).exists():
        shutil.rmtree(out)
