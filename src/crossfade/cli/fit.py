"""``crossfade fit``: learn a map between two spaces from pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crossfade.cli.options import IdColumn, Json, NewSpace, OldSpace, Out, Seed, VectorColumn

if TYPE_CHECKING:
    from crossfade.adapters import Adapter
    from crossfade.adapters.auto import AutoFit


def register(app: typer.Typer) -> None:
    app.command()(fit)


def fit(
    old: Annotated[
        str,
        typer.Option(help="Vectors of the old model: .parquet, .npy, .npz or lancedb://DIR#table.column."),
    ],
    new: Annotated[
        str, typer.Option(help="Vectors of the new model for the same items, or for a sample of them.")
    ],
    out: Out,
    direction: Annotated[
        Literal["forward", "backward"],
        typer.Option(help="forward lifts the gallery, backward maps queries back."),
    ] = "forward",
    method: Annotated[
        str, typer.Option(help="auto, procrustes, ridge, low-rank, local-experts or residual-mlp.")
    ] = "auto",
    old_space: OldSpace = None,
    new_space: NewSpace = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fit an adapter on items embedded by both models, and save it with its spaces."""
    from crossfade.cli.console import emit_json, stdout
    from crossfade.cli.reading import Reading

    pairs = Reading(old_space, new_space, id_column, vector_column).pairs(old, new)
    adapter, auto = _fit(pairs if direction == "forward" else pairs.reversed(), method, direction, seed)
    adapter.save_pretrained(out)
    if json:
        emit_json(_summary(adapter, auto, out))
    else:
        console = stdout()
        console.print(f"[bold]{adapter.name}[/] fitted on {adapter.n_pairs:,} pairs")
        console.print(f"  from {adapter.source}\n  to   {adapter.target}\n  in   {out}", markup=False)
        for line in _tried(auto):
            console.print(line, markup=False)


def _fit(pairs: Any, method: str, direction: str, seed: int) -> tuple[Adapter, AutoFit | None]:
    from crossfade.adapters.auto import fit_auto
    from crossfade.adapters.registry import make_adapter

    if method == "auto":
        auto = fit_auto(pairs, direction=direction, seed=seed)
        return auto.adapter, auto
    return make_adapter(method, seed=seed, direction=direction).fit_pairs(pairs), None


def _tried(auto: AutoFit | None) -> list[str]:
    if auto is None:
        return []
    judged = [
        f"  {score.method:<14} new model's neighbours found, held out: {score.retrieval.value:.3f} "
        f"[{score.retrieval.low:.3f}, {score.retrieval.high:.3f}]"
        for score in auto.scores
    ]
    return judged + [f"  {method:<14} skipped: {reason}" for method, reason in auto.skipped]


def _summary(adapter: Adapter, auto: AutoFit | None, out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "adapter": str(out),
        "method": adapter.name,
        "pairs": adapter.n_pairs,
        "source": adapter.source.to_dict() if adapter.source else None,
        "target": adapter.target.to_dict() if adapter.target else None,
    }
    if auto is not None:
        summary["tried"] = [score.to_dict() for score in auto.scores]
        summary["skipped"] = [{"method": method, "reason": reason} for method, reason in auto.skipped]
    return summary
