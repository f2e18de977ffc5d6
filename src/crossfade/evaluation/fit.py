"""Fit every map that the pairs and the installed extras allow, in both directions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from crossfade.adapters import METHODS, Adapter, make_adapter
from crossfade.errors import MissingExtra, NotSupported, TooFewPairs, TrainingDiverged, UsageError
from crossfade.evaluation.result import Fit, Skipped
from crossfade.spaces import Space
from crossfade.vectors import Pairs, Vectors

Progress = Callable[[str, int, int], None]
BACKWARD, FORWARD = "backward", "forward"


@dataclass
class FittedMaps:
    """Adapters by method, from simple to complex.

    Attributes:
        backward: new → old: they map queries.
        forward: old → new: they lift the gallery.
        fits: what was fitted and how long it took.
        skipped: what could not be fitted and why.
    """

    backward: dict[str, Adapter] = field(default_factory=dict)
    forward: dict[str, Adapter] = field(default_factory=dict)
    fits: list[Fit] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def of(self, direction: str) -> dict[str, Adapter]:
        """The adapters of one direction."""
        return self.backward if direction == BACKWARD else self.forward

    def by_row(self) -> dict[str, Adapter]:
        """The adapters by the key of the row that they make."""
        query = {f"query:{method}": adapter for method, adapter in self.backward.items()}
        return query | {f"gallery:{method}": adapter for method, adapter in self.forward.items()}

    def sort(self) -> None:
        """Simple methods first: the first of equally good ones is taken."""
        for direction in (BACKWARD, FORWARD):
            maps = self.of(direction)
            ordered = sorted(maps.items(), key=lambda entry: entry[1].complexity)
            maps.clear()
            maps.update(ordered)


def fit_maps(
    pairs: Pairs | None, methods: Sequence[str] | None, *, seed: int, progress: Progress
) -> FittedMaps:
    """Fit each method backward and forward on the same pairs.

    Args:
        pairs: old → new.
        methods: names in the registry of adapters; all by default.

    Raises:
        UsageError: an unknown method.
    """
    maps = FittedMaps()
    names = list(METHODS) if methods is None else list(methods)
    jobs = [(name, direction) for name in names for direction in (BACKWARD, FORWARD)]
    for done, (name, direction) in enumerate(jobs if pairs is not None else ()):
        progress("fit", done, len(jobs))
        assert pairs is not None
        _fit(maps, name, direction, pairs if direction == FORWARD else pairs.reversed(), seed)
    progress("fit", len(jobs), len(jobs))
    return maps


def _fit(maps: FittedMaps, name: str, direction: str, pairs: Pairs, seed: int) -> None:
    start = time.perf_counter()
    try:
        maps.of(direction)[name] = make_adapter(name, seed=seed, direction=direction).fit_pairs(pairs)
    except (TooFewPairs, MissingExtra, NotSupported, TrainingDiverged) as error:
        maps.skipped.append(Skipped(name, direction, str(error)))
    else:
        maps.fits.append(Fit(name, direction, time.perf_counter() - start))


def add_fitted(maps: FittedMaps, adapters: Sequence[Adapter], old: Space, new: Space) -> None:
    """Put adapters that were fitted elsewhere beside the others; one of the same method takes its place.

    Raises:
        UsageError: an adapter that maps between other spaces.
    """
    for adapter in adapters:
        ends = adapter.source, adapter.target
        if ends == (old, new):
            maps.forward[adapter.name] = adapter
        elif ends == (new, old):
            maps.backward[adapter.name] = adapter
        else:
            raise UsageError(
                f"{adapter.name} maps {adapter.source} to {adapter.target}, "
                f"but the task is about {old} and {new}; fit one for these spaces (crossfade fit)"
            )


def queries_in_pairs(queries_new: Vectors, pairs: Pairs | None) -> int:
    """How many queries have exactly the new vector of one of the pairs: they were fitted on."""
    if pairs is None or pairs.dimensions[1] != queries_new.space.dimension:
        return 0
    rows = {row.tobytes() for row in queries_new.matrix}
    fitted = {key for _, new in pairs.batches() for row in new if (key := row.tobytes()) in rows}
    return sum(row.tobytes() in fitted for row in queries_new.matrix)


def without_prompt(space: Space) -> Space:
    """The space that queries and documents of an asymmetric model share."""
    return replace(space, prompt="")
