"""``crossfade watch``: does the bridge still serve what is asked?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import IdColumn, Json, NewSpace, OldSpace, Seed, VectorColumn

if TYPE_CHECKING:
    from crossfade.cli.reading import Reading
    from crossfade.evaluation.bridge import Sample
    from crossfade.upgrade import Upgrade

DRIFT = 1
"""Exit code where a decay was found."""


def register(app: typer.Typer) -> None:
    app.command()(watch)


def watch(
    which: Annotated[
        str, typer.Argument(metavar="PLAN|STORE", help="The plan's file, or the store's address.")
    ],
    new_queries: Annotated[
        str | None, typer.Option(help="Recent queries, a random sample, under the new model.")
    ] = None,
    old_queries: Annotated[str | None, typer.Option(help="The same queries under the old model.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what later queries are compared with, instead of looking.")
    ] = False,
    old: Annotated[
        str | None, typer.Option(help="With --keep: items under the old model that it was not fitted on.")
    ] = None,
    new: Annotated[str | None, typer.Option(help="With --keep: the same items under the new model.")] = None,
    alpha: Annotated[float, typer.Option(help="False alarm rate of one look.")] = 0.01,
    tolerance: Annotated[float, typer.Option(help="A smaller decay of a mean is never an alarm.")] = 0.0,
    metrics: Annotated[
        Path | None, typer.Option(help="File for Prometheus to write (textfile collector).")
    ] = None,
    old_space: OldSpace = None,
    new_space: NewSpace = None,
    id_column: IdColumn = None,
    vector_column: VectorColumn = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Tell from recent queries whether the bridge's quality decays; exit code 1 if so."""
    from crossfade.cli.console import emit_json, stdout
    from crossfade.cli.reading import Reading
    from crossfade.report.prometheus import watch_metrics, write_metrics
    from crossfade.report.terminal import facts_panel
    from crossfade.upgrade.watching import summary
    from crossfade.upgrade.watching import watch as look

    reading, upgrade = Reading(old_space, new_space, id_column, vector_column), _open(which)
    if keep:
        _keep(upgrade, reading, (old, new), (old_queries, new_queries), seed, json)
        return
    queries = _recent(reading, old_queries, new_queries, (old, new))
    found = look(upgrade.plan, upgrade.store, queries, alpha=alpha, tolerance=tolerance, seed=seed)
    if metrics is not None:
        write_metrics(watch_metrics(found), metrics)
    if json:
        emit_json(found.to_dict())
    else:
        stdout().print(facts_panel("drift" if found.drift else "no drift", summary(found)))
    if found.drift:
        raise typer.Exit(DRIFT)


def _keep(
    upgrade: Upgrade,
    reading: Reading,
    items: tuple[str | None, str | None],
    asked: tuple[str | None, str | None],
    seed: int,
    json: bool,
) -> None:
    from crossfade.cli.console import emit_json, stdout
    from crossfade.errors import UsageError
    from crossfade.evaluation.bridge import Sample
    from crossfade.upgrade.watching import keep_sample

    if items[0] is None or items[1] is None:
        raise UsageError("--keep keeps items under both models; give --old FILE and --new FILE")
    sides, queries = reading.sides(items[0], items[1]), reading.queries(*asked)
    n_items, n_queries = keep_sample(
        upgrade.plan,
        upgrade.store,
        Sample(sides.old, sides.new),
        None if queries is None else Sample(queries.old, queries.new),
        seed=seed,
    )
    if json:
        emit_json({"upgrade": upgrade.plan.id, "items": n_items, "queries": n_queries})
    else:
        text = f"kept {n_items:,} items and {n_queries:,} queries for upgrade {upgrade.plan.id}"
        stdout().print(text, markup=False)


def _recent(
    reading: Reading, old: str | None, new: str | None, items: tuple[str | None, str | None]
) -> Sample:
    from crossfade.errors import UsageError
    from crossfade.evaluation.bridge import Sample

    if new is None:
        raise UsageError("nothing to look at; give recent queries (--new-queries FILE), or --keep a sample")
    if items != (None, None):
        raise UsageError("--old and --new are for --keep; recent queries are --old-queries and --new-queries")
    if old is None:
        return Sample(new=reading.one(new, reading.new_space, "--new-space").read())
    sides = reading.sides(old, new)
    return Sample(sides.old, sides.new)


def _open(which: str) -> Upgrade:
    from crossfade.upgrade import Plan, Upgrade

    return Upgrade.open(which) if "://" in which else Upgrade.create(Plan.load(which))
