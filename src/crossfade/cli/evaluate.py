"""``crossfade evaluate``: the whole query/gallery matrix on one's own data, with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import HeldOutNew, HeldOutOld, Json, Out, Seed, SideVectors, reads_vectors
from crossfade.cli.reading import Reading
from crossfade.spaces import Metric

if TYPE_CHECKING:
    from crossfade.cli.reading import Sides
    from crossfade.evaluation import Evaluation, RetrievalTask
    from crossfade.vectors import Pairs


def register(app: typer.Typer) -> None:
    app.command()(reads_vectors(evaluate))


def evaluate(
    reading: Reading,
    old: Annotated[str, typer.Option(help="Gallery under the old model; may hold more items than --new.")],
    new: Annotated[str, typer.Option(help="The same items, or a sample of them, under the new model.")],
    out: Out,
    old_queries: Annotated[str | None, typer.Option(help="Queries under the old model.")] = None,
    new_queries: Annotated[str | None, typer.Option(help="The same queries under the new model.")] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Class labels, a column of the new files.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgements: a TSV file, or a folder in the BEIR layout.")
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE,CAPTION", help="Queries are captions: columns of the image id and the text."
        ),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Items to fit on (default: all that are no queries).")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method; may be repeated (default: all).")
    ] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="Folder of a saved adapter to measure as well; may be repeated.")
    ] = None,
    compatible: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE[,FILE]",
            help="A model that claims to search the old gallery directly (BCT, XBT): its vectors of the "
            "queries, and of the gallery; may be repeated.",
        ),
    ] = None,
    side: SideVectors = None,
    backfill_curve: Annotated[
        bool,
        typer.Option("--backfill-curve", help="Also: quality against the share of items embedded again."),
    ] = False,
    held_out_old: HeldOutOld = None,
    held_out_new: HeldOutNew = None,
    raw_items: Annotated[bool, typer.Option(help="Items can still be embedded (cascade, backfill).")] = True,
    old_encoder: Annotated[bool, typer.Option(help="The old model can still embed queries.")] = True,
    metric: Annotated[Metric | None, typer.Option(help="Compare vectors in this way.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure every way out on your own data: old/old, naive, every map, interpolation, cascades, new/new."""
    from crossfade.adapters import load_adapter
    from crossfade.cli.console import emit_json, stage_progress
    from crossfade.evaluation import OLD_ENCODER, RAW_ITEMS
    from crossfade.evaluation import evaluate as measure

    columns = tuple((captions or "").split(",")) if captions else ((label,) if label else ())
    queries = reading.queries(old_queries, new_queries, columns)
    gallery = reading.sides(old, new, (label,) if label else (), side)
    tasks, fit_on = _tasks(queries, gallery, label, qrels, captions, pairs, seed)
    if compatible:
        tasks = _with_compatible(tasks, compatible, reading, own=queries is None, captions=captions)
    if metric:
        tasks, fit_on = _compared_by(tasks, fit_on, metric)
    held_out = _held_out(reading, held_out_old, held_out_new, curves=backfill_curve, metric=metric)
    have = (RAW_ITEMS,) * raw_items + (OLD_ENCODER,) * old_encoder
    with stage_progress() as progress:
        evaluation = measure(
            tasks,
            fit_on,
            methods=method or None,
            adapters=[load_adapter(one) for one in adapter or ()],
            seed=seed,
            have=have,
            curves=backfill_curve,
            held_out=held_out,
            progress=progress,
        )
    written = _write(evaluation, out)
    if json:
        emit_json({**evaluation.to_dict(), "written": written})
    else:
        _show(evaluation, written)


def _tasks(
    queries: Sides | None,
    gallery: Sides,
    label: str | None,
    qrels: Path | None,
    captions: str | None,
    pairs: int | None,
    seed: int,
) -> tuple[list[RetrievalTask], Pairs]:
    from crossfade.cli import tasks
    from crossfade.errors import UsageError

    given = [
        f"--{name}" for name, value in (("label", label), ("qrels", qrels), ("captions", captions)) if value
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are two ground truths; evaluate them one at a time")
    if (qrels or captions) and queries is None:
        raise UsageError(f"{given[0]} needs --old-queries and --new-queries, the queries that were judged")
    if label and queries is None:
        return tasks.from_labels(gallery, label, pairs, seed)
    if label and queries is not None:
        return tasks.from_labelled_queries(queries, gallery, label, pairs, seed)
    if qrels and queries is not None:
        return tasks.from_judgements(queries, gallery, qrels, pairs, seed)
    if captions and queries is not None:
        image, _, caption = captions.partition(",")
        return tasks.from_captions(queries, gallery, image, caption, pairs, seed)
    return tasks.without_ground_truth(queries, gallery, pairs, seed)


def _held_out(
    reading: Reading, old: str | None, new: str | None, *, curves: bool, metric: str | None
) -> Pairs | None:
    """Pairs that no map was fitted on, for the backfill curve."""
    from crossfade.errors import UsageError
    from crossfade.evaluation import pairs_of

    sides = reading.held_out(old, new)
    if sides is None:
        return None
    if not curves:
        raise UsageError("--held-out-old is for the backfill curve; ask for it, too (--backfill-curve)")
    pairs = pairs_of(sides.old, sides.new)
    return _pairs_by(pairs, metric) if metric else pairs


def _with_compatible(
    tasks: list[RetrievalTask], given: list[str], reading: Reading, *, own: bool, captions: str | None
) -> list[RetrievalTask]:
    from crossfade.cli.tasks import Claimed, with_compatible

    claimed = [Claimed.read(one, reading, tasks[0].gallery_old.space) for one in given]
    return with_compatible(tasks, claimed, own=own, captions=captions is not None)


def _compared_by(tasks: list[RetrievalTask], pairs: Pairs, metric: str) -> tuple[list[RetrievalTask], Pairs]:
    return [task.with_metric(metric) for task in tasks], _pairs_by(pairs, metric)


def _pairs_by(pairs: Pairs, metric: str) -> Pairs:
    compared = pairs.read()
    compared.source = compared.source.with_metric(metric) if compared.source else None
    compared.target = compared.target.with_metric(metric) if compared.target else None
    return compared


def _write(evaluation: Evaluation, out: Path) -> dict[str, str]:
    from crossfade.report import write_report
    from crossfade.report.read import adapter_folder

    paths = write_report(evaluation, out)
    for key, adapter in evaluation.adapters.items():
        adapter.save_pretrained(adapter_folder(out, key), evaluation=evaluation.to_dict())
    return {
        "html": str(paths.html),
        "markdown": str(paths.markdown),
        "json": str(paths.json),
        "adapters": str(out / "adapters"),
    }


def _show(evaluation: Evaluation, written: dict[str, str]) -> None:
    from crossfade.cli.console import stdout
    from crossfade.report.terminal import curve_table, matrix_table, verdict_panel

    console = stdout()
    for task in evaluation.tasks:
        console.print(matrix_table(task, evaluation.verdict.row))
    for curve in evaluation.curves:
        console.print(curve_table(curve))
    console.print(verdict_panel(evaluation))
    console.print(f"report {written['html']}", markup=False)
    console.print(f"next   crossfade plan URI --evaluation {Path(written['html']).parent}", markup=False)
