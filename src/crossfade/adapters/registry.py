"""The methods by name; a method's file is imported when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from crossfade.adapters.base import Adapter
from crossfade.errors import UsageError

# From simple to complex, as in `Adapter.complexity`.
_CLASSES = {
    "procrustes": "procrustes:Procrustes",
    "low-rank": "low_rank:LowRank",
    "ridge": "ridge:Ridge",
    "local-experts": "local_experts:LocalExperts",
    "residual-mlp": "residual_mlp:ResidualMLP",
}


# Trained with torch for minutes on many pairs: used where they are asked for by name.
_ON_REQUEST = {
    "fct": "forward_transformation:ForwardTransformation",
    "fastfill": "fastfill:FastFill",
    "lambda-orthogonal": "lambda_orthogonal:LambdaOrthogonal",
    "projection": "projection:Projection",
}


class _Methods(Mapping[str, type[Adapter]]):
    def __init__(self, classes: Mapping[str, str]) -> None:
        self._classes = classes

    def __getitem__(self, name: str) -> type[Adapter]:
        module, _, attribute = self._classes[name].partition(":")
        method: type[Adapter] = getattr(import_module(f"crossfade.adapters.{module}"), attribute)
        return method

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)


METHODS: Mapping[str, type[Adapter]] = _Methods(_CLASSES)
"""What an automatic choice and an evaluation try by themselves."""

ON_REQUEST: Mapping[str, type[Adapter]] = _Methods(_ON_REQUEST)
"""What they try where it is named."""


def method_class(name: str) -> type[Adapter]:
    """The class of a method.

    Raises:
        UsageError: no method has this name.
    """
    for methods in (METHODS, ON_REQUEST):
        if name in methods:
            return methods[name]
    raise UsageError(f"no method is called {name!r}; choose one of {', '.join([*METHODS, *ON_REQUEST])}")


def make_adapter(method: str, *, seed: int = 0, direction: str = "forward") -> Adapter:
    """An adapter of this method with its default parameters, not fitted yet.

    Args:
        direction: ``forward`` (old → new) or ``backward``; only methods that treat both differently care.

    Raises:
        UsageError: no method has this name.
    """
    kind = method_class(method)
    options: dict[str, Any] = {"seed": seed, "direction": direction}
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in options.items() if name in known})


def simplest_for(n: int, d_source: int, d_target: int) -> str | None:
    """The simplest method that `n` pairs are enough for, None if there is none."""
    for name in METHODS:
        if make_adapter(name).required_pairs(d_source, d_target) <= n:
            return name
    return None
