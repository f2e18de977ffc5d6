"""``crossfade train fct|fastfill|lambda-orthogonal``: maps that are trained from cached vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crossfade.cli.options import (
    IdColumn,
    Json,
    NewSpace,
    OldSpace,
    Out,
    SideSpace,
    SideVectors,
    VectorColumn,
)

if TYPE_CHECKING:
    from crossfade.training.classifier import ClassWeights
    from crossfade.training.transformations import TrainedTransformation, TransformationRecipe
    from crossfade.vectors import Pairs

Old = Annotated[str, typer.Option(help="Vectors of the old model; may hold more items than --new.")]
New = Annotated[str, typer.Option(help="Vectors of the new model for the same items.")]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="YAML file (default: the paper's settings).")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change an option: epochs=10.")
]
Label = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Classes of the items, a column of the new file.")
]
ClassifierDir = Annotated[
    Path | None, typer.Option("--classifier", help="Folder of the new model, for its classifier.")
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]


def register(app: typer.Typer) -> None:
    app.command()(fct)
    app.command()(fastfill)
    app.command("lambda-orthogonal")(lambda_orthogonal)


def fct(
    old: Old,
    new: New,
    out: Out,
    side: SideVectors = None,
    side_space: SideSpace = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    old_space: OldSpace = None,
    new_space: NewSpace = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train h of forward-compatible training from old vectors, with side-information or without (FCT)."""
    from crossfade.cli.reading import Reading

    reading = Reading(old_space, new_space, id_column, vector_column, side_space)
    _train(_recipe(recipe, "fct", settings), reading.pairs(old, new, side), out, device, json)


def fastfill(
    old: Old,
    new: New,
    out: Out,
    side: SideVectors = None,
    side_space: SideSpace = None,
    label: Label = None,
    classifier: ClassifierDir = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    old_space: OldSpace = None,
    new_space: NewSpace = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train h with an uncertainty per item, which orders a partial backfill (FastFill)."""
    from crossfade.cli.reading import Reading

    reading = Reading(old_space, new_space, id_column, vector_column, side_space)
    weights = _classifier(classifier)
    pairs = _labelled(reading, old, new, side, label, weights)
    _train(_recipe(recipe, "fastfill", settings), pairs, out, device, json, weights)


def lambda_orthogonal(
    old: Old,
    new: New,
    out: Out,
    direction: Annotated[
        Literal["forward", "backward"],
        typer.Option(help="forward lifts the gallery, backward maps queries back."),
    ] = "forward",
    side: SideVectors = None,
    side_space: SideSpace = None,
    label: Label = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    old_space: OldSpace = None,
    new_space: NewSpace = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a nearly orthogonal way back and a way forward to where it leads (λ-orthogonality)."""
    from crossfade.cli.reading import Reading

    reading = Reading(old_space, new_space, id_column, vector_column, side_space)
    pairs = _labelled(reading, old, new, side, label, None)
    chosen = _recipe(recipe, "lambda-orthogonal", settings).with_options(direction=direction)
    _train(chosen, pairs if direction == "forward" else pairs.reversed(), out, device, json)


def _recipe(path: Path | None, method: str, settings: list[str] | None) -> TransformationRecipe:
    from crossfade.extras import load

    load("torch", "train")
    from crossfade.training.transformations import TransformationRecipe

    return TransformationRecipe.read(path, method, settings or ())


def _classifier(folder: Path | None) -> ClassWeights | None:
    from crossfade.errors import UsageError
    from crossfade.extras import load

    if folder is None:
        return None
    load("torch", "train")
    from crossfade.training.classifier import load_classifier

    found = load_classifier(folder)
    if found is None:
        raise UsageError(
            f"{folder} was trained without a classifier; leave --classifier out: class means take its place"
        )
    return found


def _labelled(
    reading: object, old: str, new: str, side: str | None, label: str | None, weights: ClassWeights | None
) -> Pairs:
    from crossfade.cli.reading import Reading
    from crossfade.errors import UsageError
    from crossfade.vectors import ArrayPairs

    assert isinstance(reading, Reading)
    pairs = reading.pairs(old, new, side)
    if label is None:
        if weights is not None:
            raise UsageError("a classifier needs the items' classes; name their column (--label COLUMN)")
        return pairs
    from crossfade.training.transformations import label_codes

    found = pairs.read()
    labels = pairs.new.read((label,)).columns[label].to_pylist()
    return ArrayPairs(
        found.X,
        found.Y,
        source=found.source,
        target=found.target,
        side=found.S if found.side_dimension else None,
        side_space=found.side,
        labels=label_codes(labels, weights),
    )


def _train(
    recipe: TransformationRecipe,
    pairs: Pairs,
    out: Path,
    device: str,
    json: bool,
    weights: ClassWeights | None = None,
) -> None:
    from crossfade.cli.console import emit_json, progress_bar
    from crossfade.training.transformations import train_transformation

    with progress_bar(recipe.method, "pairs") as advance:
        done = train_transformation(recipe, pairs, out, classifier=weights, device=device, progress=advance)
    emit_json(done.to_dict()) if json else _print(done)


def _print(done: TrainedTransformation) -> None:
    from crossfade.cli.console import stdout

    adapter, last = done.adapter, done.epochs[-1] if done.epochs else {}
    beside = f" with side-information of {adapter.side}" if adapter.side else ""
    numbers = ", ".join(f"{name} {last[name]:.4f}" for name in last if name not in ("epoch", "seconds"))
    for line in (
        f"{adapter.name} trained on {adapter.n_pairs:,} pairs{beside}, {done.seconds:,.0f} s",
        f"  from {adapter.source}",
        f"  to   {adapter.target}",
        f"  last epoch: {numbers}",
        f"  in   {done.directory}; next: crossfade evaluate --adapter {done.directory} ...",
    ):
        stdout().print(line, markup=False)
