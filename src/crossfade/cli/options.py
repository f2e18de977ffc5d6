"""Options that several commands share, spelt the same everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from crossfade.cli.reading import Reading

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
OldSpace = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="Space of the old vectors where the file does not say: "
        "NAME\\[@REVISION], then what applies of ,metric=cosine|dot|l2 ,normalized ,prompt=TEXT.",
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


def _how_to_read(
    *,
    side_space: SideSpace = None,
    old_space: OldSpace = None,
    new_space: NewSpace = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
) -> None:
    """The options of a command that reads files of vectors."""


def reads_vectors(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how its files of vectors are read; it takes them as `reading`."""
    own, shared = (inspect.signature(one, eval_str=True).parameters for one in (command, _how_to_read))
    kept = [one.replace(kind=one.KEYWORD_ONLY) for one in own.values() if one.name != "reading"]
    last = [one for one in kept if one.name in ("seed", "json")]
    options = [*(one for one in kept if one not in last), *shared.values(), *last]

    def called(**given: Any) -> None:
        command(reading=Reading(**{name: given.pop(name) for name in shared}), **given)

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__annotations__ = {one.name: one.annotation for one in options}
    # what typer makes the command's options from
    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return called
