"""Losses and miners of pytorch-metric-learning, by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from crossfade.errors import UsageError
from crossfade.extras import load


def make_metric_loss(name: str, options: Mapping[str, Any], classes: int, dimension: int) -> Any:
    """A loss; a loss with proxies learns its class weights and is told the sizes.

    Raises:
        UsageError: no such loss, or one with other options.
        MissingExtra: pytorch-metric-learning is not installed.
    """
    kind = _find("losses", name)
    sizes = {"num_classes": classes, "embedding_size": dimension}
    needed = {key: value for key, value in sizes.items() if key in _parameters(kind)}
    return _construct(kind, name, {**needed, **options})


def make_miner(name: str, options: Mapping[str, Any]) -> Any:
    """A miner, which chooses the pairs or triplets of a batch that a loss looks at.

    Raises:
        UsageError, MissingExtra: see `make_metric_loss`.
    """
    return _construct(_find("miners", name), name, options)


def _find(module_name: str, name: str) -> Any:
    module = load(f"pytorch_metric_learning.{module_name}", "train")
    known = [one for one in dir(module) if inspect.isclass(getattr(module, one))]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"pytorch-metric-learning has no {name!r} among its {module_name}"
            + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}")
        )
    return getattr(module, name)


def _construct(kind: Any, name: str, options: Mapping[str, Any]) -> Any:
    try:
        return kind(**options)
    except TypeError as error:
        raise UsageError(f"{name} cannot be made with {dict(options)}: {error}") from None


def _parameters(kind: Any) -> set[str]:
    """Names of the constructor's arguments, those of base classes included."""
    own = [vars(one)["__init__"] for one in inspect.getmro(kind)[:-1] if "__init__" in vars(one)]
    return {name for function in own for name in inspect.signature(function).parameters}
