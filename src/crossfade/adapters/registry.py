"""The methods by name; a method's file is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

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


class _Methods(Mapping[str, type[Adapter]]):
    def __getitem__(self, name: str) -> type[Adapter]:
        module, _, attribute = _CLASSES[name].partition(":")
        method: type[Adapter] = getattr(import_module(f"crossfade.adapters.{module}"), attribute)
        return method

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


METHODS: Mapping[str, type[Adapter]] = _Methods()


def method_class(name: str) -> type[Adapter]:
    """The class of a method.

    Raises:
        UsageError: no method has this name.
    """
    if name not in METHODS:
        raise UsageError(f"no method is called {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def make_adapter(method: str, *, seed: int = 0) -> Adapter:
    """An adapter of this method with its default parameters, not fitted yet.

    Raises:
        UsageError: no method has this name.
    """
    return method_class(method)(seed=seed)  # type: ignore[call-arg]


def simplest_for(n: int, d_source: int, d_target: int) -> str | None:
    """The simplest method that `n` pairs are enough for, None if there is none."""
    for name in METHODS:
        if make_adapter(name).required_pairs(d_source, d_target) <= n:
            return name
    return None
