"""The table of stores and what each can do, for the documentation and for the end of a test run."""

from __future__ import annotations

from collections.abc import Iterator

from crossfade.stores.open import STORES, kinds
from crossfade.stores.records import Capabilities

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
    for scheme, places in STORES.items():
        if places not in seen:
            seen.add(places)
            yield from ((scheme, one.capabilities) for one in kinds(scheme))


def capability_table() -> str:
    """Markdown: a row per store, then what each cannot do."""
    rows = [list(HEAD), ["---"] * len(HEAD), *(_cells(*one) for one in capabilities())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for scheme, said in capabilities():
        title = scheme if len(STORES[scheme]) == 1 else f"{scheme}: {said.beside}"
        lines += ["", f"### {title}", "", f"Rows written by others: {said.catches_up}.", "", "It cannot", ""]
        lines += [f"- {one}" for one in said.cannot]
    return "\n".join(lines)
