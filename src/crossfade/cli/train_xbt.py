"""``crossfade train xbt``: stage 2 of XBT, a new model tuned for the old space on image-text pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import Json, Out

if TYPE_CHECKING:
    from crossfade.training.xbt import TrainedXbt

Model = Annotated[
    str, typer.Option(metavar="DIR|NAME", help="The new model: a folder, a Hub name or hf:NAME@REVISION.")
]
ProjectionDir = Annotated[Path, typer.Option(help="Folder of φ, from crossfade train xbt-text.")]
Data = Annotated[
    str,
    typer.Option(
        help="Captioned images: Karpathy or nocaps JSON, Parquet, WebDataset shards, a folder with captions."
    ),
]
Split = Annotated[str | None, typer.Option(help="Split of the data, where it has several.")]
ImageRoot = Annotated[Path | None, typer.Option(help="Folder of the images that a JSON file names.")]
CaptionColumn = Annotated[
    str, typer.Option(help="Column of the captions, in Parquet, tables and the json files of shards.")
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="YAML file (default: the settings in the documentation).")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: prompts.image=0."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of decoded pictures and the model's own vectors (default: pixels beside --out)."
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]


def register(app: typer.Typer) -> None:
    app.command("xbt")(xbt)


def xbt(
    model: Model,
    projection: ProjectionDir,
    data: Data,
    out: Out,
    split: Split = None,
    images: ImageRoot = None,
    caption_column: CaptionColumn = "caption",
    recipe: RecipeFile = None,
    settings: Settings = None,
    cache: Cache = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Tune a new model for the old space on image-text pairs; the old model is not needed (XBT, stage 2)."""
    from crossfade.cli.console import emit_json, stage_progress
    from crossfade.extras import load

    for module in ("torch", "transformers", "peft"):
        load(module, "train")
    from crossfade.datasets.image_texts import open_image_texts
    from crossfade.training.xbt import train_xbt
    from crossfade.training.xbt_recipe import XbtRecipe

    chosen = XbtRecipe.read(recipe, settings or ())
    pairs = open_image_texts(data, split=split, images=images, caption_column=caption_column)
    with stage_progress() as advance:
        done = train_xbt(chosen, model, projection, pairs, out, cache=cache, device=device, progress=advance)
    emit_json({**done.to_dict(), "skipped": str(pairs.skipped)}) if json else _print(done, str(pairs.skipped))


def _print(done: TrainedXbt, skipped: str) -> None:
    from crossfade.cli.console import stdout

    last = done.epochs[-1]
    numbers = ", ".join(f"{name} {last[name]:.4f}" for name in ("loss", "align", "anchor", "preserve"))
    corrupt = f", {len(done.corrupt):,} unreadable images left out" if done.corrupt else ""
    for line in (
        f"{done.new}",
        f"  into {done.space}",
        f"  {done.images:,} images with {done.captions:,} captions, {done.seconds:,.0f} s{corrupt}",
        f"  skipped: {skipped}; {done.truncated:,} captions longer than the context",
        f"  last epoch: {numbers}",
        f"  use it as xbt:{done.directory}#image and xbt:{done.directory}#text",
    ):
        stdout().print(line, markup=False)
