"""What to do, decided from the measured matrices alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crossfade.evaluation.compatible import criterion
from crossfade.evaluation.estimates import Difference
from crossfade.evaluation.result import (
    NATIVE,
    NEW_NEW,
    OLD_ENCODER,
    OLD_OLD,
    RAW_ITEMS,
    Alternative,
    RowResult,
    TaskResult,
    Verdict,
)

MARGIN = 0.05
"""A way that keeps all but this share of the best one's gain is as good: a cascade to half the depth
costs half, and with enough queries every hair's breadth is significant."""
CHEAPEST_FIRST = (NATIVE, "query", "gallery", "interpolate", "cascade", "lifted-cascade")
"""A lifted cascade rewrites the whole column and embeds candidates on top: what both of the others cost."""
EVERYTHING = (RAW_ITEMS, OLD_ENCODER)


def decide(tasks: Sequence[TaskResult], have: Sequence[str] = EVERYTHING) -> Verdict:
    """The cheapest way that is as good as the best one, or to keep the old model, or to backfill.

    A row qualifies if it is significantly better than old/old on the primary metric of at least one
    task (p below 0.05, corrected for the number of
    candidates, and interval above zero) and significantly worse on no metric of
    any task (uncorrected, the cautious reading). Of those that qualify, the cheapest is taken that in
    every task is not significantly behind the best, or keeps all but `MARGIN` of its gain; cheap to
    dear: queries of a compatible model as they are, map queries, lift the gallery, interpolate,
    cascade by depth, cascade over a lifted gallery by depth; then the simplest method that keeps up,
    in the same sense, with the best one of that cost. If none qualifies, the answer is a full backfill
    where the new model itself is significantly better and the raw items are at hand, else to keep.

    Args:
        tasks: those with labels or judgements decide; label-free ones only if there are no others.
        have: what is at hand beside the new encoder: ``raw items``, ``old encoder``.
    """
    deciding = [task for task in tasks if task.judged] or list(tasks)
    verdict = _decide(deciding, have)
    alternatives = [_without(thing, deciding, have, verdict) for thing in EVERYTHING]
    return replace(verdict, alternatives=tuple(alternatives))


def _decide(tasks: Sequence[TaskResult], have: Sequence[str]) -> Verdict:
    candidates = [row for row in tasks[0].rows if _possible(row, tasks, have)]
    qualified = [row for row in candidates if qualifies(row.key, tasks)]
    if qualified:
        best = max(qualified, key=lambda row: _mean_primary(row.key, tasks))
        cheapest = min((row for row in qualified if _holds(row.key, best.key, tasks)), key=_cost)
        chosen = _best_at_this_cost(cheapest, qualified, tasks)
    else:
        best, chosen = None, _fallback(tasks, have)
    return Verdict(
        strategy=chosen.strategy,
        row=chosen.key,
        sentence=_sentence(chosen, tasks),
        reasons=tuple(_reasons(chosen, best, candidates, qualified, tasks, have)),
        method=chosen.method,
        weight=chosen.weight,
        depth=chosen.depth,
        first_stage=chosen.first_stage,
        remaining={task.name: task.pairwise(NEW_NEW, chosen.key) for task in tasks},
        gain={task.name: task.row(chosen.key).against_old[task.primary] for task in tasks},
        judged=tasks[0].judged,
    )


# --- rules ------------------------------------------------------------------------------------


def qualifies(key: str, tasks: Sequence[TaskResult]) -> bool:
    """Whether a row is significantly better than old/old somewhere and significantly worse nowhere."""
    return better_in(key, tasks) != [] and worse_in(key, tasks) == []


def better_in(key: str, tasks: Sequence[TaskResult]) -> list[str]:
    """Tasks in which a row is significantly better than old/old on the primary metric, which is named."""
    return [
        f"{task.name} ({task.primary})"
        for task in tasks
        if task.row(key).against_old[task.primary].significantly_better
    ]


def worse_in(key: str, tasks: Sequence[TaskResult]) -> list[str]:
    """Tasks in which a row is significantly worse than old/old on any metric, with that metric."""
    return [
        f"{task.name} ({name})"
        for task in tasks
        for name, difference in task.row(key).against_old.items()
        if difference.significantly_worse
    ]


def _possible(row: RowResult, tasks: Sequence[TaskResult], have: Sequence[str]) -> bool:
    everywhere = all(any(other.key == row.key and other.metrics for other in task.rows) for task in tasks)
    return row.candidate and everywhere and set(row.needs) <= set(have)


def _holds(key: str, best: str, tasks: Sequence[TaskResult]) -> bool:
    return all(_keeps_up(key, best, task) for task in tasks)


def _keeps_up(key: str, best: str, task: TaskResult) -> bool:
    behind, gain = task.pairwise(key, best), task.row(best).against_old[task.primary].value
    return not behind.significantly_worse or -behind.value <= MARGIN * gain


def _best_at_this_cost(
    row: RowResult, qualified: Sequence[RowResult], tasks: Sequence[TaskResult]
) -> RowResult:
    """Of the rows that cost as much, the simplest that keeps up with the best of them."""
    peers = [other for other in qualified if _cost(other) == _cost(row)]
    best = max(peers, key=lambda other: _mean_primary(other.key, tasks))
    return next(other for other in peers if _holds(other.key, best.key, tasks))


def _cost(row: RowResult) -> tuple[int, int]:
    # min() keeps the first of equals: rows stand from simple to complex methods
    return CHEAPEST_FIRST.index(row.strategy), row.depth or 0


def _mean_primary(key: str, tasks: Sequence[TaskResult]) -> float:
    return sum(task.row(key).metrics[task.primary].value for task in tasks) / len(tasks)


def _fallback(tasks: Sequence[TaskResult], have: Sequence[str]) -> RowResult:
    backfill = RAW_ITEMS in have and qualifies(NEW_NEW, tasks)
    return tasks[0].row(NEW_NEW if backfill else OLD_OLD)


def _without(thing: str, tasks: Sequence[TaskResult], have: Sequence[str], verdict: Verdict) -> Alternative:
    rest = _decide(tasks, [other for other in have if other != thing])
    same = rest.row == verdict.row
    sentence = f"Without {thing} the verdict is the same." if same else f"Without {thing}: {rest.sentence}"
    return Alternative(thing, rest.strategy, rest.row, sentence)


# --- words ------------------------------------------------------------------------------------


def _sentence(row: RowResult, tasks: Sequence[TaskResult]) -> str:
    if row.strategy == "keep":
        return f"Keep the old model: {_why_keep(tasks)}"
    advice = f"{_advice(row)}: {_figures(row.key, tasks)}{_remaining(row, tasks)}."
    if tasks[0].judged:
        return advice
    return (
        f"{advice} This says how closely the new model is imitated, not whether search gets better: "
        "label or judge some queries before relying on it."
    )


def _advice(row: RowResult) -> str:
    if row.strategy == NATIVE:
        return f"Search the old gallery with queries of {row.method}, as they are"
    if row.strategy == "query":
        return f"Map new queries back with {row.method} and leave the gallery as it is"
    if row.strategy == "gallery":
        return f"Lift the stored gallery forward with {row.method}"
    if row.key.startswith("interpolate:"):
        return f"Interpolate old queries and those of {row.method} at weight {row.weight:g}"
    if row.strategy == "interpolate":
        return f"Interpolate old queries and new queries mapped by {row.method} at weight {row.weight:g}"
    if row.strategy == "cascade":
        how = "mapped" if row.first_stage == "query" else "interpolated"
        return f"Let the new model re-rank {row.depth} candidates that the {how} query ({row.method}) fetches"
    if row.strategy == "lifted-cascade":
        return (
            f"Lift the stored gallery forward with {row.method}, and let the new model re-rank {row.depth} "
            "candidates from it"
        )
    return "Do the full backfill, no bridge is better than the old model"


def _figures(key: str, tasks: Sequence[TaskResult]) -> str:
    """What changes on the primary metric of each task, and by which ground truth."""
    measured = [_change(task, key) for task in tasks]
    truths = list(dict.fromkeys(task.ground_truth for task in tasks))
    return f"{_listed(measured)}, by {_listed(truths)}"


def _change(task: TaskResult, key: str) -> str:
    row, before = task.row(key), task.row(OLD_OLD).metrics[task.primary].value
    now, difference = row.metrics[task.primary].value, row.against_old[task.primary]
    return f"{task.name} {task.primary} from {before:.3f} to {now:.3f} ({_span(difference)})"


def _why_keep(tasks: Sequence[TaskResult]) -> str:
    facts = _figures(NEW_NEW, tasks)
    if qualifies(NEW_NEW, tasks):
        return f"of what is at hand nothing is significantly better; only a full backfill would be ({facts})."
    return (
        "nothing is significantly better without being worse elsewhere, not even the new model on its own "
        f"gallery ({facts})."
    )


def _remaining(row: RowResult, tasks: Sequence[TaskResult]) -> str:
    if row.strategy == "backfill":
        return ""
    left = {task.name: task.pairwise(NEW_NEW, row.key) for task in tasks}
    more = [f"{_span(gain)} on {name}" for name, gain in left.items() if gain.significantly_better]
    if more:
        return f"; a full backfill would add {_listed(more)}"
    return "; these queries show nothing that a full backfill would add"


def _span(difference: Difference) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _reasons(
    chosen: RowResult,
    best: RowResult | None,
    candidates: Sequence[RowResult],
    qualified: Sequence[RowResult],
    tasks: Sequence[TaskResult],
    have: Sequence[str],
) -> list[str]:
    reasons = [
        f"{len(qualified)} of {len(candidates)} ways are significantly better than old/old in at least one "
        "task and significantly worse in none."
    ]
    if best is not None and best.key != chosen.key:
        behind = [f"{task.name} {_span(task.pairwise(chosen.key, best.key))}" for task in tasks]
        reasons.append(
            f"{best.title} measures highest; {chosen.title} is cheaper and keeps at least "
            f"{1 - MARGIN:.0%} of its gain, or is not significantly behind: {_listed(behind)}."
        )
    told = [
        *_rewriting(chosen, candidates, tasks),
        *_embedding(chosen, tasks),
        *_rejected(candidates, tasks),
        *_out_of_reach(have),
    ]
    return [*criterion(tasks), *reasons, *told, *_leaks(tasks)]


def _rewriting(chosen: RowResult, candidates: Sequence[RowResult], tasks: Sequence[TaskResult]) -> list[str]:
    """What a cascade over a lifted gallery costs more than one over the old gallery, and what it gains."""
    others = [row for row in candidates if row.strategy == "cascade"]
    if chosen.strategy != "lifted-cascade" or not others:
        return []
    best = max(others, key=lambda row: _mean_primary(row.key, tasks))
    ahead = [f"{task.name} {_span(task.pairwise(chosen.key, best.key))}" for task in tasks]
    return [
        "It writes the whole column anew and needs the raw items as well, where a cascade over the old "
        f"gallery writes nothing; over the best of those ({best.title}) it gains {_listed(ahead)}."
    ]


def _embedding(chosen: RowResult, tasks: Sequence[TaskResult]) -> list[str]:
    """So many queries against so small a gallery may touch nearly all of it; real traffic may not."""
    touched = [task for task in tasks if 2 * (task.row(chosen.key).embedded or 0) > task.n_gallery]
    if not touched:
        return []
    names = _listed([task.name for task in touched])
    return [
        f"Each query embeds at most {chosen.depth} items, fewer as vectors are kept. "
        f"Together the queries of {names} touch most of this gallery; where real traffic does so too, "
        "a full backfill costs no more."
    ]


def _leaks(tasks: Sequence[TaskResult]) -> list[str]:
    return [
        f"{task.queries_in_pairs} of the {task.n_queries} queries of {task.name} have exactly the vector of "
        "one of the pairs; fit on items that are no queries, else the maps look better than they are."
        for task in tasks
        if task.queries_in_pairs
    ]


def _rejected(candidates: Sequence[RowResult], tasks: Sequence[TaskResult]) -> list[str]:
    """Ways that help in one place and hurt in another; those that hurt in the same places together."""
    mixed: dict[str, list[str]] = {}
    for row in candidates:
        if (better := better_in(row.key, tasks)) and (worse := worse_in(row.key, tasks)):
            mixed.setdefault(
                f"better on {_listed(better)} but significantly worse on {_listed(worse)}", []
            ).append(row.title)
    return [f"{_listed(titles)}: {finding}." for finding, titles in mixed.items()]


def _out_of_reach(have: Sequence[str]) -> list[str]:
    missing = [thing for thing in EVERYTHING if thing not in have]
    return [f"Not considered, because there is no {thing}: every row that needs it." for thing in missing]
