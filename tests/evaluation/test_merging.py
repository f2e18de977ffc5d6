"""Rows of different origin in one ranking: scales, ranks, the choice, and vectors that are levelled."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossfade.errors import DataError, UsageError
from crossfade.evaluation.levelling import fit_levelling, quiet_direction
from crossfade.evaluation.merging import (
    LIFTED,
    METHODS,
    OLD,
    RANKS,
    RAW,
    RE_EMBEDDED,
    Merge,
    MixedRows,
    Scale,
    choose_merge,
    fit_merge,
    fit_scale,
)


def unit(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), dtype=np.float32)


def gallery(count: int = 400, seed: int = 0, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """New vectors with a common direction, and lifted ones, which are nearer to the mean."""
    rng = np.random.default_rng(seed)
    known, rest = rng.standard_normal((count, 32)), rng.standard_normal((count, 32))
    scale = np.linspace(1.0, 0.05, 32)  # models do not use all directions alike
    common = np.zeros(32)
    common[0] = 2.0
    return unit(common + (known + noise * rest) * scale), unit(common + known * scale)


def scores(count: int = 400, seed: int = 0) -> dict[int, np.ndarray]:
    new, lifted = gallery(count, seed)
    return {RE_EMBEDDED: new @ new.T, LIFTED: new @ lifted.T}


def some_again(count: int, share: float = 0.5) -> np.ndarray:
    origins = np.full(count, LIFTED)
    origins[np.random.default_rng(1).permutation(count)[: round(share * count)]] = RE_EMBEDDED
    return origins


# --- scales -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["z", "quantile", "expected"])
def test_a_planted_line_is_recovered(method: str) -> None:
    new = np.random.default_rng(0).normal(0.4, 0.1, 20_000).astype(np.float32)
    scale = fit_scale(method, (new - 0.2) / 3, new)
    asked = np.array([-0.4, 0.0, 0.05, 0.1, 0.3, 0.6])  # also beyond the sample: straight on
    np.testing.assert_allclose(scale(asked), 3 * asked + 0.2, atol=0.02)


def test_only_the_quantile_follows_a_curve() -> None:
    new = np.random.default_rng(0).normal(0.4, 0.1, 20_000)
    own = np.exp(3 * new)
    asked = np.quantile(new, [0.05, 0.5, 0.9, 0.99, 0.999])
    np.testing.assert_allclose(fit_scale("quantile", own, new)(np.exp(3 * asked)), asked, atol=0.01)


def test_the_expected_score_of_a_noisy_one_is_nearer_to_the_mean() -> None:
    rng = np.random.default_rng(0)
    new = rng.normal(0, 1, 50_000)
    own = new + rng.normal(0, 1, 50_000)
    assert fit_scale("expected", own, new)(np.array([2.0]))[0] == pytest.approx(1.0, abs=0.15)
    assert fit_scale("quantile", own, new)(np.array([2.0]))[0] == pytest.approx(np.sqrt(2), abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_within_an_origin_stays(method: str) -> None:
    given, origins = scores(), some_again(400)
    mixed = np.where(origins == RE_EMBEDDED, given[RE_EMBEDDED], given[LIFTED]).astype(np.float32)
    merged = fit_merge(method, given, np.arange(400))(mixed, origins)
    for origin in (RE_EMBEDDED, LIFTED):
        before, after = mixed[:20, origins == origin], merged[:20, origins == origin]
        order = np.argsort(-before, axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(after, order, axis=1), axis=1) <= 0).all()


def test_equal_scores_have_no_scale() -> None:
    with pytest.raises(UsageError, match="do not vary"):
        fit_scale("z", np.ones(100), np.random.default_rng(0).normal(size=100))


def test_ranks_are_apart_and_a_query_itself_stays_out() -> None:
    origins = np.array([RE_EMBEDDED, LIFTED, RE_EMBEDDED, OLD, LIFTED])
    merged = Merge(RANKS)(np.array([[0.1, 0.9, 0.5, -np.inf, 0.8]]), origins)
    np.testing.assert_allclose(merged, [[1 / 62, 1 / 61, 1 / 61, -np.inf, 1 / 62]])


def test_the_pair_of_a_query_with_itself_tells_no_scale() -> None:
    given = scores()
    spoiled = {one: values.copy() for one, values in given.items()}
    for values in spoiled.values():
        np.fill_diagonal(values, 1e6)
    assert fit_merge("z", spoiled, np.arange(400)) == fit_merge("z", given, np.arange(400))


def test_a_merge_survives_json_and_nothing_else_is_read() -> None:
    merge = fit_merge("quantile", scores())
    assert Merge.from_dict(json.loads(json.dumps(merge.to_dict()))) == merge
    for wrong in (
        {"method": "magic", "scales": {}},
        {"method": "z", "scales": {"moon": {"x": [0, 1], "y": [0, 1]}}},
        {"method": "z", "scales": {"lifted": {"x": [0], "y": [0]}}},
        {"method": "z", "scales": {"lifted": {"x": [1, 0], "y": [0, 1]}}},
        {"method": "z", "scales": {"lifted": {"x": [0, 1], "y": [0, float("nan")]}}},
    ):
        with pytest.raises(ValueError, match=r"not known|at least two|do not rise"):
            Merge.from_dict(wrong)
    assert Scale((0.0, 1.0), (0.0, 2.0))(np.array([-1.0, 0.5, 3.0])).tolist() == [-2.0, 1.0, 6.0]


# --- the choice -------------------------------------------------------------------------------


def test_the_best_merge_is_chosen_and_reported() -> None:
    given, origins = scores(), some_again(400)
    found = choose_merge(given, origins, own=np.arange(400), samples=200)
    best = max(found.quality, key=lambda name: found.quality[name].value)
    assert found.merge.method == best != RAW
    assert found.against_raw[best].significantly_better
    assert set(found.quality) == set(METHODS)
    assert found.share == 0.5
    assert json.loads(json.dumps(found.to_dict()))["items"] == 400


def test_where_nothing_is_mixed_scores_stay_raw() -> None:
    found = choose_merge(scores(), np.full(400, LIFTED), own=np.arange(400), samples=50)
    assert found.merge == Merge()


def test_queries_are_scored_with_scales_that_others_gave() -> None:
    """What one half of the queries says is used on the other: its own scores do not matter."""
    given, origins = scores(), some_again(400)
    rows = MixedRows(given, origins, methods=("z",))
    half = np.flatnonzero(rows.folds == 0)
    changed = {one: values.copy() for one, values in given.items()}
    changed[LIFTED][half] *= 3
    key, before = next(iter(rows.blocks(slice(0, 400))))
    _, after = next(iter(MixedRows(changed, origins, methods=("z",)).blocks(slice(0, 400))))
    assert key == "z"
    lifted = origins == LIFTED
    expected = fit_merge("z", {one: values[rows.folds == 1] for one, values in given.items()})
    scaled = expected.scales["lifted"](changed[LIFTED][half][:, lifted])
    np.testing.assert_allclose(after[half][:, lifted], scaled, atol=1e-6)
    assert not np.allclose(before[half][:, lifted], after[half][:, lifted])


# --- levelled vectors -------------------------------------------------------------------------


def test_levelled_vectors_score_like_re_embedded_ones() -> None:
    (new, lifted), (test_new, test_lifted) = gallery(600, 1), gallery(400, 2)
    level = fit_levelling(lifted, new, new)
    moved = level(test_lifted)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    others = ~np.eye(400, dtype=bool)
    whole, plain, after = ((test_new @ one.T)[others] for one in (test_new, test_lifted, moved))
    assert abs(after.mean() - whole.mean()) < 0.15 * abs(plain.mean() - whole.mean())
    assert abs(after.std() - whole.std()) < 0.05


def test_levelling_brings_re_embedded_rows_back_into_the_results() -> None:
    (new, lifted), (test_new, test_lifted) = gallery(600, 1), gallery(400, 2)
    moved = fit_levelling(lifted, new, new)(test_lifted)
    origins = some_again(400)
    raw = {
        name: choose_merge(
            {RE_EMBEDDED: test_new @ test_new.T, LIFTED: test_new @ one.T},
            origins,
            own=np.arange(400),
            samples=200,
        ).quality[RAW]
        for name, one in (("plain", test_lifted), ("levelled", moved))
    }
    assert raw["levelled"].low > raw["plain"].high


def test_the_order_of_levelled_rows_is_very_nearly_what_it_was() -> None:
    (new, lifted), (test_new, test_lifted) = gallery(600, 1), gallery(400, 2)
    moved = fit_levelling(lifted, new, new)(test_lifted)
    before, after = np.argsort(-(test_new @ test_lifted.T)), np.argsort(-(test_new @ moved.T))
    shared = [
        len(set(a[:10]) & set(b[:10])) / 10 for a, b in zip(before.tolist(), after.tolist(), strict=True)
    ]
    assert np.mean(shared) > 0.85


def test_the_quiet_direction_is_where_nothing_varies() -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 16)) * np.linspace(1, 0.01, 16)
    mean = np.eye(16)[0]
    found = quiet_direction(vectors.astype(np.float32), mean)
    assert np.linalg.norm(found) == pytest.approx(1)
    assert abs(found @ mean) < 1e-9
    assert (vectors @ found).std() < 0.02


def test_too_few_or_equal_items_cannot_be_levelled() -> None:
    new, lifted = gallery(99)
    with pytest.raises(DataError, match="99 items are too few to level"):
        fit_levelling(lifted, new, new)
    same = np.ones((120, 8), dtype=np.float32)
    with pytest.raises(DataError, match="do not vary"):
        fit_levelling(same, same, same)
