"""Plans, states and inspections in words, as label and value pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossfade.stores import Description

if TYPE_CHECKING:
    from crossfade.upgrade.inspection import Inspection
    from crossfade.upgrade.plans import Plan
    from crossfade.upgrade.status import Status

Facts = list[tuple[str, str]]
UNFOUND = "no search finds them while the new vectors are in use"


def plan_summary(plan: Plan) -> Facts:
    """A plan for people."""
    facts = [
        ("upgrade", f"{plan.id}, planned {plan.created}"),
        ("strategy", _strategy(plan)),
        ("store", plan.store),
        ("old space", str(plan.old)),
        ("new space", str(plan.new)),
        *_store(plan.found)[1:],
    ]
    if plan.adapter:
        facts.append(("adapter", f"{plan.adapter.method}, {plan.adapter.path}"))
    if plan.side:
        facts.append(("side-information", f"column {plan.side}"))
    if plan.chosen:
        facts.append(("embedded again", f"{plan.chosen.count:,} items, listed in {plan.chosen.path}"))
    if plan.mix:
        facts.append(("mixed scores", str(plan.mix)))
    elif plan.strategy == "partial":
        facts.append(
            (
                "mixed scores",
                "compared as they are, not measured; lifted rows may come first (--held-out-old)",
            )
        )
    facts += [("quality", str(one)) for one in plan.quality] or [
        ("quality", "not measured; run crossfade evaluate")
    ]
    facts += [("verdict", plan.verdict)] * bool(plan.verdict)
    facts += [("forced", plan.forced)] * bool(plan.forced)
    facts += _left_out(plan)
    facts += _costs(plan)
    facts += [("step" if number == 0 else "", step) for number, step in enumerate(plan.steps)]
    return [*facts, ("way back", plan.way_back)]


def _left_out(plan: Plan) -> Facts:
    """Rows that get no new vector, as far as they are known."""
    facts, skips = [], plan.on_invalid == "skip"
    if plan.invalid:
        found = ", ".join(f"{count} {fault}" for fault, count in sorted(plan.invalid.items()))
        facts.append(
            ("unusable vectors", f"{found}; {f'to be skipped: {UNFOUND}' if skips else 'to be refused'}")
        )
    needed = plan.items if plan.strategy == "backfill" else plan.side
    if skips and plan.staged and needed:
        facts.append(
            ("left out", f"rows without a usable value in column {needed}, which apply counts: {UNFOUND}")
        )
    return facts


def _strategy(plan: Plan) -> str:
    details = [
        f"weight {plan.weight:g}" if plan.weight is not None else "",
        f"{plan.depth} candidates" if plan.depth is not None else "",
        f"first stage {plan.first_stage}" if plan.first_stage else "",
        f"{plan.budget:.1%} embedded again" if plan.budget is not None else "",
    ]
    named = ", ".join(filter(None, details))
    return f"{plan.strategy} ({named})" if named else plan.strategy


def _costs(plan: Plan) -> Facts:
    cost = plan.estimates
    if not cost.rows:
        return [("writes", "nothing now")]
    speed = (
        f"{duration(cost.seconds)} at {cost.rows_per_second:,.0f} rows/s" if cost.seconds else "not measured"
    )
    free = "of an unknown amount" if cost.bytes_free is None else f"of {size(cost.bytes_free)}"
    short = cost.bytes_free is not None and cost.bytes_needed >= cost.bytes_free
    return [
        ("writes", f"{cost.rows:,} vectors of {plan.new.dimension} dimensions"),
        ("time", speed),
        (
            "disk",
            f"{size(cost.bytes_needed)} {free} free" + ": NOT ENOUGH, apply will refuse" * short,
        ),
        *[("pause at cutover", cost.pause)] * bool(cost.pause),
    ]


def inspection_summary(inspection: Inspection) -> Facts:
    """An inspection for people."""
    space = str(inspection.space) if inspection.space else "not recorded"
    facts = [*_store(inspection.found), ("space", space)]
    if inspection.upgrade:
        facts.append(("upgrade", f"{inspection.upgrade[0]}, {inspection.upgrade[1]}"))
    facts += [("problem" if one.blocks else "remark", str(one)) for one in inspection.problems]
    return [*facts, ("ready", "yes" if inspection.ready else "no: solve the problems first")]


def status_summary(status: Status) -> Facts:
    """A status for people."""
    facts = [
        ("upgrade", status.id),
        ("store", status.store),
        ("strategy", status.strategy),
        ("state", status.state.value),
    ]
    if status.rows_total:
        share = status.rows_done / status.rows_total
        facts.append(("rows", f"{status.rows_done:,} of {status.rows_total:,} ({share:.0%})"))
    if status.rows_underway:
        speed, left = f"{status.rows_per_second:,.0f} rows/s", duration(status.seconds_left)
        facts.append(
            (
                "under way",
                f"{status.rows_underway:,} rows at {speed}, {left} left; they count when all are there",
            )
        )
    if status.skipped:
        facts.append(("skipped", f"{status.skipped:,} rows without a new vector: {UNFOUND}"))
    if status.holder:
        facts.append(
            (
                "at work",
                f"{status.holder['action']}, process {status.holder['pid']} on {status.holder['host']}",
            )
        )
    facts += [("remark", remark) for remark in status.remarks]
    return [*facts, ("next", status.next)]


def _store(found: Description) -> Facts:
    return [
        ("store", found.uri),
        ("rows", f"{found.rows:,} in {found.parts} parts, version {found.version}"),
        ("vectors", f"{found.column}: {found.column_type}"),
        ("ids", found.id_column or "none"),
        ("other columns", ", ".join(found.payload) or "none"),
        ("index", str(found.index) if found.index else "none"),
    ]


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes in the unit that a person would use."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
