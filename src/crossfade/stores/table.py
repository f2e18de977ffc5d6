"""The table of stores and what each can do, for the documentation and for the end of a test run."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from crossfade.stores.base import Capabilities
from crossfade.stores.open import STORES

EXTRAS = {"postgresql": "pgvector", "lancedb": "lance", "parquet": ""}
"""Extra that installs a store's library, where it is not called like the scheme of its address."""


HEAD = ("address", "extra", "new vectors", "switch", "index", "parts of the contract it lacks")


def _cells(scheme: str, said: Capabilities) -> list[str]:
    extra = EXTRAS.get(scheme, scheme)
    cells = [f"`{scheme}://`", f"`{extra}`" if extra else "–", said.beside, said.switch]
    return [*cells, ", ".join(said.index) or "–", ", ".join(said.lacks) or "–"]


def capabilities() -> Iterator[tuple[str, Capabilities]]:
    """Scheme and capabilities of every kind of store."""
    seen = set()
    for scheme, place in STORES.items():
        if place not in seen:
            seen.add(place)
            module, name = place
            yield scheme, getattr(import_module(module), name).capabilities


def capability_table() -> str:
    """Markdown: a row per store, then what each cannot do."""
    rows = [list(HEAD), ["---"] * len(HEAD), *(_cells(*one) for one in capabilities())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for scheme, said in capabilities():
        lines += ["", f"### {scheme}", "", f"Rows written by others: {said.catches_up}.", "", "It cannot", ""]
        lines += [f"- {one}" for one in said.cannot]
    return "\n".join(lines)
