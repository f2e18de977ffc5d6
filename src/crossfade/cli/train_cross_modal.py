"""``crossfade train xbt-text``: stage 1 of XBT, a map between two dual encoders trained on texts alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import IdColumn, Json, NewSpace, OldSpace, Out, VectorColumn
from crossfade.cli.train_transformation import Device, Settings

if TYPE_CHECKING:
    from crossfade.encoders.base import Encoder
    from crossfade.training.embed_texts import EmbeddedTexts
    from crossfade.training.xbt_text import TrainedXbtText
    from crossfade.vectors import VectorSource

VECTOR_FILES = (".parquet", ".pq", ".npy", ".npz", ".lance")

Model = Annotated[
    str, typer.Option(metavar="SPEC|VECTORS", help="Text encoder (hf:DIR#text, ...), or its vectors by id.")
]
TextFiles = Annotated[
    list[str] | None,
    typer.Option("--texts", metavar="FILE", help="One text per line, Parquet or JSONL; may be repeated."),
]
TextColumn = Annotated[str, typer.Option(help="Column of the texts, in Parquet and JSONL.")]
Images = Annotated[
    str | None,
    typer.Option(
        metavar="VECTORS",
        help="The new model's vectors of any images, unpaired: for --set sigma=auto or --set shifted=SHARE.",
    ),
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="YAML file with method: projection.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of the texts' vectors (default: OUT.vectors).")]


def register(app: typer.Typer) -> None:
    app.command("xbt-text")(xbt_text)


def xbt_text(
    new: Model,
    old: Model,
    out: Out,
    texts: TextFiles = None,
    text_column: TextColumn = "caption",
    images: Images = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    cache: Cache = None,
    new_space: NewSpace = None,
    old_space: OldSpace = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train φ from the new space to the old one on texts alone, both encoders frozen (XBT, stage 1)."""
    from crossfade.cli.console import emit_json, stage_progress
    from crossfade.cli.reading import Reading
    from crossfade.extras import load

    load("torch", "train")
    from crossfade.datasets.texts import open_texts
    from crossfade.training.transformations import TransformationRecipe
    from crossfade.training.xbt_text import train_xbt_text

    chosen = TransformationRecipe.read(recipe, "projection", settings or ())
    reading = Reading(old_space, new_space, id_column, vector_column)
    new_tower = _opened(reading, new, new_space, "--new-space")
    old_tower = _opened(reading, old, old_space, "--old-space")
    shown = None if images is None else reading.one(images, new_space, "--new-space")
    corpus = open_texts(texts, column=text_column) if texts else None
    with stage_progress() as advance:
        done = train_xbt_text(
            new_tower,
            old_tower,
            corpus,
            out,
            recipe=chosen,
            images=shown,
            cache=cache,
            device=device,
            progress=lambda stage, done, total: advance(stage, done, total or done),
        )
    emit_json(done.to_dict()) if json else _print(done)


def _opened(reading: object, given: str, space: str | None, option: str) -> Encoder | VectorSource:
    from crossfade.cli.reading import Reading
    from crossfade.encoders import open_encoder
    from crossfade.errors import UsageError

    assert isinstance(reading, Reading)
    if given.startswith("lancedb://") or Path(given).suffix.lower() in VECTOR_FILES:
        return reading.one(given, space, option)
    if space is not None:
        raise UsageError(f"{option} names the space of vectors; {given!r} is an encoder, which says its own")
    return open_encoder(given)


def _print(done: TrainedXbtText) -> None:
    from crossfade.cli.console import stdout

    adapter, last = done.trained.adapter, done.trained.epochs[-1] if done.trained.epochs else {}
    numbers = ", ".join(f"{name} {last[name]:.4f}" for name in last if name not in ("epoch", "seconds"))
    sigma = f"sigma {adapter.get_params()['sigma']:g}{' (chosen)' if done.choice else ''}"
    lines = [
        f"{adapter.name} trained on {adapter.n_pairs:,} texts, {sigma}, {done.trained.seconds:,.0f} s",
        f"  from {adapter.source}",
        f"  to   {adapter.target}",
        *(_embedded(name, one) for name, one in (("new", done.new), ("old", done.old)) if one is not None),
        f"  last epoch: {numbers}",
        f"  in   {done.trained.directory}; next: crossfade evaluate --adapter {done.trained.directory} ...",
    ]
    for line in lines:
        stdout().print(line, markup=False)


def _embedded(name: str, one: EmbeddedTexts) -> str:
    counts = one.counts
    cut = "not counted" if one.truncated is None else f"{one.truncated:,}"
    return (
        f"  {name}  {counts.read:,} texts read, {counts.empty:,} empty, {counts.duplicate:,} repeated, "
        f"{cut} longer than the context; vectors in {one.path}"
    )
