"""``crossfade doctor``: does a gallery hold vectors of another model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import Json, Seed

if TYPE_CHECKING:
    from crossfade.evaluation.estimates import Estimate
    from crossfade.upgrade.doctor import Diagnosis

MIXED = 1
"""Exit code where vectors of another model were found."""


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    store: Annotated[str, typer.Argument(help="lancedb://DIR#table.column")],
    encoder: Annotated[
        str | None, typer.Option(metavar="SPEC", help="The gallery's model: embeds some items again.")
    ] = None,
    items: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the raw items, for --encoder.")
    ] = None,
    sample: Annotated[int, typer.Option(min=200, max=20_000, help="Vectors to look at.")] = 3000,
    out: Annotated[
        Path | None, typer.Option(help="Parquet file to write: id and origin of every row.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Find a gallery that holds vectors of two models, as a botched upgrade leaves it; exit code 1 if so."""
    from crossfade.cli.console import emit_json, progress_bar, stdout
    from crossfade.encoders.open import open_encoder
    from crossfade.report.terminal import facts_panel
    from crossfade.stores import open_store
    from crossfade.upgrade.doctor import examine, write_origins

    opened = open_store(store)
    chosen = open_encoder(encoder) if encoder else None
    with progress_bar("examine") as advance:
        found = examine(opened, sample=sample, seed=seed, encoder=chosen, items=items, progress=advance)
    if out is not None:
        with progress_bar("assign") as advance:
            write_origins(opened, found.origins, out, progress=advance)
    if json:
        emit_json(found.to_dict())
    else:
        stdout().print(facts_panel(f"doctor: {opened.uri}", _facts(found, out)))
    if found.mixed:
        raise typer.Exit(MIXED)


def _facts(found: Diagnosis, out: Path | None) -> list[tuple[str, str]]:
    origins = found.origins
    facts = [
        ("sampled", f"{origins.sampled:,} vectors"),
        ("by geometry", _GEOMETRY[origins.verdict]),
    ]
    if origins.verdict == "mixed":
        facts += [("origins", "; ".join(map(_share, origins.shares)))]
    if found.foreign is not None:
        facts += [
            ("embedded again", f"{found.embedded:,} items"),
            ("not the encoder's", _share(found.foreign)),
        ]
    if found.examples:
        facts += [("for example", ", ".join(map(repr, found.examples)))]
    if out is not None:
        facts += [("origin of every row", str(out))]
    return [*facts, ("next", _MIXED if found.mixed else _CLEAN)]


_GEOMETRY = {
    "one origin": "one origin",
    "mixed": "vectors of several origins, which share neither neighbours nor a direction",
    "cannot tell": "cannot tell: the vectors share no direction; embed some items again (--encoder, --items)",
}
_MIXED = "embed the rows of the smaller origin again with the gallery's model (--out lists them)"
_CLEAN = "nothing to repair was found"


def _share(share: Estimate) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
