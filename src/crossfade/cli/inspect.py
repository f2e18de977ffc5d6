"""``crossfade inspect``: what is in a store or a file of vectors, and what would stop an upgrade."""

from __future__ import annotations

from typing import Annotated

import typer

from crossfade.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command()(inspect)


def inspect(
    location: Annotated[str, typer.Argument(help="lancedb://DIR#table.column, or a file of vectors.")],
    space: Annotated[
        str | None, typer.Option(metavar="SPACE", help="Space of the vectors, where none is recorded.")
    ] = None,
    json: Json = False,
) -> None:
    """Look before anything is changed: rows, dimension, space, index, invalid vectors, duplicates."""
    from crossfade.cli.console import emit_json, stdout
    from crossfade.upgrade import inspect_store

    inspection = inspect_store(location, space=space)
    if json:
        emit_json(inspection.to_dict())
        return
    from crossfade.report.terminal import inspection_table

    stdout().print(inspection_table(inspection))
