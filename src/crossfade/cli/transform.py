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
    source: Annotated[
        str, typer.Option("--input", help="Vectors to map: a file or lancedb://DIR#table.column.")
    ],
    output: Annotated[
        str, typer.Option(help="Where to write: NAME.parquet or lancedb://DIR#table.column (new).")
    ],
    space: Annotated[
        str | None, typer.Option(metavar="SPACE", help="Space of the input, where it does not say.")
    ] = None,
    side: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the side-information, for an adapter with it."),
    ] = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    on_invalid: OnInvalid = "refuse",
    json: Json = False,
) -> None:
    """Map every vector of a file or table into the adapter's target space, streamed."""
    from crossfade.adapters import load_adapter
    from crossfade.cli.console import emit_json, progress_bar, stdout
    from crossfade.cli.reading import Reading
    from crossfade.errors import NotSupported
    from crossfade.vectors.open import open_writer
    from crossfade.vectors.transform import lift

    mapping = load_adapter(adapter)
    vectors = Reading(id_column=id_column, vector_column=vector_column).one(source, space, "--space")
    mapping.require_source(vectors.space, source)
    if bool(mapping.side_dimension) != (side is not None):
        mapping.require_side(mapping.source if side else None, source)
    target = mapping.target
    if target is None:
        raise NotSupported(
            f"{adapter}: fitted on plain arrays, it does not know its target; fit it with spaces"
        )
    with progress_bar("map vectors") as advance:
        report = lift(
            vectors,
            mapping.transform,
            target,
            open_writer(output, target),
            progress=advance,
            on_invalid=on_invalid,
            side=side,
        )
    if json:
        emit_json({"output": output, **report.to_dict()})
    else:
        rate = f"{report.written:,} of {report.checks.rows:,} vectors, {report.rows_per_second:,.0f}/s"
        stdout().print(f"{rate}, now in {target}\nwritten to {output}", markup=False)
        for one in report.checks.invalid:
            stdout().print(f"left out: id {one.id} (row {one.row}): {one.fault}", markup=False)
