"""Opening the vectors that a command was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossfade.errors import UnknownSpace, UsageError

if TYPE_CHECKING:
    import numpy as np

    from crossfade.vectors import Vectors, VectorSource
    from crossfade.vectors.align import SourcePairs


@dataclass(frozen=True)
class Sides:
    """The same items under both models, row for row, and their side-information if there is any."""

    old: Vectors
    new: Vectors
    side: Vectors | None = None

    @classmethod
    def read(cls, pairs: SourcePairs, columns: tuple[str, ...] = ()) -> Sides:
        """Read both sides; `columns` come from the new one, whose order both have."""
        side = None if pairs.beside is None else pairs.beside.read()
        return cls(pairs.old.read(), pairs.new.read(columns), side)

    def take(self, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Sides:
        """The given rows of both."""
        side = None if self.side is None else self.side.take(rows)
        return Sides(self.old.take(rows), self.new.take(rows), side)


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read the vectors of both models: what their files do not say themselves."""

    old_space: str | None = None
    new_space: str | None = None
    id_column: str | None = None
    vector_column: str | None = None
    side_space: str | None = None

    def pairs(self, old: str, new: str, side: str | None = None) -> SourcePairs:
        """The same items embedded by both models, aligned by id, streamed; with side-information if named."""
        from crossfade.vectors.align import align

        return align(
            self.one(old, self.old_space, "--old-space"),
            self.one(new, self.new_space, "--new-space"),
            side=None if side is None else self.one(side, self.side_space, "--side-space"),
        )

    def sides(self, old: str, new: str, columns: tuple[str, ...] = (), side: str | None = None) -> Sides:
        """The same items under both models, in memory."""
        return Sides.read(self.pairs(old, new, side), columns)

    def queries(self, old: str | None, new: str | None, columns: tuple[str, ...] = ()) -> Sides | None:
        """Queries under both models; None if there are none."""
        if (old is None) != (new is None):
            missing = "--old-queries" if old is None else "--new-queries"
            raise UsageError(f"queries are needed under both models; {missing} is missing")
        return None if old is None or new is None else self.sides(old, new, columns)

    def held_out(self, old: str | None, new: str | None) -> Sides | None:
        """Items under both models that no map was fitted on; None if there are none."""
        if (old is None) != (new is None):
            raise UsageError("--held-out-old and --held-out-new belong together; give both or none")
        return None if old is None or new is None else self.sides(old, new)

    def one(self, location: str, space: str | None, option: str) -> VectorSource:
        """Vectors of one model; an unknown space names the option that states it."""
        from crossfade.vectors import open_vectors

        try:
            return open_vectors(
                location, space=space, id_column=self.id_column, vector_column=self.vector_column
            )
        except UnknownSpace as error:
            raise UnknownSpace(f"{error} (here: {option} NAME)") from None
