"""Words that plans, states and inspections share."""

from __future__ import annotations

from crossfade.stores import Description

Facts = list[tuple[str, str]]
"""Label and value pairs, for people."""
UNFOUND = "no search finds them while the new vectors are in use"


def store_facts(found: Description) -> Facts:
    """A store as it was found."""
    return [
        ("store", found.uri),
        ("rows", f"{found.rows:,} in {found.parts} parts, version {found.version}"),
        ("vectors", f"{found.column}: {found.column_type}"),
        ("ids", found.id_column or "none"),
        ("other columns", ", ".join(found.payload) or "none"),
        ("index", str(found.index) if found.index else "none"),
    ]


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes in the unit that a person would use."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
