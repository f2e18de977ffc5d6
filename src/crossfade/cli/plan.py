"""``crossfade plan``: what an upgrade would do, in a file to review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crossfade.cli.options import HeldOutNew, HeldOutOld, Json, OldSpace, OnInvalid

if TYPE_CHECKING:
    from crossfade.evaluation.bridge import Sample
    from crossfade.spaces import Space


def register(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    store: Annotated[str, typer.Argument(help="lancedb://DIR#table.column")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("plan.json"),
    evaluation: Annotated[Path | None, typer.Option(help="Folder that crossfade evaluate wrote.")] = None,
    strategy: Annotated[
        Literal[
            "keep",
            "native",
            "query",
            "interpolate",
            "cascade",
            "gallery",
            "lifted-cascade",
            "partial",
            "backfill",
        ]
        | None,
        typer.Option(help="Default: what the evaluation recommends."),
    ] = None,
    row: Annotated[str, typer.Option(help="Row of the evaluation to carry out, e.g. gallery:ridge.")] = "",
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of a saved adapter, instead of the evaluation's.")
    ] = None,
    items: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the raw items (cascades, partial, backfill).")
    ] = "",
    side: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the side-information, for an adapter with it.")
    ] = "",
    budget: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the rows to embed again (partial).")
    ] = None,
    target_quality: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the full backfill's quality to reach (partial)."),
    ] = None,
    held_out_old: HeldOutOld = None,
    held_out_new: HeldOutNew = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="New model: onnx:DIR#image, python:module:name, openai:MODEL@URL …"
        ),
    ] = None,
    weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Weight of the new query (interpolate).")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Candidates to re-rank (cascades).")] = None,
    on_invalid: OnInvalid = "refuse",
    old_space: OldSpace = None,
    new_space: Annotated[
        str | None, typer.Option(metavar="SPACE", help="The new model, with --new-dimension.")
    ] = None,
    new_dimension: Annotated[int | None, typer.Option(min=1, help="Dimension of --new-space.")] = None,
    force: Annotated[
        str,
        typer.Option(metavar="REASON", help="Carry out what the evaluation shows to be worse, and say why."),
    ] = "",
    json: Json = False,
) -> None:
    """Check the store, measure its speed, and write down every step, its cost and the way back."""
    from crossfade.cli.console import emit_json, stderr, stdout
    from crossfade.encoders.open import open_encoder
    from crossfade.report.read import read_evaluation
    from crossfade.report.terminal import facts_panel
    from crossfade.upgrade.planning import plan as make

    measured = read_evaluation(evaluation) if evaluation else None
    embedder = open_encoder(encoder) if encoder else None
    held_out = _held_out(held_out_old, held_out_new, old_space, new_space)
    with stderr().status("reading the gallery, measuring the speed"):
        made = make(
            store,
            strategy=strategy,
            evaluation=measured,
            row=row,
            adapter=adapter,
            encoder=embedder,
            old=old_space,
            new=_space(new_space, new_dimension),
            weight=weight,
            depth=depth,
            items=items,
            side=side,
            budget=budget,
            target_quality=target_quality,
            held_out=held_out,
            encoders={"items": encoder} if encoder else None,
            on_invalid=on_invalid,
            force=force,
        )
    made.save(out)
    if json:
        emit_json(made.to_dict())
        return
    stdout().print(facts_panel(f"plan {made.id}", made.summary()))
    stdout().print(f"written to {out}; next: crossfade apply {out}", markup=False)


def _held_out(
    old: str | None, new: str | None, old_space: str | None, new_space: str | None
) -> Sample | None:
    from crossfade.cli.reading import Reading
    from crossfade.evaluation.bridge import Sample

    sides = Reading(old_space, new_space).held_out(old, new)
    return None if sides is None else Sample(sides.old, sides.new)


def _space(text: str | None, dimension: int | None) -> Space | None:
    from crossfade.errors import UsageError
    from crossfade.spaces import Space

    if (text is None) != (dimension is None):
        raise UsageError("--new-space and --new-dimension belong together; give both or none")
    return Space.parse(text, dimension) if text is not None and dimension is not None else None
