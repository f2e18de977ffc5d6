"""The ``crossfade`` command. Every command imports its layer when it runs, so start-up stays light."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from crossfade.cli import (
    demo,
    doctor,
    evaluate,
    fit,
    inspect,
    plan,
    recalibrate,
    search,
    train,
    transform,
    upgrade,
    watch,
)
from crossfade.errors import CrossfadeError, Interrupted


class _Commands(TyperGroup):
    """Turns Ctrl-C into one of our own errors before the framework prints its "Aborted!"."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; what was finished is kept, nothing was switched: run the same command again"
            ) from None


app = typer.Typer(
    name="crossfade",
    cls=_Commands,
    help="Upgrade the embedding model of a live retrieval system without re-embedding its gallery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (
    demo,
    inspect,
    doctor,
    fit,
    transform,
    evaluate,
    plan,
    upgrade,
    search,
    recalibrate,
    watch,
    train,
):
    module.register(app)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if show:
        from crossfade import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 refused or failed for a stated reason."""
    try:
        app(args=list(arguments) if arguments is not None else None)
    except CrossfadeError as error:
        print("crossfade:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(error.exit_code)
