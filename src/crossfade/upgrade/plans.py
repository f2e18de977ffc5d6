"""A plan: what an upgrade will do, in a file that a person can read and review."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from crossfade.errors import UnreadableFile, UsageError
from crossfade.spaces import Space
from crossfade.stores import Description, Staged
from crossfade.upgrade.wording import UNFOUND, Facts, duration, size, store_facts

FORMAT = "crossfade-plan"
VERSION = 1
OnInvalid = Literal["refuse", "skip"]


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """The adapter that a plan uses: where it is, what it is, and the SHA-256 of its files."""

    path: str
    method: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ChosenItems:
    """The ids that a partial backfill embeds again: the file that lists them, how many, and its SHA-256."""

    path: str
    count: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Mix:
    """How lifted and re-embedded rows of one column come into one ranking, as measured on held-out items.

    Attributes:
        levelling, sha256: file that says how lifted vectors are moved before they are written; empty if not.
        merge: how a search brings the scores together, as `Merge.to_dict` has it.
        figures: share of a full backfill's ten nearest that is found, by way (``raw``: nothing is done).
        items: on which this was measured.
    """

    levelling: str
    sha256: str
    merge: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, float]]
    items: int

    def __str__(self) -> str:
        method = self.merge["method"]
        read = "levelled" if self.levelling else "raw"
        searched = read if method == "raw" else f"levelled, {method}" if self.levelling else str(method)
        ways = dict.fromkeys(["raw", read, searched])
        found = ", ".join(f"{way} {_figure(self.figures[way])}" for way in ways)
        return (
            f"{read} vectors; crossfade search: {searched} scores (of a full backfill's ten nearest found, "
            f"on {self.items:,} held-out items: {found})"
        )


def _figure(one: Mapping[str, float]) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


@dataclass(frozen=True, slots=True)
class Quality:
    """What an evaluation measured for one task, on its primary metric.

    Attributes:
        task, ground_truth, metric: what was measured, against what.
        row: key of the row in the evaluation.
        value, low, high: with the 95 % interval over queries.
        old: old/old on the same task.
        difference: (value, low, high, p) of the paired difference to old/old.
    """

    task: str
    ground_truth: str
    metric: str
    row: str
    value: float
    low: float
    high: float
    old: float
    difference: tuple[float, float, float, float]

    @property
    def is_worse(self) -> bool:
        """Whether search is significantly worse than with the old model."""
        return self.difference[2] < 0

    def __str__(self) -> str:
        change, low, high, _ = self.difference
        return (
            f"{self.metric} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] against {self.old:.3f} today "
            f"({change:+.3f} [{low:+.3f}, {high:+.3f}]; {self.task}, {self.ground_truth})"
        )


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the upgrade will cost: rows to write, seconds, bytes on disk, and how fast it was measured.

    `bytes_free` is None where the store's disk cannot be seen from here; `pause` says what the cutover asks
    of those who write, and for how long, where it asks anything.
    """

    rows: int = 0
    seconds: float = 0.0
    rows_per_second: float = 0.0
    bytes_needed: int = 0
    bytes_free: int | None = 0
    pause: str = ""


@dataclass(frozen=True)
class Plan:
    """What an upgrade will do. Made by `crossfade.upgrade.plan`; refused by `apply` when it no longer fits.

    Attributes:
        id: of the upgrade.
        created: ISO 8601, UTC.
        strategy: keep, native, query, interpolate, cascade, gallery, lifted-cascade, partial or backfill.
        store: address, without credentials.
        found: the store as it was when the plan was made.
        old, new: the two spaces.
        adapter: the map that is used, if any.
        compatible: whether queries of the new model search the old gallery as they are, without a map.
        weight, depth, first_stage: of the strategy, where it has them.
        items: column that holds the raw items, for strategies that embed them.
        side: column that holds the side-information, for adapters that take it.
        budget: share of the rows that a partial backfill embeds again.
        chosen: which rows these are.
        mix: how lifted and re-embedded rows come into one ranking; None where nothing was measured.
        encoders: what makes vectors, in words, by role: ``old``, ``new``, ``items``.
        staged, previous: column of the new vectors until the switch, and of the old ones after it.
        on_invalid: NaN, infinite, zero and null vectors: ``refuse``, or ``skip`` (listed, left null).
        invalid: how many of each were found.
        changed_rows: share of rows that may have been added or removed when the plan is applied.
        batch_rows: rows that are mapped at a time; part of what makes the bytes reproducible.
        quality: what was measured, per task; empty if nothing was.
        verdict: sentence of the evaluation.
        forced: why a plan that makes search worse is carried out all the same.
        estimates: rows, time and disk.
        steps: what will happen.
        way_back: how to roll back.
    """

    id: str
    created: str
    strategy: str
    store: str
    found: Description
    old: Space
    new: Space
    adapter: AdapterFile | None = None
    compatible: bool = False
    weight: float | None = None
    depth: int | None = None
    first_stage: str = ""
    items: str = ""
    side: str = ""
    budget: float | None = None
    chosen: ChosenItems | None = None
    mix: Mix | None = None
    encoders: Mapping[str, str] = field(default_factory=dict)
    staged: str = ""
    previous: str = ""
    on_invalid: OnInvalid = "refuse"
    invalid: Mapping[str, int] = field(default_factory=dict)
    changed_rows: float = 0.0
    batch_rows: int = 8192
    quality: tuple[Quality, ...] = ()
    verdict: str = ""
    forced: str = ""
    estimates: Estimates = field(default_factory=Estimates)
    steps: tuple[str, ...] = ()
    way_back: str = ""

    @property
    def staging(self) -> Staged:
        """Where the new vectors go."""
        items = "" if self.strategy == "lifted-cascade" else self.items  # there it is read by searches alone
        reads = tuple(filter(None, (items, self.side)))
        return Staged(self.staged, self.previous, self.old, self.new, self.id, reads)

    def summary(self) -> Facts:
        """The plan for people."""
        facts = [
            ("upgrade", f"{self.id}, planned {self.created}"),
            ("strategy", _strategy(self)),
            ("store", self.store),
            ("old space", str(self.old)),
            ("new space", str(self.new)),
            *store_facts(self.found)[1:],
        ]
        if self.adapter:
            facts.append(("adapter", f"{self.adapter.method}, {self.adapter.path}"))
        if self.side:
            facts.append(("side-information", f"column {self.side}"))
        if self.chosen:
            facts.append(("embedded again", f"{self.chosen.count:,} items, listed in {self.chosen.path}"))
        if self.mix:
            facts.append(("mixed scores", str(self.mix)))
        elif self.strategy == "partial":
            facts.append(
                (
                    "mixed scores",
                    "compared as they are, not measured; lifted rows may come first (--held-out-old)",
                )
            )
        facts += [("quality", str(one)) for one in self.quality] or [
            ("quality", "not measured; run crossfade evaluate")
        ]
        facts += [("verdict", self.verdict)] * bool(self.verdict)
        facts += [("forced", self.forced)] * bool(self.forced)
        facts += _left_out(self)
        facts += _costs(self)
        facts += [("step" if number == 0 else "", step) for number, step in enumerate(self.steps)]
        return [*facts, ("way back", self.way_back)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "found": self.found.to_dict()}

    def to_json(self) -> str:
        """Indented JSON; `from_json` reads it back."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> Plan:
        """Read what `to_json` wrote.

        Raises:
            UnreadableFile: cut short, changed beyond recognition, or by a newer version.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT or values.pop("version") > VERSION:
                raise ValueError("written by a newer version")
            return cls(**_typed(values))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnreadableFile(
                f"{where}: not a plan that can be read ({error}); run crossfade plan again"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the plan, all or nothing."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        with draft.open("w", encoding="utf-8") as file:
            file.write(self.to_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a file.

        Raises:
            UnreadableFile: missing, or no plan.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableFile(f"{path}: cannot be read ({error}); make it with crossfade plan") from None
        return cls.from_json(text, str(path))


# --- in words ---------------------------------------------------------------------------------


def _left_out(plan: Plan) -> Facts:
    """Rows that get no new vector, as far as they are known."""
    facts, skips = [], plan.on_invalid == "skip"
    if plan.invalid:
        found = ", ".join(f"{count} {fault}" for fault, count in sorted(plan.invalid.items()))
        facts.append(
            ("unusable vectors", f"{found}; {f'to be skipped: {UNFOUND}' if skips else 'to be refused'}")
        )
    needed = plan.items if plan.strategy == "backfill" else plan.side
    if skips and plan.staged and needed:
        facts.append(
            ("left out", f"rows without a usable value in column {needed}, which apply counts: {UNFOUND}")
        )
    return facts


def _strategy(plan: Plan) -> str:
    details = [
        f"weight {plan.weight:g}" if plan.weight is not None else "",
        f"{plan.depth} candidates" if plan.depth is not None else "",
        f"first stage {plan.first_stage}" if plan.first_stage else "",
        f"{plan.budget:.1%} embedded again" if plan.budget is not None else "",
    ]
    named = ", ".join(filter(None, details))
    return f"{plan.strategy} ({named})" if named else plan.strategy


def _costs(plan: Plan) -> Facts:
    cost = plan.estimates
    if not cost.rows:
        return [("writes", "nothing now")]
    speed = (
        f"{duration(cost.seconds)} at {cost.rows_per_second:,.0f} rows/s" if cost.seconds else "not measured"
    )
    free = "of an unknown amount" if cost.bytes_free is None else f"of {size(cost.bytes_free)}"
    short = cost.bytes_free is not None and cost.bytes_needed >= cost.bytes_free
    return [
        ("writes", f"{cost.rows:,} vectors of {plan.new.dimension} dimensions"),
        ("time", speed),
        (
            "disk",
            f"{size(cost.bytes_needed)} {free} free" + ": NOT ENOUGH, apply will refuse" * short,
        ),
        *[("pause at cutover", cost.pause)] * bool(cost.pause),
    ]


# --- from JSON --------------------------------------------------------------------------------


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(values) - {one.name for one in fields(Plan)})
    if unknown:
        raise ValueError(f"unknown keys {unknown}")
    read = {**values, "steps": tuple(values["steps"])}
    read["found"] = Description.from_dict(values["found"])
    read["old"], read["new"] = Space.from_dict(values["old"]), Space.from_dict(values["new"])
    read["adapter"] = AdapterFile(**values["adapter"]) if values["adapter"] else None
    read["chosen"] = ChosenItems(**values["chosen"]) if values.get("chosen") else None
    read["mix"] = _mix(values["mix"]) if values.get("mix") else None
    read["quality"] = tuple(
        Quality(**{**one, "difference": tuple(one["difference"])}) for one in values["quality"]
    )
    read["estimates"] = Estimates(**values["estimates"])
    return read


def _mix(values: dict[str, Any]) -> Mix:
    from crossfade.evaluation.merging import Merge

    Merge.from_dict(values["merge"])  # what a search could not use is refused now
    return Mix(**values)


def require_choice(value: str, known: tuple[str, ...], what: str) -> None:
    """Refuse a value that is not one of `known`."""
    if value not in known:
        raise UsageError(f"{what} {value!r} is not one of {', '.join(known)}")
