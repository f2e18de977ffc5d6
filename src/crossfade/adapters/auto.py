"""Fit every method, judge them on held-out pairs, take the simplest that is as good as the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from crossfade.adapters.base import Adapter
from crossfade.adapters.judging import Bootstrap, Interval, Judge, Judged
from crossfade.adapters.prepared import PreparedPairs, RowSample
from crossfade.adapters.registry import METHODS, make_adapter, method_class
from crossfade.adapters.subsets import Without, read_held_out
from crossfade.errors import MissingExtra, TooFewPairs, TrainingDiverged, UsageError
from crossfade.vectors import Pairs

MOST_JUDGED = 4096


@dataclass(frozen=True, slots=True)
class MethodScore:
    """One method on the held-out pairs.

    Attributes:
        method: its name.
        complexity: its place from simple to complex.
        retrieval: share of the new model's own ten nearest neighbours that it finds; see `Judge`.
        partner: mean reciprocal rank of an item's own vector.
        error: squared error relative to answering with the mean target vector.
        behind_best: `retrieval` minus that of the best method, over the same items.
        seconds: time to fit.
    """

    method: str
    complexity: int
    retrieval: Interval
    partner: Interval
    error: float
    behind_best: Interval
    seconds: float

    @property
    def as_good_as_best(self) -> bool:
        """Whether the paired interval of its distance from the best reaches zero."""
        return self.behind_best.high >= 0

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON-ready values."""
        return {
            "method": self.method,
            "complexity": self.complexity,
            "retrieval": self.retrieval.to_dict(),
            "partner": self.partner.to_dict(),
            "error": self.error,
            "behind_best": self.behind_best.to_dict(),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class AutoFit:
    """What `fit_auto` chose and what it rests on.

    Attributes:
        adapter: the chosen method, fitted on all pairs.
        scores: every method that was fitted, from simple to complex.
        skipped: (method, reason) of every method that was not.
        held_out: number of pairs that the methods were judged on.
        direction: forward or backward.
    """

    adapter: Adapter
    scores: list[MethodScore]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    held_out: int = 0
    direction: str = "forward"


def fit_auto(
    pairs: Pairs,
    *,
    methods: Sequence[str] | None = None,
    direction: str = "forward",
    seed: int = 0,
    held_out: float = 0.2,
) -> AutoFit:
    """Fit the methods that the pairs and the installed extras allow; choose on held-out pairs.

    Each method is fitted without the held-out pairs (at most 4,096 of them) and judged by searching them. Of
    all methods whose paired bootstrap interval of the distance from the best reaches zero, the simplest is
    fitted again on all pairs.

    Args:
        methods: names to try; all in `METHODS` unless given.
        direction: ``forward`` if stored vectors will be mapped (the source is the old model), ``backward`` if
            queries will be mapped (the source is the new model).
        seed: chooses the held-out pairs and seeds every fit.
        held_out: share of pairs to judge on.

    Raises:
        UsageError: an unknown method or direction, or a share outside (0, 1).
        TooFewPairs: no method can be fitted on so few.
        InvalidVectors: NaN, infinite or zero vectors.
    """
    _require_options(direction, held_out)
    rows = RowSample.choose(len(pairs), held_out, MOST_JUDGED, seed)
    trial = _Trial(pairs, rows, direction, seed)
    for name in sorted(methods or METHODS, key=lambda name: method_class(name).complexity):
        trial.attempt(name)
    scores = trial.scores()
    if not scores:
        raise TooFewPairs(_nothing_fitted(pairs, trial.skipped))
    chosen = next(score.method for score in scores if score.as_good_as_best)
    adapter = make_adapter(chosen, seed=seed, direction=direction).fit_pairs(pairs)
    return AutoFit(adapter, scores, trial.skipped, len(rows), direction)


def _require_options(direction: str, held_out: float) -> None:
    if direction not in ("forward", "backward"):
        raise UsageError(f"direction is 'forward' (gallery) or 'backward' (queries), got {direction!r}")
    if not 0 < held_out < 1:
        raise UsageError(f"held_out is the share of pairs to judge on, between 0 and 1, got {held_out}")


def _nothing_fitted(pairs: Pairs, skipped: list[tuple[str, str]]) -> str:
    return f"no method can be fitted on {len(pairs)} pairs; " + "; ".join(
        f"{name}: {reason}" for name, reason in skipped
    )


class _Trial:
    def __init__(self, pairs: Pairs, rows: RowSample, direction: str, seed: int) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._direction, self._seed = direction, seed
        self._fitting = PreparedPairs(Without(pairs, rows))
        self._held_out = read_held_out(pairs, rows)
        self._judge = Judge(self._held_out, backward=direction == "backward")
        self._judged: list[tuple[Adapter, Judged, float]] = []

    def attempt(self, name: str) -> None:
        start = perf_counter()
        try:
            adapter = make_adapter(name, seed=self._seed, direction=self._direction).fit_prepared(
                self._fitting
            )
        except (MissingExtra, TooFewPairs, TrainingDiverged) as reason:
            self.skipped.append((name, str(reason)))
            return
        seconds = perf_counter() - start
        mapped = adapter.transform(self._held_out.X, self._held_out.S if adapter.side_dimension else None)
        self._judged.append((adapter, self._judge(mapped), seconds))

    def scores(self) -> list[MethodScore]:
        if not self._judged:
            return []
        bootstrap = Bootstrap(len(self._held_out), seed=self._seed)
        best = max((judged.neighbours for _, judged, _ in self._judged), key=lambda values: values.mean())
        return [
            MethodScore(
                adapter.name,
                adapter.complexity,
                bootstrap(judged.neighbours),
                bootstrap(judged.partner),
                judged.error,
                bootstrap(judged.neighbours - best),
                seconds,
            )
            for adapter, judged, seconds in self._judged
        ]
