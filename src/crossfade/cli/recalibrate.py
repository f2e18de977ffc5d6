"""``crossfade recalibrate``: carry an application's score thresholds over to the new scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import Json, Seed, SideVectors, reads_vectors
from crossfade.cli.reading import Reading

if TYPE_CHECKING:
    from crossfade.evaluation.bridge import Bridge, Sample
    from crossfade.spaces import Space


def register(app: typer.Typer) -> None:
    app.command()(reads_vectors(recalibrate))


def recalibrate(
    reading: Reading,
    old: Annotated[str, typer.Option(help="Gallery items under the old model, or a sample of them.")],
    threshold: Annotated[
        list[float], typer.Option(help="Threshold on the old scores; may be repeated.", show_default=False)
    ],
    new: Annotated[str | None, typer.Option(help="The same items under the new model.")] = None,
    old_queries: Annotated[
        str | None, typer.Option(help="Queries under the old model (default: some of the items ask).")
    ] = None,
    new_queries: Annotated[str | None, typer.Option(help="The same queries under the new model.")] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Folder of the adapter in use, fitted on other items; none after a full backfill."),
    ] = None,
    weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Weight of the mapped query (interpolate).")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="quantile (as many pairs above) or isotonic; may be repeated. Default: quantile."),
    ] = None,
    distances: Annotated[
        bool, typer.Option("--distances", help="Thresholds are distances: smaller is nearer.")
    ] = False,
    side: SideVectors = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Carry score thresholds over from old to new scores, with their error on held-out queries."""
    from crossfade.cli.console import emit_json, stdout
    from crossfade.evaluation.bridge import Sample
    from crossfade.evaluation.recalibration import QUANTILE, recalibrate_bridge
    from crossfade.report.recalibration import recalibration_view

    asked = reading.queries(old_queries, new_queries)
    queries = None if asked is None else Sample(asked.old, asked.new)
    gallery = _gallery(reading, old, new, side)
    found = recalibrate_bridge(
        _bridge(adapter, weight, gallery),
        queries,
        gallery,
        threshold,
        methods=method or (QUANTILE,),
        distances=distances,
        seed=seed,
    )
    if json:
        emit_json(found.to_dict())
    else:
        stdout().print(recalibration_view(found))


def _gallery(reading: Reading, old: str, new: str | None, side: str | None) -> Sample:
    from crossfade.errors import UsageError
    from crossfade.evaluation.bridge import Sample

    if new is not None:
        sides = reading.sides(old, new, side=side)
        return Sample(sides.old, sides.new, sides.side)
    if side is not None:
        raise UsageError("side-information is matched with the items of --new; name their vectors, too")
    return Sample(reading.one(old, reading.old_space, "--old-space").read())


def _bridge(adapter: Path | None, weight: float | None, gallery: Sample) -> Bridge:
    from crossfade.adapters import load_adapter
    from crossfade.errors import UsageError
    from crossfade.evaluation.bridge import Bridge

    if adapter is not None:
        old: Space = gallery.under_old("gallery items").space
        return Bridge.by(load_adapter(adapter), old, weight=weight)
    if weight is not None:
        raise UsageError("a weight is for mapped queries; name their adapter, too (--adapter DIR)")
    return Bridge("native" if gallery.new is None else "backfill")
