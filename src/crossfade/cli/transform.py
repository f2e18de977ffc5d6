"""``crossfade transform``: map a file or table of vectors with an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossfade.cli.options import IdColumn, Json, OnInvalid, VectorColumn


def register(app: typer.Typer) -> None:
    app.command()(transform)


def transform(
    adapter: Annotated[Path, typer.Option(help="Folder of a saved adapter.")],
    source: Annotated[str, typer.Option("--input", help="Vectors to map: a file or lancedb://DIR#table.column.")],
    output: Annotated[str, typer.Option(help="Where to write: NAME.parquet or lancedb://DIR#table.column (new).")],
    space: Annotated[str | None, typer.Option(metavar="SPACE", help="Space of the input, where it does not say.")] = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    on_invalid: OnInvalid = "refuse",
    json: Json = False,
) -> None:
    """Map every vector of a file or table into the adapter's target space, streamed."""
    from crossfade.adapters import load_adapter
    from crossfade.cli.console import emit_json, progress_bar, stdout
    from crossfade.cli.reading import open_side
    from crossfade.vectors.transform import lift
    from crossfade.vectors.writing import open_writer

    mapping = load_adapter(adapter)
    vectors = open_side(source, "--space", space, id_column, vector_column)
    mapping.require_source(vectors.space, source)
    target = mapping.target_space
    with progress_bar("map vectors") as advance:
        report = lift(
            vectors,
            mapping.transform,
            target,
            open_writer(output, target),
            progress=advance,
            on_invalid=on_invalid,
        )
    if json:
        emit_json({"output": output, **report.to_dict()})
    else:
        stdout().print(report.sentence(output), markup=False)
