"""What an upgrade can do to a gallery; one file per strategy."""

from __future__ import annotations

from importlib import import_module

from crossfade.errors import UsageError
from crossfade.upgrade.strategies.base import Gallery, Queries, Strategy

NAMES = (
    "keep",
    "query",
    "native",
    "interpolate",
    "cascade",
    "gallery",
    "lifted-cascade",
    "partial",
    "backfill",
)

__all__ = ["NAMES", "Gallery", "Queries", "Strategy", "strategy"]


def strategy(name: str) -> Strategy:
    """The strategy called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in NAMES:
        raise UsageError(f"strategy {name!r} is not one of {', '.join(NAMES)}")
    module = import_module(f"crossfade.upgrade.strategies.{name.replace('-', '_')}")
    made: Strategy = module.STRATEGY
    return made
