"""Learning compatibility while a model is trained: BCT, FCT, side-information.

Everything here needs the extra ``train``; names are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.training.embed import Embedded, embed_images
    from crossfade.training.recipe import Recipe
    from crossfade.training.run import Trained, train_model

_HOME = {
    "Embedded": "embed",
    "Recipe": "recipe",
    "Trained": "run",
    "embed_images": "embed",
    "train_model": "run",
}

__all__ = ["Embedded", "Recipe", "Trained", "embed_images", "train_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'crossfade.training' has no attribute {name!r}")
    from crossfade.extras import load

    load("torch", "train")
    return getattr(import_module(f"crossfade.training.{_HOME[name]}"), name)
