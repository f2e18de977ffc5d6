"""Evaluate every way out on the user's own queries, and say which to take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import METHODS, Adapter
from crossfade.errors import UsageError
from crossfade.evaluation.assemble import assemble, candidates, correct_for_candidates
from crossfade.evaluation.backfill_curve import backfill_curve
from crossfade.evaluation.crossfit import CrossFit, cross_fit
from crossfade.evaluation.curves import BackfillCurve
from crossfade.evaluation.fit import (
    FittedMaps,
    Progress,
    add_fitted,
    fit_maps,
    queries_in_pairs,
    without_prompt,
)
from crossfade.evaluation.matrix import Interpolation, TaskMatrix
from crossfade.evaluation.mixture import HeldOut
from crossfade.evaluation.result import OLD_ENCODER, RAW_ITEMS, Evaluation, TaskResult
from crossfade.evaluation.significance import Contrasts
from crossfade.evaluation.task import RetrievalTask
from crossfade.evaluation.unseen import unseen_items
from crossfade.evaluation.verdict import decide
from crossfade.spaces import Space
from crossfade.vectors import Pairs

DEPTHS = (20, 50, 100, 200)
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def evaluate(
    tasks: Sequence[RetrievalTask],
    pairs: Pairs | None,
    *,
    methods: Sequence[str] | None = None,
    adapters: Sequence[Adapter] = (),
    depths: Sequence[int] = DEPTHS,
    weights: Sequence[float] = WEIGHTS,
    seed: int = 0,
    samples: int = 1000,
    have: Sequence[str] = (RAW_ITEMS, OLD_ENCODER),
    curves: bool = False,
    held_out: Pairs | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the whole query/gallery matrix of every task and decide.

    Every map is fitted on the pairs alone. The maps that feed interpolation and cascades, and the
    weight of the interpolation, are chosen by cross-fitting over halves of the queries, for all tasks
    together, so that no query is scored with a choice that it took part in.

    Args:
        tasks: at least one, all between the same two spaces.
        pairs: old → new vectors of items that are no queries; None if only `adapters`, or the tasks'
            compatible models, are evaluated.
        methods: names of the methods to fit; all by default.
        adapters: fitted ones, in either direction, to evaluate beside (or in place of) the fitted methods.
        depths: numbers of candidates of the cascades.
        weights: of the mapped query in the interpolation; none for no interpolation with compatible models.
        seed: of fits, folds, resamples and permutations.
        samples: bootstrap resamples.
        have: what is at hand beside the new encoder: ``raw items``, ``old encoder`` (at query time).
        curves: also measure quality against the share of the gallery that is embedded again, for the best
            forward map that predicts its uncertainty (the best of all, if none does). How lifted and
            re-embedded rows come into one ranking there is chosen on pairs that are neither queries nor in
            the gallery, lifted by a map that was fitted without them.
        held_out: old → new vectors of items that no map was fitted on, in place of those pairs.
        progress: called as ``progress(stage, done, total)``; stages fit, measure, test and backfill.

    Raises:
        UsageError: no task, two tasks of one name, an unknown method, or something unknown in `have`.
        SpaceMismatch, DimensionMismatch: tasks or pairs of different spaces.
        DataError: a task in which nothing is relevant to any query.
    """
    start, report = time.perf_counter(), progress or (lambda stage, done, total: None)
    _require(tasks, pairs, have)
    if held_out is not None:
        _require_between(tasks[0], held_out, "held-out items")
    maps = fit_maps(pairs, methods, seed=seed, progress=report)
    add_fitted(maps, adapters, *_spaces(tasks[0]))
    maps.sort()
    compatible = _compatible(tasks, maps)
    matrices = [TaskMatrix(task, seed) for task in tasks]
    _measure(matrices, maps, tuple(depths), tuple(weights), seed, report)
    family = Contrasts.joined([candidates(matrix, i, seed=seed) for i, matrix in enumerate(matrices)])
    assembled = _assemble(matrices, pairs, samples, seed, report)
    results = correct_for_candidates(assembled, family)
    known = _Unseen(pairs, held_out, tuple(adapters))
    measured = _curves(tasks, maps, results, known, samples, seed, report) if curves else ()
    return Evaluation(
        tasks=results,
        verdict=decide(results, have),
        pairs=0 if pairs is None else len(pairs),
        old=_spaces(tasks[0])[0],
        new=_spaces(tasks[0])[1],
        fits=tuple(maps.fits),
        skipped=tuple(maps.skipped),
        seed=seed,
        samples=samples,
        seconds=time.perf_counter() - start,
        curves=measured,
        compatible=compatible,
        adapters=maps.by_row(),
    )


@dataclass(frozen=True)
class _Unseen:
    """Where items come from that a map has not seen."""

    pairs: Pairs | None
    held_out: Pairs | None
    adapters: tuple[Adapter, ...]

    def of(self, task: RetrievalTask, adapter: Adapter, seed: int) -> tuple[HeldOut | None, str]:
        elsewhere = any(adapter is given for given in self.adapters)
        return unseen_items(task, adapter, self.pairs, held_out=self.held_out, elsewhere=elsewhere, seed=seed)


def _curves(
    tasks: Sequence[RetrievalTask],
    maps: FittedMaps,
    results: Sequence[TaskResult],
    unseen: _Unseen,
    samples: int,
    seed: int,
    progress: Progress,
) -> tuple[BackfillCurve, ...]:
    if not maps.forward:
        raise UsageError("a backfill curve begins with a lifted gallery, but no forward map was fitted")
    predicting = [name for name, adapter in maps.forward.items() if adapter.has_uncertainty]

    def quality(name: str) -> float:
        return sum(task.row(f"gallery:{name}").metrics[task.primary].value for task in results)

    adapter = maps.forward[max(predicting or maps.forward, key=quality)]
    found = []
    for done, task in enumerate(tasks):
        progress("backfill", done, len(tasks))
        items, reason = unseen.of(task, adapter, seed)
        found.append(backfill_curve(task, adapter, held_out=items, reason=reason, samples=samples, seed=seed))
    progress("backfill", len(tasks), len(tasks))
    return tuple(found)


def _measure(
    matrices: Sequence[TaskMatrix],
    maps: FittedMaps,
    depths: tuple[int, ...],
    weights: tuple[float, ...],
    seed: int,
    progress: Progress,
) -> None:
    steps: list[Callable[[TaskMatrix], None]] = [lambda m: m.add_baselines(seed)]
    steps += [_adding_query(method, adapter) for method, adapter in maps.backward.items()]
    steps += [_adding_gallery(method, adapter) for method, adapter in maps.forward.items()]
    names = list(dict.fromkeys(name for matrix in matrices for name in matrix.task.compatible))
    steps += [_adding_compatible(name) for name in names]
    total = len(matrices) * (len(steps) + (len(weights) + 3 if maps.backward else 1) + bool(maps.forward))
    done = _run(steps, matrices, progress, 0, total)
    last = [_adding_mix(name, matrices, weights) for name in names if weights] + [TaskMatrix.add_backfill]
    if maps.backward:
        method = _choose_method(matrices, list(maps.backward), "query")
        mix = _choose_interpolation(matrices, method, weights)
        done += len(matrices) * len(weights)
        last = [
            lambda m: m.add_interpolation(mix),
            lambda m: m.add_cascade_by_query(method, depths),
            lambda m: m.add_cascade_by_interpolation(mix, depths),
            *last,
        ]
    if maps.forward:
        lifting = _choose_method(matrices, list(maps.forward), "gallery")
        last.insert(-1, lambda m: m.add_cascade_by_gallery(lifting, maps.forward, depths))
    _run(last, matrices, progress, done, total)


def _adding_query(method: str, adapter: Adapter) -> Callable[[TaskMatrix], None]:
    return lambda matrix: matrix.add_query(method, adapter)


def _adding_gallery(method: str, adapter: Adapter) -> Callable[[TaskMatrix], None]:
    return lambda matrix: matrix.add_gallery(method, adapter)


def _adding_compatible(name: str) -> Callable[[TaskMatrix], None]:
    return lambda matrix: matrix.add_compatible(name) if name in matrix.task.compatible else None


def _adding_mix(
    name: str, matrices: Sequence[TaskMatrix], weights: Sequence[float]
) -> Callable[[TaskMatrix], None]:
    """Interpolation of old queries with those of a compatible model, the weight chosen as for a map."""
    asked = [matrix for matrix in matrices if name in matrix.task.compatible]
    mix = _choose_interpolation(asked, CrossFit((name, name), name), weights)

    def add(matrix: TaskMatrix) -> None:
        if name in matrix.task.compatible:
            matrix.add_interpolation(mix, f"interpolate:{name}")

    return add


def _compatible(tasks: Sequence[RetrievalTask], maps: FittedMaps) -> dict[str, Space]:
    """Spaces of the compatible models by name.

    Raises:
        UsageError: a name that a map has too, or one model of two spaces.
    """
    spaces: dict[str, Space] = {}
    for task in tasks:
        for name, given in task.compatible.items():
            space = without_prompt(given.queries.space)
            if name in {*METHODS, *maps.backward, *maps.forward} or ":" in name or not name:
                raise UsageError(
                    f"{name!r} cannot name a compatible model: it is empty, has a colon, or is a map's name; "
                    "choose another"
                )
            spaces.setdefault(name, space).require_same(space, f"task {task.name!r}, {name}")
    return spaces


def _run(
    steps: Sequence[Callable[[TaskMatrix], None]],
    matrices: Sequence[TaskMatrix],
    progress: Progress,
    done: int,
    total: int,
) -> int:
    for step in steps:
        for matrix in matrices:
            step(matrix)
            done += 1
            progress("measure", min(done, total), total)
    return done


def _choose_method(matrices: Sequence[TaskMatrix], methods: Sequence[str], rows: str) -> CrossFit[str]:
    """The best of the rows ``ROWS:METHOD``, by the other half of the queries."""
    deciding = _deciding(matrices)

    def values(method: str) -> list[NDArray[np.float64]]:
        return [matrix.primary(f"{rows}:{method}") for matrix in deciding]

    return cross_fit(methods, values, [matrix.folds for matrix in deciding])


def _choose_interpolation(
    matrices: Sequence[TaskMatrix], method: CrossFit[str], weights: Sequence[float]
) -> CrossFit[Interpolation]:
    """The weight for the map that the same queries chose: neither choice sees the queries it is scored on."""
    deciding = _deciding(matrices)
    folds = [matrix.folds for matrix in deciding]
    chosen: dict[str, CrossFit[Interpolation]] = {}
    for name in {*method.for_fold, method.final}:
        choices = [Interpolation(name, weight) for weight in sorted(weights)]
        chosen[name] = cross_fit(choices, lambda c: [m.try_interpolation(c) for m in deciding], folds)
    per_fold = tuple(chosen[name].for_fold[fold] for fold, name in enumerate(method.for_fold))
    return CrossFit(per_fold, chosen[method.final].final)


def _deciding(matrices: Sequence[TaskMatrix]) -> Sequence[TaskMatrix]:
    judged = [matrix for matrix in matrices if matrix.task.ground_truth.kind != "neighbours"]
    return judged or matrices


def _assemble(
    matrices: Sequence[TaskMatrix], pairs: Pairs | None, samples: int, seed: int, progress: Progress
) -> list[TaskResult]:
    results = []
    for done, matrix in enumerate(matrices):
        progress("test", done, len(matrices))
        result = assemble(matrix, samples=samples, seed=seed)
        leaked = queries_in_pairs(matrix.task.queries_new, pairs)
        results.append(replace(result, queries_in_pairs=leaked))
    progress("test", len(matrices), len(matrices))
    return results


def _spaces(task: RetrievalTask) -> tuple[Space, Space]:
    return without_prompt(task.gallery_old.space), without_prompt(task.gallery_new.space)


def _require(tasks: Sequence[RetrievalTask], pairs: Pairs | None, have: Sequence[str]) -> None:
    if not tasks:
        raise UsageError("nothing to evaluate: pass at least one task")
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise UsageError(f"tasks need different names, got {', '.join(names)}")
    unknown = sorted(set(have) - {RAW_ITEMS, OLD_ENCODER})
    if unknown:
        raise UsageError(f"have={unknown} is not known; say {RAW_ITEMS!r} and/or {OLD_ENCODER!r}")
    old, new = _spaces(tasks[0])
    for task in tasks[1:]:
        old.require_same(_spaces(task)[0], f"task {task.name!r}, old model")
        new.require_same(_spaces(task)[1], f"task {task.name!r}, new model")
    if pairs is not None:
        _require_between(tasks[0], pairs, "pairs")


def _require_between(task: RetrievalTask, pairs: Pairs, what: str) -> None:
    """Refuse pairs of other spaces than the task's, where they say which."""
    if pairs.source is not None and pairs.target is not None:
        old, new = _spaces(task)
        old.require_same(without_prompt(pairs.source), f"{what}, old model")
        new.require_same(without_prompt(pairs.target), f"{what}, new model")
