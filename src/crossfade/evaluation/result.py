"""What an evaluation found, as plain values that survive a trip through JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from crossfade.errors import UsageError
from crossfade.evaluation.curves import BackfillCurve
from crossfade.evaluation.estimates import Difference, Estimate
from crossfade.spaces import Space

OLD_OLD = "old/old"
NAIVE = "new/old"
NEW_NEW = "new/new"
NATIVE = "native"
RAW_ITEMS = "raw items"
OLD_ENCODER = "old encoder"


@dataclass(frozen=True, slots=True)
class Flips:
    """Share of queries whose first result changed sides, against old/old.

    Attributes:
        positive: wrong before, right now.
        negative: right before, wrong now.
    """

    positive: float
    negative: float


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row of the query/gallery matrix.

    Attributes:
        key: identifies the row in every task, e.g. ``query:ridge`` or ``cascade:query@100``.
        notation: the papers' query/gallery notation, e.g. ``new/h(old)``.
        strategy: keep, naive, native, query, gallery, interpolate, cascade, lifted-cascade or backfill.
        title: the row in words, for people.
        method: adapter that was used, or compatible model whose queries these are; empty if none.
        metrics: mean and interval per metric; empty if the row is not comparable (see `note`).
        against_old: paired difference to old/old per metric.
        gap_closed: (M - M_old/old) / (M_new/new - M_old/old) per metric; None where the new model
            is not significantly better, so that there is no gap to close.
        flips: changes of the first result against old/old.
        needs: what must be at hand beside the new encoder: ``raw items``, ``old encoder``.
        candidate: whether the row may be recommended instead of keeping or backfilling.
        weight: interpolation: the weight of the mapped new query (0 old query, 1 new query).
        depth: cascades: number of candidates that the new model re-ranks.
        first_stage: cascades: ``query`` or ``interpolate``, what fetches the candidates from the old gallery;
            ``gallery`` where they come from the lifted one.
        embedded: cascades: distinct gallery items that had to be embedded for all queries together.
        note: why there are no numbers, or how the row's method and weight were chosen.
    """

    key: str
    notation: str
    strategy: str
    title: str
    method: str = ""
    metrics: dict[str, Estimate] = field(default_factory=dict)
    against_old: dict[str, Difference] = field(default_factory=dict)
    gap_closed: dict[str, float | None] = field(default_factory=dict)
    flips: Flips | None = None
    needs: tuple[str, ...] = ()
    candidate: bool = False
    weight: float | None = None
    depth: int | None = None
    first_stage: str = ""
    embedded: int | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values."""
        return {**asdict(self), "needs": list(self.needs)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RowResult:
        """Read what `to_dict` wrote."""
        read = _known(cls, values)
        read["metrics"] = {name: Estimate.from_dict(value) for name, value in values["metrics"].items()}
        read["against_old"] = {name: Difference.from_dict(v) for name, v in values["against_old"].items()}
        read["flips"] = Flips(**values["flips"]) if values["flips"] else None
        read["needs"] = tuple(values["needs"])
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Pairwise:
    """Paired differences between all rows on the primary metric: entry [i][j] is row i minus row j."""

    keys: tuple[str, ...]
    value: tuple[tuple[float, ...], ...]
    low: tuple[tuple[float, ...], ...]
    high: tuple[tuple[float, ...], ...]
    p: tuple[tuple[float, ...], ...]

    def __call__(self, row: str, other: str) -> Difference:
        """`row` minus `other`, both by key."""
        i, j = self.keys.index(row), self.keys.index(other)
        return Difference(self.value[i][j], self.low[i][j], self.high[i][j], self.p[i][j])

    def to_dict(self) -> dict[str, Any]:
        """The tables as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pairwise:
        """Read what `to_dict` wrote."""
        tables = {name: tuple(map(tuple, values[name])) for name in ("value", "low", "high", "p")}
        return cls(keys=tuple(values["keys"]), **tables)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The query/gallery matrix of one task.

    Attributes:
        name: the task, e.g. ``text→image``.
        kind: labels, captions, judged or neighbours.
        ground_truth: what the figures are measured against, in words.
        n_queries: queries that were scored: those with at least one relevant item.
        n_gallery: items in the gallery.
        left_out: queries that were not scored because nothing in the gallery is relevant to them.
        queries_in_pairs: queries whose new vector is also among the pairs that the maps were fitted on;
            figures of the maps are flattered by these.
        metrics: names of the metrics, in the order of the field's tables.
        primary: the metric that the verdict is made on.
        rows: the matrix, old/old first and new/new last.
        pairwise: paired differences between all rows with numbers, on the primary metric.
        agreement: label-free: share of the new model's own ten nearest neighbours that a row finds
            among its first ten, by row key. It says how closely the new model is imitated, not how
            good the results are.
        chance: what a random order of the gallery scores, per metric.
        distance: how vectors were compared, old and new: cosine, dot or l2.
    """

    name: str
    kind: str
    ground_truth: str
    n_queries: int
    n_gallery: int
    metrics: tuple[str, ...]
    primary: str
    rows: tuple[RowResult, ...]
    pairwise: Pairwise
    agreement: dict[str, Estimate] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    distance: tuple[str, str] = ("cosine", "cosine")
    left_out: int = 0
    queries_in_pairs: int = 0

    @property
    def judged(self) -> bool:
        """Whether the figures rest on labels or judgements, not on the new model itself."""
        return self.kind != "neighbours"

    def row(self, key: str) -> RowResult:
        """The row with this key.

        Raises:
            UsageError: there is none.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise UsageError(
            f"task {self.name!r} has no row {key!r}; it has {', '.join(r.key for r in self.rows)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The task's figures as JSON-ready values."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "metrics": list(self.metrics),
            "distance": list(self.distance),
            "rows": [row.to_dict() for row in self.rows],
            "pairwise": self.pairwise.to_dict(),
            "agreement": {key: value.to_dict() for key, value in self.agreement.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskResult:
        """Read what `to_dict` wrote."""
        read = _known(cls, values)
        read["metrics"] = tuple(values["metrics"])
        read["distance"] = tuple(values["distance"])
        read["rows"] = tuple(RowResult.from_dict(row) for row in values["rows"])
        read["pairwise"] = Pairwise.from_dict(values["pairwise"])
        read["agreement"] = {key: Estimate.from_dict(v) for key, v in values["agreement"].items()}
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Alternative:
    """What to do if something that the recommendation may need is not at hand."""

    without: str
    strategy: str
    row: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, in one sentence, with the facts it rests on.

    Attributes:
        strategy: keep, native, query, gallery, interpolate, cascade, lifted-cascade or backfill.
        row: key of the row that was recommended.
        sentence: the verdict in plain English with the numbers and their ground truth.
        reasons: the facts behind it, one a line.
        method, weight, depth, first_stage: how to carry the strategy out.
        alternatives: the verdict without raw items and without the old encoder.
        remaining: what a full backfill would still add on the primary metric, per judged task.
        gain: the recommendation against old/old on the primary metric, per judged task.
        judged: False if only the new model's own neighbours were at hand: then nothing says
            whether search gets better, only how closely the new model is imitated.
    """

    strategy: str
    row: str
    sentence: str
    reasons: tuple[str, ...] = ()
    method: str = ""
    weight: float | None = None
    depth: int | None = None
    first_stage: str = ""
    alternatives: tuple[Alternative, ...] = ()
    remaining: dict[str, Difference] = field(default_factory=dict)
    gain: dict[str, Difference] = field(default_factory=dict)
    judged: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values."""
        values = asdict(self)
        return {**values, "reasons": list(self.reasons), "alternatives": list(values["alternatives"])}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verdict:
        """Read what `to_dict` wrote."""
        read = _known(cls, values)
        read["reasons"] = tuple(values["reasons"])
        read["alternatives"] = tuple(Alternative(**entry) for entry in values["alternatives"])
        for name in ("remaining", "gain"):
            read[name] = {task: Difference.from_dict(value) for task, value in values[name].items()}
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Fit:
    """An adapter that was fitted: which method, which way (backward or forward), how long it took."""

    method: str
    direction: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """A method that was not fitted, and why."""

    method: str
    direction: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` found.

    Attributes:
        tasks: one matrix per task.
        verdict: what to do.
        pairs: number of pairs that the adapters were fitted on.
        old, new: the two spaces; None if the pairs did not say.
        fits, skipped: the methods that were fitted and those that were not, with the reason.
        curves: quality against the share embedded again, per task, if that was asked for.
        compatible: spaces of the models that searched the old gallery directly, by name.
        adapters: the fitted adapters by row key (``query:ridge``); in memory only.
        seed, samples: of the bootstrap and the folds.
        seconds: wall time of the whole evaluation.
    """

    tasks: tuple[TaskResult, ...]
    verdict: Verdict
    pairs: int
    old: Space | None = None
    new: Space | None = None
    fits: tuple[Fit, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    seed: int = 0
    samples: int = 1000
    seconds: float = 0.0
    curves: tuple[BackfillCurve, ...] = ()
    compatible: dict[str, Space] = field(default_factory=dict)
    adapters: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def task(self, name: str) -> TaskResult:
        """The task with this name.

        Raises:
            UsageError: there is none.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise UsageError(f"no task {name!r} was evaluated; there are {', '.join(t.name for t in self.tasks)}")

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON-ready values, without the adapters."""
        return {
            "tasks": [task.to_dict() for task in self.tasks],
            "verdict": self.verdict.to_dict(),
            "pairs": self.pairs,
            "old": self.old.to_dict() if self.old else None,
            "new": self.new.to_dict() if self.new else None,
            "fits": [asdict(fit) for fit in self.fits],
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "seed": self.seed,
            "samples": self.samples,
            "seconds": self.seconds,
            **({"curves": [curve.to_dict() for curve in self.curves]} if self.curves else {}),
            **({"compatible": self._compatible()} if self.compatible else {}),
        }

    def _compatible(self) -> dict[str, Any]:
        return {name: space.to_dict() for name, space in self.compatible.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read what `to_dict` wrote."""
        read = _known(cls, values)
        read["tasks"] = tuple(TaskResult.from_dict(task) for task in values["tasks"])
        read["verdict"] = Verdict.from_dict(values["verdict"])
        for name in ("old", "new"):
            read[name] = Space.from_dict(values[name]) if values[name] else None
        read["fits"] = tuple(Fit(**fit) for fit in values["fits"])
        read["skipped"] = tuple(Skipped(**skipped) for skipped in values["skipped"])
        read["curves"] = tuple(BackfillCurve.from_dict(curve) for curve in values.get("curves", ()))
        spaces = values.get("compatible", {})
        read["compatible"] = {name: Space.from_dict(space) for name, space in spaces.items()}
        return cls(**read)


def _known(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    known: Sequence[str] = [f.name for f in fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{cls.__name__} has unknown keys {unknown}; written by a newer version?")
    return dict(values)
