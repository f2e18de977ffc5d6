"""Make a plan: check everything that can be checked before anything is written."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from crossfade.adapters import Adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import (
    DataError,
    DuplicateIds,
    InvalidVectors,
    StoreError,
    UsageError,
)
from crossfade.evaluation.bridge import Sample
from crossfade.evaluation.result import Evaluation
from crossfade.spaces import Space
from crossfade.stores import Store, open_store
from crossfade.upgrade import choosing, probing, quality
from crossfade.upgrade.compatible import planned_as, require_searching
from crossfade.upgrade.inspection import Scan, scan_problems, scan_store
from crossfade.upgrade.mixing import brings_together, choose_mix, embedded_sample
from crossfade.upgrade.plans import Estimates, Mix, OnInvalid, Plan, require_choice
from crossfade.upgrade.producing import Producer
from crossfade.upgrade.quality import Choice
from crossfade.upgrade.settling import (
    Request,
    adapter_file,
    compatible_model,
    find_adapter,
    settle_spaces,
)
from crossfade.upgrade.strategies import NAMES, Strategy
from crossfade.upgrade.strategies import strategy as find_strategy

PARTIAL = "partial"
ONLY_WRITERS = ("name", "index")
"""Kinds of obstacles that matter only where a column is written."""


def plan(
    store: str | Store,
    *,
    strategy: str | None = None,
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    row: str = "",
    adapter: Adapter | str | Path | None = None,
    encoder: Encoder | None = None,
    old: Space | str | None = None,
    new: Space | None = None,
    weight: float | None = None,
    depth: int | None = None,
    first_stage: str = "",
    items: str = "",
    side: str = "",
    budget: float | None = None,
    target_quality: float | None = None,
    held_out: Sample | None = None,
    encoders: Mapping[str, str] | None = None,
    on_invalid: OnInvalid = "refuse",
    changed_rows: float = 0.0,
    force: str = "",
) -> Plan:
    """Plan an upgrade. Reads the whole gallery once and measures the speed; writes nothing that readers see.

    Args:
        store: address of the column of vectors, or an open store.
        strategy: keep, native, query, interpolate, cascade, gallery, lifted-cascade, partial or backfill;
            what the evaluation recommends unless given.
        evaluation: an `Evaluation`, or what its `to_dict` wrote.
        row: key of the evaluation's row to carry out, instead of a strategy.
        adapter: the map, saved in a directory or in memory (then it is saved beside the table);
            taken from the evaluation's row if that holds it.
        encoder: embeds raw items into the new space, to measure a backfill's speed; not kept.
        old: space of the store's vectors, where none is recorded.
        new: space of the new model; known from the adapter, the evaluation or the encoder.
        weight: share of the new query, for interpolation.
        depth, first_stage: candidates of a cascade, and what fetches them: query or interpolate.
        items: column that holds the raw items.
        side: column that holds the side-information, for an adapter that takes it.
        budget: share of the rows to embed again, for a partial backfill.
        target_quality: share of the full backfill's quality to reach, in place of a budget; read off the
            evaluation's backfill curve.
        held_out: items under both models that the adapter was not fitted on: for a partial backfill, chooses
            how the scores of lifted and re-embedded rows come into one ranking. Without them and with an
            encoder, 1,000 rows of the store are embedded for that.
        encoders: what makes vectors, in words, by role: old, new, items.
        on_invalid: NaN, infinite, zero or null vectors: refuse, or skip (listed, left null).
        changed_rows: share of rows that may be added or removed until the plan is applied.
        force: why a plan that makes search worse is to be carried out all the same.

    Raises:
        PlanRefused: the evaluation shows that search gets significantly worse.
        UnknownSpace, SpaceError, UsageError: something is missing or does not fit.
        InvalidVectors, DuplicateIds, StoreError: the store is not fit for an upgrade.
    """
    opened = open_store(store) if isinstance(store, str) else store
    require_choice(on_invalid, ("refuse", "skip"), "on_invalid")
    if not 0 <= changed_rows <= 1:
        raise UsageError(f"changed_rows is a share of rows, from 0 to 1, got {changed_rows}")
    measured = quality.as_evaluation(evaluation)
    wanted = Choice(strategy or "", "", weight, depth, first_stage, row)
    choice = _choose(wanted, measured, mapped=adapter is not None)
    request = Request(opened, choice, measured, adapter, encoder, held_out)
    own = None if adapter is not None else compatible_model(request, old, new)
    map_, location = (None, "") if own else find_adapter(request)
    spaces = settle_spaces(request, map_, old, own or new)
    draft = _draft(request, spaces, map_, on_invalid, changed_rows)
    draft = replace(draft, compatible=own is not None)
    draft = replace(draft, items=items, side=side, encoders=dict(encoders or {}), forced=force)
    draft = replace(draft, budget=_budget(request, map_, budget, target_quality))
    made = _checked(request, draft, map_, location)
    if target_quality is not None:
        _require_merged(request, map_, made)
    return made


def _choose(wanted: Choice, evaluation: Evaluation | None, *, mapped: bool) -> Choice:
    if evaluation is None:
        if wanted.row or not wanted.strategy:
            raise UsageError(
                "a plan needs a strategy, or an evaluation that recommends one; "
                f"give --strategy {'|'.join(NAMES)} or --evaluation FILE"
            )
        find_strategy(wanted.strategy)
        return wanted
    if wanted.strategy == PARTIAL and not wanted.row:
        return replace(wanted, method=evaluation.curves[0].method if evaluation.curves else "")
    if not wanted.strategy and not wanted.row:
        advised = quality.recommended(evaluation)
        advised = replace(advised, strategy=planned_as(advised.strategy))
        wanted = replace(advised, weight=wanted.weight if wanted.weight is not None else advised.weight)
    if wanted.row:
        row = evaluation.tasks[0].row(wanted.row)
        planned = planned_as(row.strategy, wanted.strategy)
        require_searching(row)
        if wanted.strategy and wanted.strategy != planned:
            raise UsageError(
                f"row {row.key!r} is strategy {row.strategy}, not {wanted.strategy}; give one of them"
            )
        wanted = replace(wanted, strategy="keep" if row.strategy == "naive" else planned)
        if row.strategy == "naive":
            raise UsageError(f"row {row.key!r} only shows what a naive swap does; it cannot be planned")
        return quality.completed(wanted, row)
    find_strategy(wanted.strategy)
    key = quality.find_row(evaluation, wanted, mapped=mapped)
    return quality.completed(wanted, evaluation.tasks[0].row(key)) if key else wanted


def _budget(
    request: Request, adapter: Adapter | None, budget: float | None, target: float | None
) -> float | None:
    if request.choice.strategy != PARTIAL:
        if request.held_out is not None:
            raise UsageError(
                f"held-out items are for a partial backfill, not for {request.choice.strategy}; "
                "leave them out"
            )
        if budget is not None or target is not None:
            raise UsageError(
                f"a budget or a target quality is for a partial backfill, not for {request.choice.strategy}; "
                "give --strategy partial"
            )
        return None
    if budget is not None and target is not None:
        raise UsageError(
            f"a partial backfill has a budget ({budget}) or a target quality ({target}); give one of them"
        )
    if target is None:
        return budget
    assert adapter is not None
    merged = _will_merge(request, adapter)
    found = choosing.budget_for(target, request.evaluation, adapter.name, merged=merged)
    if not found:
        raise UsageError(
            f"by the measured curve the lifted gallery alone keeps {target:.1%} of the full backfill's "
            "quality; nothing need be embedded again: use strategy gallery"
        )
    return found


def _draft(
    request: Request,
    spaces: tuple[Space, Space],
    adapter: Adapter | None,
    on_invalid: OnInvalid,
    changed: float,
) -> Plan:
    choice, found = request.choice, request.store.describe()
    chosen = find_strategy(choice.strategy)
    interpolates = choice.strategy == "interpolate" or choice.first_stage == "interpolate"
    cascades = choice.strategy == "cascade"
    return Plan(
        id=secrets.token_hex(4),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        strategy=choice.strategy,
        store=request.store.uri,
        found=found,
        old=spaces[0],
        new=spaces[1],
        weight=choice.weight if interpolates else None,
        depth=choice.depth if cascades or choice.strategy == "lifted-cascade" else None,
        first_stage=(choice.first_stage or "query") if cascades else "",
        staged=f"{found.column}__next" if chosen.writes == "column" else "",
        previous=f"{found.column}__previous" if chosen.writes == "column" else "",
        on_invalid=on_invalid,
        changed_rows=changed,
        batch_rows=chosen.batch_rows,
    )


def _checked(request: Request, draft: Plan, adapter: Adapter | None, location: str) -> Plan:
    chosen = find_strategy(draft.strategy)
    chosen.check(draft, adapter)
    _require_clear(request.store, draft, chosen)
    _require_usable(draft)
    _require_change(draft)
    draft = _with_quality(request, draft, merged=_will_merge(request, adapter))
    _check_names(draft, chosen)
    scan = _scan(request.store, draft, chosen)
    draft = replace(draft, invalid=dict(scan.faults))
    if draft.budget is not None and adapter is not None:
        chosen_items = choosing.choose_items(request.store, draft, adapter, draft.budget)
        draft = replace(draft, chosen=chosen_items)
    if draft.strategy == PARTIAL and adapter is not None:
        draft = replace(draft, mix=_mix(request, draft, adapter))
        draft = _with_quality(request, draft, merged=brings_together(draft.mix))
    draft = replace(draft, estimates=_estimate(request, draft, chosen, adapter))
    said = (*chosen.steps(draft), chosen.way_back(draft))
    if chosen.writes == "column":
        said = tuple(request.store.in_words(one, draft.staging) for one in said)
    draft = replace(draft, steps=said[:-1], way_back=said[-1])
    return replace(draft, adapter=adapter_file(request.store, draft, adapter, location)) if adapter else draft


def _will_merge(request: Request, adapter: Adapter | None) -> bool:
    """Whether there is something to choose a merge on, as far as can be said before the gallery is read."""
    embeds = request.encoder is not None and adapter is not None and not adapter.side_dimension
    return request.held_out is not None or embeds


def _require_merged(request: Request, adapter: Adapter | None, made: Plan) -> None:
    """Refuse a budget that was read off a curve of merged scores where scores are compared as they are.

    Raises:
        UsageError: that is so.
    """
    curves = request.evaluation.curves if request.evaluation else ()
    if _will_merge(request, adapter) and not brings_together(made.mix) and any(one.raw for one in curves):
        raise UsageError(
            "the target quality was read off a curve with scores brought together, but "
            + (
                f"on these {made.mix.items:,} held-out items nothing is better than scores as they are"
                if made.mix
                else "the store has too few items to choose a merge on (--held-out-old, --held-out-new)"
            )
            + "; give --budget"
        )


def _mix(request: Request, draft: Plan, adapter: Adapter) -> Mix | None:
    """How the rows of both origins come into one ranking; None where nothing can be measured."""
    held_out = request.held_out
    if held_out is None and request.encoder is not None and not adapter.side_dimension:
        held_out = embedded_sample(request.store, draft, request.encoder)
    return None if held_out is None else choose_mix(request.store, draft, adapter, held_out)


def _with_quality(request: Request, draft: Plan, *, merged: bool) -> Plan:
    if request.evaluation is None:
        return draft
    quality.require_spaces(request.evaluation, draft.old, None if draft.compatible else draft.new)
    if draft.budget is not None:
        found = quality.on_curve(request.evaluation, request.choice.method, draft.budget, merged=merged)
    else:
        found = quality.measured(request.evaluation, request.choice.row) if request.choice.row else ()
    quality.refuse_worse(found, draft.strategy, draft.forced)
    return replace(draft, quality=found, verdict=request.evaluation.verdict.sentence)


def _check_names(draft: Plan, chosen: Strategy) -> None:
    taken = [name for name in (draft.staged, draft.previous) if name in draft.found.payload]
    if chosen.writes == "column" and taken:
        raise UsageError(
            f"{draft.store}: column {taken[0]!r} exists already, probably of an upgrade before; "
            "finish that one first: crossfade retire --confirm"
        )


def _scan(store: Store, draft: Plan, chosen: Strategy) -> Scan:
    """Pass over the gallery once, and refuse what no upgrade should start on."""
    scan = scan_store(store)
    for problem in scan_problems(scan):
        if problem.kind == "duplicates":
            raise DuplicateIds(f"{store.uri}: {problem}")
        if problem.kind == "ids":
            raise DataError(f"{store.uri}: {problem}")
        if problem.kind == "invalid" and chosen.lifts and draft.on_invalid == "refuse":
            raise InvalidVectors(f"{store.uri}: {problem}")
    return scan


def _require_clear(store: Store, draft: Plan, chosen: Strategy) -> None:
    """Refuse what the store itself finds in the way."""
    if draft.strategy == "keep":
        return
    for one in store.obstacles(draft.new if chosen.writes == "column" else None):
        if one.blocks and (chosen.writes == "column" or one.kind not in ONLY_WRITERS):
            raise StoreError(f"{store.uri}: {one.message}; {one.remedy}")


def _require_usable(draft: Plan) -> None:
    found = draft.found
    if not found.rows:
        raise StoreError(f"{draft.store}: the table has no rows; write some first")
    if not found.id_column:
        raise UsageError(
            f"{draft.store}: no column 'id'; name the one that identifies rows: {draft.store}?id=NAME"
        )
    if not found.writable and draft.strategy != "keep":
        raise StoreError(f"{draft.store}: this account may not write there; run as one that may")


def _require_change(draft: Plan) -> None:
    if draft.old == draft.new and draft.strategy != "keep" and not draft.compatible:
        raise UsageError(
            f"{draft.store}: the old and the new space are the same, {draft.old}; nothing is to be upgraded: "
            "give the new model's space with its revision if it has the same name"
        )


def _estimate(request: Request, draft: Plan, chosen: Strategy, adapter: Adapter | None) -> Estimates:
    if chosen.writes != "column" or (chosen.embeds and request.encoder is None):
        return probing.estimate(request.store, draft, chosen, None)
    made = chosen.producer(draft, adapter, request.encoder)
    produce = Producer(made, "skip", chosen.lifts, draft.new.dimension, draft.store)
    return probing.estimate(request.store, draft, chosen, produce)
