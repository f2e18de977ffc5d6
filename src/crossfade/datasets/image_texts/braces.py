"""Patterns of shards: ``shards-{000..003}.tar``, ``{train,val}-{0..9}.tar``."""

from __future__ import annotations

import re
from itertools import product

from crossfade.errors import UsageError

MAX_NAMES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand_braces(pattern: str) -> list[str]:
    """All names of a pattern, the last braces counting fastest; numbers keep the zeros before them.

    Raises:
        UsageError: unbalanced or nested braces, or more than `MAX_NAMES` names.
    """
    pieces = _BRACES.split(pattern)
    if any("{" in piece or "}" in piece for piece in pieces):
        raise UsageError(
            f"{pattern!r}: unbalanced or nested braces; write for example shards-{{000..003}}.tar"
        )
    choices = [_choices(piece, pattern) if inside % 2 else [piece] for inside, piece in enumerate(pieces)]
    count = 1
    for one in choices:
        count *= len(one)
    _require_few(count, pattern)
    return ["".join(parts) for parts in product(*choices)]


def _choices(inner: str, pattern: str) -> list[str]:
    found = _RANGE.fullmatch(inner)
    if found is None:
        return inner.split(",")
    first, last = int(found[1]), int(found[2])
    _require_few(abs(last - first) + 1, pattern)
    step = 1 if last >= first else -1
    width = (
        max(map(len, found.groups()))
        if any(one.startswith("0") and len(one) > 1 for one in found.groups())
        else 0
    )
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _require_few(count: int, pattern: str) -> None:
    if count > MAX_NAMES:
        raise UsageError(f"{pattern!r} names {count} shards, at most {MAX_NAMES} are read; shorten the range")
