"""Intervals cover what they say, tests are uniform when nothing differs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from crossfade.evaluation import Difference
from crossfade.evaluation.bootstrap import Groups, bootstrap, bootstrap_means
from crossfade.evaluation.significance import Contrasts, sign_flip_p, signed_totals, step_down


def test_the_interval_covers_the_true_mean_in_95_percent_of_samples() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        values = (rng.random(120) < 0.3).astype(float)
        estimate = bootstrap(values, samples=400, seed=seed)
        assert estimate.low <= estimate.value <= estimate.high
        covered += estimate.low <= 0.3 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.985


def test_a_bootstrap_mean_is_the_mean_of_a_resample() -> None:
    values = np.array([[0.0, 1.0, 3.0], [5.0, 5.0, 5.0]])
    means = bootstrap_means(values, samples=200, seed=1)
    possible = {sum(pick) / 3 for pick in itertools.product(values[0], repeat=3)}
    assert all(min(abs(mean - value) for value in possible) < 1e-12 for mean in means[:, 0])
    np.testing.assert_allclose(means[:, 1], 5)


def test_rows_share_their_resamples_and_the_seed_decides() -> None:
    values = np.random.default_rng(2).random((1, 50))
    both = bootstrap_means(np.concatenate([values, values + 0.1]), samples=50, seed=3)
    np.testing.assert_allclose(both[:, 1] - both[:, 0], 0.1)
    np.testing.assert_array_equal(
        bootstrap_means(values, samples=50, seed=3), bootstrap_means(values, samples=50, seed=3)
    )
    assert not np.array_equal(
        bootstrap_means(values, samples=50, seed=3), bootstrap_means(values, samples=50, seed=4)
    )


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random((3, 40))
    whole = bootstrap_means(values, samples=30, seed=0), signed_totals(values, permutations=30, seed=0)
    for module in ("bootstrap", "significance"):
        monkeypatch.setattr(f"crossfade.evaluation.{module}.CHUNK_NUMBERS", 40 * 7)
    assert bootstrap_means(values, samples=30, seed=0).shape == whole[0].shape
    np.testing.assert_allclose(
        bootstrap_means(values, samples=30, seed=0).mean(axis=0), whole[0].mean(axis=0), atol=0.05
    )
    assert signed_totals(values, permutations=30, seed=0).shape == whole[1].shape


def test_captions_of_one_image_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    per_image = (rng.random(60) < 0.5).astype(float)
    repeated, owner = np.repeat(per_image, 5), np.repeat(np.arange(60), 5)
    alone = bootstrap(repeated, seed=0)
    together = bootstrap(repeated, seed=0, groups=Groups(300, owner))
    images = bootstrap(per_image, seed=0)
    assert together.high - together.low > 1.7 * (alone.high - alone.low)
    assert (together.low, together.high) == pytest.approx((images.low, images.high))


def test_p_is_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    p = []
    for seed in range(400):
        difference = rng.standard_normal(30)
        flipped = signed_totals(difference[None, :], permutations=400, seed=seed)
        p.append(sign_flip_p(difference.sum(), flipped[:, 0]))
    share = [np.mean(np.array(p) <= level) for level in (0.05, 0.25, 0.5, 0.75)]
    np.testing.assert_allclose(share, [0.05, 0.25, 0.5, 0.75], atol=0.07)


def test_p_equals_the_exact_test_over_all_sign_patterns() -> None:
    difference = np.array([0.4, 0.1, -0.2, 0.5, 0.3, 0.2, -0.1, 0.6])
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12)
    flipped = signed_totals(difference[None, :], permutations=20_000, seed=0)
    assert sign_flip_p(difference.sum(), flipped[:, 0]) == pytest.approx(exact, abs=0.01)


def test_p_of_no_difference_is_one_and_never_zero() -> None:
    assert sign_flip_p(0.0, signed_totals(np.zeros((1, 20)), permutations=100)[:, 0]) == 1
    assert sign_flip_p(20.0, signed_totals(np.ones((1, 20)), permutations=100)[:, 0]) == pytest.approx(
        1 / 101
    )


def contrasts(differences: np.ndarray, seed: int = 0, permutations: int = 2000) -> Contrasts:
    flipped = signed_totals(differences, permutations=permutations, seed=seed)
    return Contrasts.of(range(len(differences)), differences, flipped)


def test_correction_holds_the_error_of_the_whole_family() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for seed in range(300):
        shared = rng.standard_normal(40)
        differences = 0.7 * shared + 0.7 * rng.standard_normal((10, 40))
        wrong += min(step_down(contrasts(differences, seed, 400)).values()) <= 0.05
    assert wrong / 300 <= 0.085


def test_correction_lies_between_no_correction_and_bonferroni() -> None:
    rng = np.random.default_rng(2)
    differences = rng.standard_normal((8, 60)) + np.linspace(0, 0.6, 8)[:, None]
    family = contrasts(differences)
    adjusted = step_down(family)
    raw = [(1 + np.sum(np.abs(family.flipped[:, i]) >= abs(family.observed[i]))) / 2001 for i in range(8)]
    for i in range(8):
        assert raw[i] <= adjusted[i] <= min(1, 8 * raw[i]) + 0.01
    order = np.argsort(-np.abs(family.observed))
    assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(order))


def test_copies_of_one_candidate_cost_nothing() -> None:
    difference = np.random.default_rng(3).standard_normal(50) + 0.4
    alone = step_down(contrasts(difference[None, :]))[0]
    copies = step_down(contrasts(np.tile(difference, (12, 1))))
    assert set(copies.values()) == {alone}


def test_families_of_several_tasks_are_one() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.standard_normal((3, 40)) + 0.5, rng.standard_normal((2, 70))
    joined = Contrasts.joined([contrasts(first, 1), contrasts(second, 2)])
    assert len(joined.names) == 5
    assert joined.flipped.shape == (2000, 5)
    np.testing.assert_allclose(joined.flipped.std(axis=0), 1, atol=0.06)


def test_better_needs_the_corrected_p_and_worse_does_not() -> None:
    better = Difference(0.05, 0.01, 0.09, p=0.01, p_adjusted=0.2)
    assert not better.significantly_better
    assert better.adjusted(0.04).significantly_better
    assert not Difference(0.05, -0.01, 0.11, p=0.01).significantly_better
    worse = Difference(-0.05, -0.09, -0.01, p=0.06, p_adjusted=0.5)
    assert worse.significantly_worse
    assert Difference(-0.05, -0.11, 0.01, p=0.04, p_adjusted=0.5).significantly_worse
    assert not Difference(-0.05, -0.11, 0.01, p=0.2).significantly_worse
