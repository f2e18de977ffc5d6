"""``apply``, ``status``, ``verify``, ``cutover``, ``rollback``, ``retire``: carry a plan out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import Json

if TYPE_CHECKING:
    from crossfade.encoders.base import Encoder as EncoderOfItems
    from crossfade.upgrade import Upgrade

Which = Annotated[str, typer.Argument(metavar="PLAN|STORE", help="The plan's file, or the store's address.")]
Encoder = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Model that embeds raw items (default: the plan's)."),
]


def register(app: typer.Typer) -> None:
    for command in (apply, status, verify, cutover, rollback, retire):
        app.command()(command)


def apply(
    plan: Annotated[Path, typer.Argument(help="File that crossfade plan wrote.")],
    encoder: Encoder = None,
    json: Json = False,
) -> None:
    """Write the new vectors beside the old ones; resumable, nothing that readers see changes."""
    from crossfade.cli.console import progress_bar

    upgrade = _open(str(plan))
    with progress_bar("write vectors") as advance:
        upgrade.apply(progress=advance, encoder=_encoder(encoder))
    _show(upgrade, json)


def status(which: Which, json: Json = False) -> None:
    """Where the upgrade stands; readable at any time, blocks nobody."""
    _show(_open(which), json)


def verify(
    which: Which,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Rows to compute again (default: enough to rule out 0.1 % wrong ones)."),
    ] = None,
    encoder: Encoder = None,
    json: Json = False,
) -> None:
    """Check what was written: counts, ids, checksums, recomputed samples, spot searches."""
    from crossfade.cli.console import emit_json, stdout
    from crossfade.report.terminal import facts_panel

    found = _open(which).verify(samples, encoder=_encoder(encoder))
    if json:
        emit_json(found.to_dict())
    else:
        stdout().print(facts_panel("verified", found.summary()))


def cutover(which: Which, encoder: Encoder = None, json: Json = False) -> None:
    """Catch up with rows written meanwhile, then switch readers to the new vectors, all at once."""
    from crossfade.cli.console import progress_bar, remark

    upgrade = _open(which)
    if pause := upgrade.pause():
        remark(f"pause {pause}")
    with progress_bar("catch up") as advance:
        upgrade.cutover(progress=advance, encoder=_encoder(encoder))
    _show(upgrade, json)


def rollback(which: Which, json: Json = False) -> None:
    """Switch back to the old vectors; possible at any point before retire."""
    upgrade = _open(which)
    upgrade.rollback()
    _show(upgrade, json)


def retire(
    which: Which,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Yes: delete what is not in use, for good.")
    ] = False,
    json: Json = False,
) -> None:
    """Delete the vectors that are not in use any more. There is no way back."""
    upgrade = _open(which)
    upgrade.retire(confirm=confirm)
    _show(upgrade, json)


def _open(which: str) -> Upgrade:
    """The upgrade of a plan's file or of a store's address."""
    from crossfade.upgrade import Plan, Upgrade

    return Upgrade.open(which) if "://" in which else Upgrade.create(Plan.load(which))


def _encoder(spec: str | None) -> EncoderOfItems | None:
    """The encoder that was named; without one, the plan's own is used where one is needed."""
    from crossfade.encoders.open import open_encoder

    return open_encoder(spec) if spec else None


def _show(upgrade: Upgrade, json: bool) -> None:
    from crossfade.cli.console import emit_json, stdout
    from crossfade.report.terminal import facts_panel

    found = upgrade.status()
    if json:
        emit_json(found.to_dict())
    else:
        stdout().print(facts_panel(f"upgrade {found.id}", found.summary()))
