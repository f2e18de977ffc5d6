"""Crossfade: upgrade the embedding model of a live retrieval system without re-embedding its gallery."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.adapters import Adapter, fit, load_adapter
    from crossfade.errors import CrossfadeError
    from crossfade.evaluation import Evaluation, evaluate
    from crossfade.spaces import Space
    from crossfade.upgrade import Plan, Searcher, Upgrade, apply, plan
    from crossfade.vectors import Vectors, open_vectors

__version__ = "0.1.0"

# Resolved on first use (PEP 562), so that importing the package loads none of the layers.
_HOME = {
    "Adapter": "adapters",
    "CrossfadeError": "errors",
    "Evaluation": "evaluation",
    "Plan": "upgrade",
    "Searcher": "upgrade",
    "Space": "spaces",
    "Upgrade": "upgrade",
    "Vectors": "vectors",
    "apply": "upgrade",
    "evaluate": "evaluation",
    "fit": "adapters",
    "load_adapter": "adapters",
    "open_vectors": "vectors",
    "plan": "upgrade",
}

__all__ = [
    "Adapter",
    "CrossfadeError",
    "Evaluation",
    "Plan",
    "Searcher",
    "Space",
    "Upgrade",
    "Vectors",
    "apply",
    "evaluate",
    "fit",
    "load_adapter",
    "open_vectors",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'crossfade' has no attribute {name!r}")
    return getattr(import_module(f"crossfade.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
