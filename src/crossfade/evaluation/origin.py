"""Which model made which vector: find a gallery that holds the vectors of two models of equal dimension.

Nobody stores vectors of two models in one column on purpose; a botched upgrade does. Two facts tell:

* Vectors of different models are no neighbours. The graph of mutual nearest neighbours falls into pieces,
  none of which has vectors of both. (A gallery of one model falls into pieces, too: its topics.)
* The vectors of a model share a direction (anisotropy): between topics, too, the mean cosine is well above
  zero. Between models it is not. Pieces that share one are therefore of one origin, and are joined.

How well that works on real models was measured (benchmarks/origin.py): nine galleries of one model were
called so, and in 36 mixtures of two the mean cosine between them was at most 0.27 of that within them
(geometric mean of both), even where one model is the first layers of the other; topics of one model were
joined at 0.4. A gallery whose vectors share no direction (centred vectors) cannot be judged in this way; then
only embedding some items again tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DataError
from crossfade.evaluation.estimates import Estimate
from crossfade.evaluation.search import search
from crossfade.vectors import FloatMatrix

NEIGHBOURS = 10
LEAST_PIECE = 10
"""Pieces of fewer vectors say nothing about their direction; their vectors go where they point."""
SAME_ORIGIN = 0.4
"""Mean cosine between pieces of one origin, as a share of that within them."""
NO_DIRECTION = 0.02
"""Mean cosine of a whole gallery under which its vectors share no direction."""
LEAST_ROWS = 200
Verdict = Literal["one origin", "mixed", "cannot tell"]
Groups = NDArray[np.int64]


@dataclass(frozen=True)
class Origins:
    """What a sample says about where a gallery's vectors come from.

    Attributes:
        verdict: ``one origin``, ``mixed``, or ``cannot tell``.
        sampled: vectors looked at.
        shares: of each origin in the gallery, largest first, with 95 % intervals (Wilson).
        groups: (sampled,) origin of each vector, 0 for the largest.
        directions: (origins, d) unit vectors; a vector belongs to the origin whose direction is closest.
        likeness: the largest mean cosine between two origins, as a share of that within; None for one.
        mean_cosine: over all pairs of vectors.
    """

    verdict: Verdict
    sampled: int
    shares: tuple[Estimate, ...]
    groups: Groups
    directions: FloatMatrix
    likeness: float | None
    mean_cosine: float

    def assign(self, vectors: FloatMatrix) -> Groups:
        """(n,) origin of each of `vectors` (n, d)."""
        return np.asarray((vectors @ self.directions.T).argmax(axis=1), dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, without the vectors."""
        return {
            "verdict": self.verdict,
            "sampled": self.sampled,
            "shares": [share.to_dict() for share in self.shares],
            "likeness": self.likeness,
            "mean cosine": self.mean_cosine,
        }


def find_origins(vectors: FloatMatrix) -> Origins:
    """Look for vectors of another model in a sample (n, d) of a gallery.

    An origin is seen from about `LEAST_PIECE` vectors on: in a sample of 3,000, from a share of 0.3 to 1 %.

    Raises:
        DataError: fewer than `LEAST_ROWS` vectors, or one of length zero.
    """
    if len(vectors) < LEAST_ROWS:
        raise DataError(
            f"{len(vectors)} vectors are too few to tell origins apart; at least {LEAST_ROWS} are needed"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise DataError(
            f"{int((lengths <= 0).sum())} of {len(vectors)} vectors have length zero; leave them out"
        )
    unit = (vectors / lengths).astype(np.float32)
    overall = _Piece.of(unit).mean_cosine
    pieces = [_Piece.of(unit[rows]) for rows in _pieces(unit)]
    origins, likeness = _joined(pieces)
    directions = np.stack([piece.direction for piece in origins] or [_Piece.of(unit).direction])
    groups = np.asarray((unit @ directions.T).argmax(axis=1), dtype=np.int64)
    order = np.argsort(-np.bincount(groups, minlength=len(directions)), kind="stable")
    groups = np.argsort(order)[groups]
    counts = np.bincount(groups, minlength=len(order))
    mixed = len(directions) > 1
    verdict: Verdict = "cannot tell" if overall < NO_DIRECTION else "mixed" if mixed else "one origin"
    return Origins(
        verdict,
        len(unit),
        tuple(wilson(int(count), len(unit)) for count in counts),
        groups,
        directions[order].astype(np.float32),
        likeness if mixed else None,
        overall,
    )


def wilson(count: int, of: int) -> Estimate:
    """A share with its 95 % interval (Wilson, 1927)."""
    z = 1.959964
    share, spread = count / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class _Piece:
    """Unit vectors by their number and sum, which is all that mean cosines need."""

    count: int
    total: NDArray[np.float64]

    @classmethod
    def of(cls, unit: FloatMatrix) -> _Piece:
        return cls(len(unit), unit.sum(axis=0, dtype=np.float64))

    @property
    def mean_cosine(self) -> float:
        """Over pairs of different vectors."""
        return float((self.total @ self.total - self.count) / (self.count * (self.count - 1)))

    @property
    def direction(self) -> NDArray[np.float64]:
        direction: NDArray[np.float64] = self.total / np.linalg.norm(self.total)
        return direction

    def likeness(self, other: _Piece) -> float:
        """Mean cosine between both, as a share of the geometric mean of those within them."""
        between = float(self.total @ other.total) / (self.count * other.count)
        within = max(self.mean_cosine, 1e-9) * max(other.mean_cosine, 1e-9)
        return between / math.sqrt(within)

    def joined(self, other: _Piece) -> _Piece:
        return _Piece(self.count + other.count, self.total + other.total)


def _pieces(unit: FloatMatrix) -> list[Groups]:
    """Rows of every connected piece of the mutual-neighbour graph that is large enough."""
    rows, others = _mutual_neighbours(unit)
    label = np.arange(len(unit))
    while True:
        lower = label.copy()
        np.minimum.at(lower, rows, label[others])
        lower = lower[lower]
        if (lower == label).all():
            break
        label = lower
    found = (np.flatnonzero(label == one) for one in np.unique(label))
    return [rows for rows in found if len(rows) >= LEAST_PIECE]


def _mutual_neighbours(unit: FloatMatrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both ends of every pair of vectors that are among each other's nearest."""
    neighbours = search(unit, unit, NEIGHBOURS + 1, "dot")[1]
    linked = np.zeros((len(unit), len(unit)), dtype=bool)
    linked[np.repeat(np.arange(len(unit)), neighbours.shape[1]), neighbours.ravel()] = True
    rows, others = (linked & linked.T).nonzero()
    return rows, others


def _joined(pieces: list[_Piece]) -> tuple[list[_Piece], float | None]:
    """Pieces of one origin made one, the most alike first; and how alike the closest that remain are."""
    pieces = list(pieces)
    while len(pieces) > 1:
        pairs = ((i, j) for i in range(len(pieces)) for j in range(i))
        likeness, i, j = max((pieces[i].likeness(pieces[j]), i, j) for i, j in pairs)
        if likeness < SAME_ORIGIN:
            return pieces, likeness
        pieces[j] = pieces[j].joined(pieces.pop(i))
    return pieces, None
