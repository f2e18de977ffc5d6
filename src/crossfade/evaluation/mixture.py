"""How lifted and re-embedded rows of one gallery come into one ranking: the way that held-out items favour.

One half of the held-out items fits a levelling: lifted vectors are moved before they are written. The other
half asks for itself: part of it counts as re-embedded, the most uncertain first, and what imitates a full
backfill best is taken, raw or levelled vectors first and then the merge of their scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import Adapter
from crossfade.evaluation.levelling import Levelling, fit_levelling
from crossfade.evaluation.merging import (
    LIFTED,
    RAW,
    RE_EMBEDDED,
    Merge,
    MergeChoice,
    best_method,
    choose_merge,
    fit_merge,
    merge_values,
)
from crossfade.evaluation.ranking import largest_first
from crossfade.evaluation.scoring import Scorer
from crossfade.spaces import Metric
from crossfade.vectors import FloatMatrix

LEAST_ITEMS, MOST_ITEMS = 400, 4000


@dataclass(frozen=True)
class HeldOut:
    """Items under both models that a map was not fitted on.

    Attributes:
        lifted, new: (n, d) lifted by the map, and embedded by the new model.
        uncertainty: (n,) that the map predicts of each.
        metric: of the new space.
        origin: where the items come from, in words.
    """

    lifted: FloatMatrix
    new: FloatMatrix
    uncertainty: NDArray[np.floating]
    metric: Metric
    origin: str = ""

    @classmethod
    def by(
        cls, adapter: Adapter, old: FloatMatrix, new: FloatMatrix, metric: Metric, origin: str = ""
    ) -> HeldOut:
        """Lift (n, d_old) by a map that takes no side-information."""
        return cls(adapter.transform(old), new, adapter.uncertainty(old), metric, origin)

    def __len__(self) -> int:
        return len(self.new)


@dataclass(frozen=True)
class Way:
    """How a gallery of lifted and re-embedded rows is written and searched.

    Attributes:
        level: moves lifted vectors before they are written; None if they are written as they are.
        merge: brings the scores of both into one ranking.
    """

    level: Levelling | None = None
    merge: Merge = field(default_factory=Merge)

    @property
    def name(self) -> str:
        """``raw``, ``levelled``, a merge, or ``levelled, `` and a merge."""
        if self.level is None:
            return self.merge.method
        return "levelled" if self.merge.method == RAW else f"levelled, {self.merge.method}"


AS_THEY_ARE = Way()


class Ways:
    """What is best where some share of a lifted gallery is embedded again.

    Args:
        held_out: at least `LEAST_ITEMS`; at most `MOST_ITEMS` of them are taken.
        seed: of the halves.
    """

    def __init__(self, held_out: HeldOut, *, seed: int = 0) -> None:
        order = np.random.default_rng(seed).permutation(len(held_out))[:MOST_ITEMS]
        fitting, measuring = order[::2], order[1::2]
        lifted, asked = held_out.lifted[measuring], held_out.new[measuring]
        self._seed, self._own = seed, np.arange(len(measuring))
        self._first = largest_first(held_out.uncertainty[measuring])
        whole = Scorer(asked, held_out.metric).scores(asked)
        self._plain = {RE_EMBEDDED: whole, LIFTED: Scorer(lifted, held_out.metric).scores(asked)}
        self.level: Levelling | None = None
        if held_out.metric == "cosine":
            again = held_out.new[fitting]
            self.level = fit_levelling(held_out.lifted[fitting], again, again)
            moved = Scorer(self.level(lifted), held_out.metric).scores(asked)
            self._levelled = {RE_EMBEDDED: whole, LIFTED: moved}

    def at(self, share: float) -> Way:
        """The best way where `share` of the gallery is re-embedded."""
        origins = self._origins(share)
        scores, level = self._plain, None
        if self.level is not None:
            plain, moved = (
                merge_values(one, origins, own=self._own, seed=self._seed, methods=(RAW,))[RAW].mean()
                for one in (self._plain, self._levelled)
            )
            if moved > plain:
                scores, level = self._levelled, self.level
        best = best_method(merge_values(scores, origins, own=self._own, seed=self._seed))
        return Way(level, fit_merge(best, scores, self._own))

    def measured(self, share: float) -> tuple[MergeChoice, MergeChoice | None]:
        """Every merge with its interval, on vectors as they are lifted, and on levelled ones if better."""
        origins = self._origins(share)
        plain = choose_merge(self._plain, origins, own=self._own, seed=self._seed)
        if self.level is None:
            return plain, None
        levelled = choose_merge(self._levelled, origins, own=self._own, seed=self._seed)
        return plain, levelled if levelled.quality[RAW].value > plain.quality[RAW].value else None

    def _origins(self, share: float) -> NDArray[np.int64]:
        origins = np.full(len(self._first), LIFTED, dtype=np.int64)
        origins[self._first[: round(share * len(origins))]] = RE_EMBEDDED
        return origins
