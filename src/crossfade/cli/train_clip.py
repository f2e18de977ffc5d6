"""``crossfade train clip``: a dual encoder from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import Json

if TYPE_CHECKING:
    from crossfade.training.clip import TrainedClip

RecipeFile = Annotated[Path, typer.Option("--recipe", help="YAML file, e.g. recipes/xbt/fashion-old.yaml.")]
Data = Annotated[
    str,
    typer.Option(
        help="Captioned images: Karpathy or nocaps JSON, Parquet, WebDataset shards, a folder with captions."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the model; run again to resume.")]
Split = Annotated[str | None, typer.Option(help="Split of the data, where it has several.")]
ImageRoot = Annotated[Path | None, typer.Option(help="Folder of the images that a JSON file names.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: schedule.epochs=10."),
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of decoded pictures (default: pixels beside --out).")
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]


def register(app: typer.Typer) -> None:
    app.command("clip")(clip)


def clip(
    recipe: RecipeFile,
    data: Data,
    out: Out,
    split: Split = None,
    images: ImageRoot = None,
    settings: Settings = None,
    cache: Cache = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a dual encoder of images and texts from scratch, with a tokenizer of its own (CLIP)."""
    import os

    from crossfade.cli.console import emit_json, progress_bar
    from crossfade.extras import load

    for module in ("torch", "transformers", "tokenizers"):
        load(module, "train")
    from crossfade.datasets.image_texts import open_image_texts
    from crossfade.training.clip import train_clip
    from crossfade.training.clip_recipe import ClipRecipe

    chosen = ClipRecipe.read(recipe, settings or ())
    columns = {
        "image_column": chosen.data.image_column,
        "caption_column": chosen.data.caption_column,
        "id_column": chosen.data.id_column,
    }
    pairs = open_image_texts(data, split=split, images=images, **columns)
    with progress_bar(chosen.name, "pairs") as advance:
        done = train_clip(chosen, pairs, out, cache=cache, device=device, progress=advance)
    if os.environ.get("RANK", "0") == "0":  # several processes print once
        skipped = str(pairs.skipped)
        emit_json({**done.to_dict(), "skipped": skipped}) if json else _print(done, skipped)


def _print(done: TrainedClip, skipped: str) -> None:
    from crossfade.cli.console import stdout

    last = done.epochs[-1]
    corrupt = f", {len(done.corrupt):,} unreadable images left out" if done.corrupt else ""
    for line in (
        f"{done.space}",
        f"  {done.images:,} images with {done.captions:,} captions, {done.seconds:,.0f} s{corrupt}",
        f"  skipped: {skipped}; {done.truncated:,} captions longer than the context",
        f"  last epoch: loss {last['loss']:.4f}, {last['found']:.0%} of a batch's images find their caption, "
        f"temperature {last['temperature']:.3f}",
        f"  use it as hf:{done.directory}#image and hf:{done.directory}#text",
    ):
        stdout().print(line, markup=False)
