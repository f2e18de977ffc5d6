"""``crossfade inspect``: what is in a store or a file of vectors, and what would stop an upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from crossfade.cli.options import IdColumn, Json, VectorColumn

SHOWN = 5


def register(app: typer.Typer) -> None:
    app.command()(inspect)


def inspect(
    location: Annotated[str, typer.Argument(help="lancedb://DIR#table.column, or a file of vectors.")],
    space: Annotated[
        str | None, typer.Option(metavar="SPACE", help="Space of the vectors, where none is recorded.")
    ] = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    json: Json = False,
) -> None:
    """Look before anything is changed: rows, dimension, space, index, invalid vectors, duplicates."""
    from crossfade.cli.console import emit_json, stdout
    from crossfade.report.terminal import facts_panel, inspection_table
    from crossfade.upgrade import inspect_store

    if "://" not in location:
        found = _file(location, space, id_column, vector_column)
        if json:
            emit_json(found)
        else:
            stdout().print(
                facts_panel("file of vectors", [(name, str(value)) for name, value in found.items()])
            )
        return
    inspection = inspect_store(location, space=space)
    if json:
        emit_json(inspection.to_dict())
    else:
        stdout().print(inspection_table(inspection))


def _file(
    location: str, space: str | None, id_column: str | None, vector_column: str | None
) -> dict[str, Any]:
    """Rows, space and unusable vectors of a file; it is read once, and duplicate ids are refused."""
    from crossfade.cli.reading import Reading
    from crossfade.vectors.checks import check

    source = Reading(id_column=id_column, vector_column=vector_column).one(location, space, "--space")
    checked = check(source, on_invalid="skip")
    return {
        "file": str(Path(location)),
        "rows": len(source),
        "space": str(source.space),
        "ids": "each occurs once",
        "unusable": str(checked),
        "first unusable": ", ".join(f"{one.id} ({one.fault})" for one in checked.invalid[:SHOWN]) or "none",
    }
