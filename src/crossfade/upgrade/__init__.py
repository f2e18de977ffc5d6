"""Plan an upgrade, carry it out safely, and answer queries while it goes on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.upgrade.inspection import Inspection, Problem, inspect_store
    from crossfade.upgrade.planning import plan
    from crossfade.upgrade.plans import Plan
    from crossfade.upgrade.searcher import Searcher
    from crossfade.upgrade.states import State
    from crossfade.upgrade.status import Status
    from crossfade.upgrade.upgrade import Upgrade, apply
    from crossfade.upgrade.verifying import Verification

_HOME = {
    "Inspection": "inspection",
    "Plan": "plans",
    "Problem": "inspection",
    "Searcher": "searcher",
    "State": "states",
    "Status": "status",
    "Upgrade": "upgrade",
    "Verification": "verifying",
    "apply": "upgrade",
    "inspect_store": "inspection",
    "plan": "planning",
}

__all__ = [
    "Inspection",
    "Plan",
    "Problem",
    "Searcher",
    "State",
    "Status",
    "Upgrade",
    "Verification",
    "apply",
    "inspect_store",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'crossfade.upgrade' has no attribute {name!r}")
    return getattr(import_module(f"crossfade.upgrade.{_HOME[name]}"), name)
