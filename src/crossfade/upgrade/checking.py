"""What `apply` checks before it writes: the store, the adapter and the disk are those of the plan."""

from __future__ import annotations

from pathlib import Path

from crossfade.adapters import Adapter, load_adapter
from crossfade.errors import OutOfSpace, StoreChanged
from crossfade.stores import Description, Store
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.settling import adapter_checksum
from crossfade.upgrade.strategies import strategy
from crossfade.upgrade.wording import size


def open_adapter(plan: Plan) -> Adapter | None:
    """The plan's adapter, if it has one.

    Raises:
        StoreChanged: its files are not those that the plan was made with.
        UnreadableFile: they are gone.
        UsageError, SpaceError: it is missing or maps the wrong way.
    """
    chosen, adapter = strategy(plan.strategy), None
    if plan.adapter is not None and chosen.direction is not None:
        found = adapter_checksum(Path(plan.adapter.path))
        if found != plan.adapter.sha256:
            raise StoreChanged(
                f"adapter {plan.adapter.path}: the plan was made with SHA-256 {plan.adapter.sha256[:12]}…, "
                f"now it is {found[:12]}…; run crossfade plan again"
            )
        adapter = load_adapter(plan.adapter.path)
    chosen.check(plan, adapter)
    return adapter


def require_unchanged(plan: Plan, found: Description, *, begun: bool) -> None:
    """Refuse a plan whose store has changed in a way that matters.

    Once an upgrade has begun, rows may come and go: they are caught up with.

    Raises:
        StoreChanged: what, both values, and what to do.
    """
    before = plan.found
    changes = [
        _change("type of the vectors", before.column_type, found.column_type),
        _change("id column", before.id_column, found.id_column),
        _change("metric of the index", _metric(before), _metric(found)),
        _change("recorded space", str(before.space or plan.old), str(found.space or plan.old)),
    ]
    if not begun:
        changes += [_rows(plan, found)]
    differing = [change for change in changes if change]
    if differing:
        raise StoreChanged(
            f"{plan.store} has changed since the plan: {'; '.join(differing)}; run crossfade plan again"
        )


def _change(what: str, before: str, now: str) -> str:
    return "" if before == now else f"{what} was {before}, now it is {now}"


def _metric(found: Description) -> str:
    return found.index.metric if found.index else "none"


def _rows(plan: Plan, found: Description) -> str:
    before = plan.found
    allowed = plan.changed_rows * before.rows
    if abs(found.rows - before.rows) > allowed:
        return f"rows were {before.rows}, now there are {found.rows}"
    if found.content != before.content and not allowed:
        return (
            f"rows were rewritten: {before.rows} rows of version {before.version}, "
            f"now {found.rows} of version {found.version}"
        )
    return ""


def require_space(plan: Plan, store: Store, rows: int) -> None:
    """Refuse to begin where the disk cannot hold what is still to be written.

    Raises:
        OutOfSpace: both numbers.
    """
    cost = plan.estimates
    if not cost.bytes_needed or not cost.rows:
        return
    needed = int(cost.bytes_needed * min(1.0, rows / cost.rows))
    free = store.free_bytes()
    if free is not None and needed > free:
        raise OutOfSpace(
            f"{plan.store}: {size(needed)} are needed for {rows:,} rows, {size(free)} are free; "
            "nothing was written: free some space and run crossfade apply again"
        )
