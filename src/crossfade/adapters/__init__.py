"""Maps between two embedding spaces, fitted on pairs: the same items embedded by both models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.adapters.auto import AutoFit, MethodScore, fit_auto
    from crossfade.adapters.base import Adapter
    from crossfade.adapters.composition import Chain, chain
    from crossfade.adapters.fitting import fit
    from crossfade.adapters.registry import METHODS, make_adapter
    from crossfade.adapters.saving import load_adapter

_HOME = {
    "METHODS": "registry",
    "Adapter": "base",
    "AutoFit": "auto",
    "Chain": "composition",
    "MethodScore": "auto",
    "chain": "composition",
    "fit": "fitting",
    "fit_auto": "auto",
    "load_adapter": "saving",
    "make_adapter": "registry",
}

__all__ = [
    "METHODS",
    "Adapter",
    "AutoFit",
    "Chain",
    "MethodScore",
    "chain",
    "fit",
    "fit_auto",
    "load_adapter",
    "make_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'crossfade.adapters' has no attribute {name!r}")
    return getattr(import_module(f"crossfade.adapters.{_HOME[name]}"), name)
