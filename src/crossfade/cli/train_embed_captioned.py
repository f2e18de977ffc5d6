"""``crossfade train embed-captioned``: captioned images under one model, as files of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from crossfade.cli.options import Json
from crossfade.cli.train_xbt import CaptionColumn, Data, ImageRoot, Split

ImageSpec = Annotated[
    str, typer.Option("--image", metavar="SPEC", help="Encoder of the images, hf:NAME#image, xbt:DIR#image.")
]
TextSpec = Annotated[
    str, typer.Option("--text", metavar="SPEC", help="Encoder of the captions, hf:NAME#text, xbt:DIR#text.")
]


def register(app: typer.Typer) -> None:
    app.command("embed-captioned")(embed_captioned)


def embed_captioned(
    image: ImageSpec,
    text: TextSpec,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for images.parquet and captions.parquet.")],
    split: Split = None,
    images: ImageRoot = None,
    caption_column: CaptionColumn = "caption",
    on_corrupt: Annotated[
        Literal["refuse", "skip"], typer.Option(help="Images that cannot be read.")
    ] = "refuse",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    json: Json = False,
) -> None:
    """Embed captioned images and their captions once, for evaluate --captions image,caption."""
    from crossfade.cli.console import emit_json, stage_progress, stdout
    from crossfade.datasets.image_texts import open_image_texts
    from crossfade.encoders import open_encoder
    from crossfade.training.embed_captioned import CAPTIONS, IMAGES
    from crossfade.training.embed_captioned import embed_captioned as embed

    towers = open_encoder(image), open_encoder(text)
    pairs = open_image_texts(data, split=split, images=images, caption_column=caption_column)
    with stage_progress() as advance:
        done = embed(*towers, pairs, out, on_corrupt=on_corrupt, overwrite=overwrite, progress=advance)
    if json:
        emit_json(
            {
                "images": {"path": str(out / IMAGES), "rows": done.images},
                "captions": {"path": str(out / CAPTIONS), "rows": done.captions},
                "truncated": done.truncated,
                "corrupt": list(done.corrupt),
                "skipped": str(pairs.skipped),
                "space": towers[0].space.to_dict(),
            }
        )
        return
    lost = f", {len(done.corrupt):,} unreadable images left out" if done.corrupt else ""
    for line in (
        f"{done.images:,} images in {out / IMAGES}, {done.captions:,} captions in {out / CAPTIONS}",
        f"  vectors of {towers[0].space}{lost}",
        f"  skipped: {pairs.skipped}; {done.truncated:,} captions longer than the context",
    ):
        stdout().print(line, markup=False)
