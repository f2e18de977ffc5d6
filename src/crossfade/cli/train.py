"""``crossfade train``: old and new models, backward-compatible ones, side-information; and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfade.cli import (
    train_clip,
    train_cross_modal,
    train_embed_captioned,
    train_transformation,
    train_xbt,
)
from crossfade.cli.options import Json

if TYPE_CHECKING:
    from crossfade.training import Recipe, Trained

app = typer.Typer(
    no_args_is_help=True,
    help="Train embedding models of images, alone or compatible with an old one.\n\n"
    "For several processes: accelerate launch -m crossfade train ...",
)

RecipeFile = Annotated[Path, typer.Option("--recipe", help="YAML file, e.g. recipes/cifar100/old.yaml.")]
Data = Annotated[
    str, typer.Option(help="Labelled images: Parquet, a folder per class, or a saved Hugging Face dataset.")
]
Out = Annotated[Path, typer.Option(help="Folder of the model; run again to resume.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: schedule.epochs=10."),
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of decoded pictures (default: pixels beside --out).")
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events into --out.")]
OldModel = Annotated[Path | None, typer.Option(help="Folder of the old model.")]
OldVectors = Annotated[
    str | None, typer.Option(help="The old model's vectors of these images, where the model itself is gone.")
]
EncoderSpec = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC", help="Any other encoder as side-information: trained:DIR, onnx:DIR#image, ..."
    ),
]


def register(parent: typer.Typer) -> None:
    train_transformation.register(app)
    train_cross_modal.register(app)
    train_xbt.register(app)
    train_clip.register(app)
    train_embed_captioned.register(app)
    parent.add_typer(app, name="train")


@app.command()
def old(
    recipe: RecipeFile,
    data: Data,
    out: Out,
    settings: Settings = None,
    cache: Cache = None,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Train an old model: classification or metric learning."""
    _free(recipe, data, out, settings, cache, device, tensorboard, json)


@app.command()
def new(
    recipe: RecipeFile,
    data: Data,
    out: Out,
    settings: Settings = None,
    cache: Cache = None,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Train a new model freely: classification or metric learning."""
    _free(recipe, data, out, settings, cache, device, tensorboard, json)


@app.command()
def bct(
    recipe: RecipeFile,
    data: Data,
    out: Out,
    old: OldModel = None,
    old_vectors: OldVectors = None,
    settings: Settings = None,
    cache: Cache = None,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Train a new model that searches the old gallery as it is (BCT)."""
    chosen = _read(recipe, settings, ("bct",))
    sides = {"old": old, "old_vectors": old_vectors}
    _train(chosen, data, out, cache, device, tensorboard, json, sides)


@app.command("side-info")
def side_info(
    data: Data,
    out: Out,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file, e.g. recipes/cifar100/side-info.yaml.")
    ] = None,
    encoder: EncoderSpec = None,
    settings: Settings = None,
    cache: Cache = None,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Train side-information on the old data (SimCLR), or take another encoder's (--encoder)."""
    from crossfade.errors import UsageError

    if (recipe is None) == (encoder is None):
        raise UsageError(
            "side-information is trained (--recipe FILE) or another encoder's (--encoder SPEC); give one"
        )
    if encoder is not None:
        embed(encoder, data, out, cache=cache, json=json)
    elif recipe is not None:
        chosen = _read(recipe, settings, ("simclr", "metric-learning", "classification"))
        _train(chosen, data, out, cache, device, tensorboard, json, {})


@app.command()
def embed(
    encoder: Annotated[
        str, typer.Option(metavar="SPEC", help="trained:DIR, onnx:DIR#image, python:MODULE:ATTRIBUTE.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="Parquet file to write: id, label, vector.")],
    cache: Cache = None,
    on_corrupt: Annotated[
        str, typer.Option(metavar="refuse|skip", help="Images that cannot be read.")
    ] = "refuse",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    image_column: Annotated[str, typer.Option(help="Column of the images.")] = "image",
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    id_column: Annotated[str, typer.Option(help="Column of the ids; row numbers without one.")] = "id",
    json: Json = False,
) -> None:
    """Embed labelled images once, so that everything after works on vectors."""
    from crossfade.cli.console import emit_json, progress_bar, stdout
    from crossfade.datasets.images import open_images
    from crossfade.encoders import open_encoder
    from crossfade.training import embed_images

    opened = open_encoder(encoder)
    images = open_images(data, image=image_column, label=label_column, identifier=id_column)
    with progress_bar("embed", "images") as advance:
        done = embed_images(
            opened,
            images,
            out,
            cache=cache,
            on_corrupt=on_corrupt,  # type: ignore[arg-type]
            overwrite=overwrite,
            progress=advance,
        )
    if json:
        emit_json(
            {
                "path": str(out),
                "rows": done.rows,
                "corrupt": list(done.corrupt),
                "space": opened.space.to_dict(),
            }
        )
    else:
        left_out = f" ({len(done.corrupt):,} unreadable images left out)" if done.corrupt else ""
        stdout().print(f"{done.rows:,} vectors of {opened.space} in {out}{left_out}", markup=False)


def _free(
    recipe: Path,
    data: str,
    out: Path,
    settings: list[str] | None,
    cache: Path | None,
    device: str,
    tensorboard: bool,
    json: bool,
) -> None:
    chosen = _read(recipe, settings, ("classification", "metric-learning"))
    _train(chosen, data, out, cache, device, tensorboard, json, {})


def _read(path: Path, settings: list[str] | None, methods: tuple[str, ...]) -> Recipe:
    from crossfade.errors import UsageError
    from crossfade.training import Recipe

    recipe = Recipe.read(path, settings or ())
    if recipe.method not in methods:
        raise UsageError(
            f"{path} is a recipe for {recipe.method!r}; this command trains {', '.join(methods)}"
        )
    return recipe


def _train(
    recipe: Recipe,
    data: str,
    out: Path,
    cache: Path | None,
    device: str,
    tensorboard: bool,
    json: bool,
    sides: Mapping[str, Any],
) -> None:
    from crossfade.cli.console import emit_json, progress_bar
    from crossfade.training import train_model

    with progress_bar(recipe.name, "images") as advance:
        log = _tensorboard(out) if tensorboard else None
        trained = train_model(
            recipe, data, out, cache=cache, device=device, progress=advance, log=log, **sides
        )
    if _main_process():
        emit_json(trained.to_dict()) if json else _print(trained)


def _print(trained: Trained) -> None:
    from crossfade.cli.console import stdout

    last = trained.epochs[-1]
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in last.items() if name not in _BOOKKEEPING)
    skipped = f", {len(trained.corrupt):,} unreadable images left out" if trained.corrupt else ""
    for line in (
        f"{trained.space}",
        f"  {trained.images:,} images of {trained.classes} classes, {trained.seconds:,.0f} s{skipped}",
        f"  last epoch: {numbers}",
        f"  embed with: crossfade train embed --encoder trained:{trained.directory} --data ... --out ...",
    ):
        stdout().print(line, markup=False)


_BOOKKEEPING = ("step", "seconds", "processor seconds", "learning rate")


def _tensorboard(out: Path) -> Callable[[int, Mapping[str, float]], None]:
    from crossfade.errors import MissingExtra
    from crossfade.extras import installed, load

    if not installed("tensorboard"):
        raise MissingExtra("'tensorboard' is not installed; run: pip install tensorboard")
    writer = load("torch.utils.tensorboard", "train").SummaryWriter(str(out / "tensorboard"))

    def log(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return log


def _main_process() -> bool:
    """Several processes print once."""
    import os

    return os.environ.get("RANK", "0") == "0"
