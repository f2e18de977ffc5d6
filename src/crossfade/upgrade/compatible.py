"""Plans without an adapter: a model whose queries search the old gallery as they are (BCT, XBT)."""

from __future__ import annotations

from dataclasses import replace

from crossfade.encoders.base import Encoder
from crossfade.errors import UsageError
from crossfade.evaluation.result import NATIVE, Evaluation, RowResult
from crossfade.spaces import Space
from crossfade.upgrade.quality import Choice

QUERY, INTERPOLATE = "query", "interpolate"


def planned_as(strategy: str, wanted: str = "") -> str:
    """The strategy that carries out rows of this one; `query` does what `native` does if that is wanted."""
    return QUERY if strategy == NATIVE and wanted == QUERY else strategy


def require_searching(row: RowResult) -> None:
    """Refuse a compatible model's row that embeds the gallery again: a backfill is the way to that."""
    if row.strategy == NATIVE and not row.candidate:
        raise UsageError(
            f"row {row.key!r} shows a gallery that {row.method} embeds again; "
            "plan --strategy backfill with its encoder"
        )


def compatible_space(
    choice: Choice,
    evaluation: Evaluation | None,
    encoder: Encoder | None,
    old: Space,
    new: Space | None = None,
) -> Space | None:
    """Space of the model whose queries need no map; None if one is needed.

    Either the row to carry out measured such a model, or no row is carried out and the encoder says that
    its vectors are in the old space; for strategy `native` the caller's word is enough.
    """
    if choice.strategy not in (NATIVE, QUERY, INTERPOLATE):
        return None
    if evaluation is not None and choice.row:
        measured = choice.row in (f"{NATIVE}:{choice.method}", f"{INTERPOLATE}:{choice.method}")
        return evaluation.compatible.get(choice.method) if measured else None
    if choice.strategy == NATIVE:
        return new or (encoder.space if encoder else None)
    if encoder is None or replace(encoder.space, prompt="") != replace(old, prompt=""):
        return None
    return encoder.space
