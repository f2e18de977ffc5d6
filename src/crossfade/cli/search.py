"""``crossfade search``: ask the store, the way its upgrade has left it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfade.cli.options import Json

if TYPE_CHECKING:
    from crossfade.stores import Hits

MAX_SHOWN = 60


def register(app: typer.Typer) -> None:
    app.command()(search)


def search(
    store: Annotated[str, typer.Argument(help="lancedb://DIR#table.column")],
    query: Annotated[str | None, typer.Option("--text", help="Text to search for.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to search for.")] = None,
    old: Annotated[str | None, typer.Option(metavar="SPEC", help="Encoder of queries, old model.")] = None,
    new: Annotated[str | None, typer.Option(metavar="SPEC", help="Encoder of queries, new model.")] = None,
    items: Annotated[str | None, typer.Option(metavar="SPEC", help="Encoder of raw items (cascade).")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Further column to show; may be repeated.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="Number of results.")] = 10,
    json: Json = False,
) -> None:
    """Search through whatever is in force: the old model, a mapped query, both, a cascade, or new vectors."""
    from crossfade.cli.console import emit_json, stdout
    from crossfade.encoders.open import open_encoder
    from crossfade.upgrade import Searcher

    old_encoder, new_encoder, item_encoder = (
        open_encoder(spec) if spec else None for spec in (old, new, items)
    )
    searcher = Searcher(store, old=old_encoder, new=new_encoder, items=item_encoder)
    hits = searcher.search([_query(query, image)], k, columns=column or ())[0]
    if json:
        emit_json({"mode": searcher.mode, "results": [dict(row) for row in _rows(hits)]})
        return
    stdout().print(f"answered by: {searcher.mode}", markup=False)
    for place, row in enumerate(_rows(hits), start=1):
        rest = "  ".join(
            f"{name}={str(value)[:MAX_SHOWN]}" for name, value in row.items() if name not in ("id", "score")
        )
        stdout().print(f"{place:>4}  {row['score']:.4f}  {row['id']}  {rest}", markup=False)


def _query(text: str | None, image: Path | None) -> str | bytes:
    from crossfade.errors import UnreadableFile, UsageError

    if (text is None) == (image is None):
        raise UsageError("search for one thing: give --text or --image")
    if image is None:
        assert text is not None
        return text
    try:
        return image.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{image}: cannot be read ({error.strerror}); check the path") from None


def _rows(hits: Hits) -> list[dict[str, Any]]:
    names = list(hits.columns)
    values = zip(
        hits.ids.to_pylist(),
        hits.scores.tolist(),
        *(hits.columns[name].to_pylist() for name in names),
        strict=True,
    )
    return [{"id": row[0], "score": row[1], **dict(zip(names, row[2:], strict=True))} for row in values]
