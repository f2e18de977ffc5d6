"""Options that several commands share, spelt the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
OldSpace = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="Space of the old vectors where the file does not say: "
        "NAME[@REVISION][,metric=cosine|dot|l2][,normalized][,prompt=TEXT].",
    ),
]
NewSpace = Annotated[
    str | None, typer.Option(metavar="SPACE", help="Space of the new vectors, where the file does not say.")
]
SideVectors = Annotated[
    str | None,
    typer.Option("--side", help="Side-information of the same items: vectors by id, in any order."),
]
SideSpace = Annotated[
    str | None,
    typer.Option(metavar="SPACE", help="Space of the side-information, where its file does not say."),
]
HeldOutOld = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Items under the old model that no adapter was fitted on: choose on them how scores of lifted "
        "and re-embedded rows come into one ranking (partial backfill).",
    ),
]
HeldOutNew = Annotated[str | None, typer.Option(metavar="FILE", help="The same items under the new model.")]
IdColumn = Annotated[str | None, typer.Option(help="Column of the ids (default: the one called id).")]
VectorColumn = Annotated[
    str | None, typer.Option(help="Column of the vectors (default: the one called vector).")
]
OnInvalid = Annotated[
    Literal["refuse", "skip"],
    typer.Option(help="NaN, infinite and zero vectors: stop, or skip and list them."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder or file to write.")]
