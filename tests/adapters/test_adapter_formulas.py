"""Every closed form against an independent route to the same answer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from adapter_kit import planted, unit
from sklearn.linear_model import Ridge as ReferenceRidge

from crossfade.adapters.kmeans import kmeans, squared_distances
from crossfade.adapters.linear import Affine, held_out_figures
from crossfade.adapters.local_experts import LocalExperts
from crossfade.adapters.low_rank import LowRank
from crossfade.adapters.prepared import PreparedPairs, RowSample, scale_to_unit
from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.ridge import STRENGTHS, Ridge, Spectrum, choose_strength
from crossfade.adapters.statistics import SplitStatistics, gather
from crossfade.errors import UsageError
from crossfade.vectors import ArrayPairs


def plain(n: int = 400, d_source: int = 12, d_target: int = 17, offset: float = 3.0) -> ArrayPairs:
    """Plain arrays with a large common offset and a noisy affine relation."""
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, d_source)) * np.linspace(0.2, 2, d_source) + offset
    Y = X @ rng.standard_normal((d_source, d_target)) + rng.standard_normal((n, d_target)) - offset
    return ArrayPairs(X, Y)


def split_rows(pairs: ArrayPairs, seed: int = 0) -> tuple[ArrayPairs, ArrayPairs]:
    mask = PreparedPairs(pairs).held_out(seed).mask(0, len(pairs))
    return pairs.take(np.flatnonzero(~mask)), pairs.take(np.flatnonzero(mask))


def statistics(pairs: ArrayPairs) -> SplitStatistics:
    return gather(PreparedPairs(pairs), seed=0)


# --- statistics -------------------------------------------------------------------------------


def test_moments_equal_those_of_the_rows() -> None:
    pairs = plain()
    X, Y = pairs.X.astype(np.float64), pairs.Y.astype(np.float64)
    whole = statistics(pairs).whole
    np.testing.assert_allclose(whole.x_mean, X.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(whole.y_mean, Y.mean(axis=0), rtol=1e-6)
    for x, y in [(0.0, 0.0), (X.mean(axis=0), Y.mean(axis=0)), (X[3], Y[5])]:
        moments = whole.about(x, y)
        np.testing.assert_allclose(moments.xx, (X - x).T @ (X - x), rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(moments.xy, (X - x).T @ (Y - y), rtol=1e-5, atol=2e-3)
        assert moments.yy == pytest.approx(np.square(Y - y).sum(), rel=1e-6)


def test_a_large_offset_costs_no_precision() -> None:
    pairs = plain(offset=0.0)
    far = ArrayPairs(pairs.X + 1000, pairs.Y)
    near, moved = statistics(pairs).whole, statistics(far).whole
    expected = near.about(near.x_mean, near.y_mean)
    found = moved.about(moved.x_mean, moved.y_mean)
    np.testing.assert_allclose(found.xx, expected.xx, rtol=1e-3, atol=0.02)


def test_held_out_error_needs_no_rows() -> None:
    fitting, held_out = split_rows(plain())
    weight = np.random.default_rng(2).standard_normal((12, 17))
    bias = np.random.default_rng(3).standard_normal(17)
    figures = held_out_figures(Affine(weight, bias), statistics(plain()))
    error = np.square(held_out.X @ weight + bias - held_out.Y).sum()
    variance = np.square(held_out.Y - fitting.Y.mean(axis=0)).sum()
    assert figures["pairs"] == len(held_out) == 80
    assert figures["squared error"] == pytest.approx(error / 80, rel=1e-5)
    assert figures["relative squared error"] == pytest.approx(error / variance, rel=1e-5)


# --- Procrustes -------------------------------------------------------------------------------


def test_procrustes_equals_scipy() -> None:
    pairs = plain(d_target=12)
    expected, _ = scipy.linalg.orthogonal_procrustes(pairs.X.astype(float), pairs.Y.astype(float))
    found = Procrustes(centred=False).fit_pairs(pairs)
    np.testing.assert_allclose(found.weight, expected, atol=1e-4)
    assert not found.bias.any()


def test_centred_procrustes_equals_scipy_about_the_means() -> None:
    pairs = plain(d_target=12)
    x_mean, y_mean = pairs.X.mean(axis=0, dtype=float), pairs.Y.mean(axis=0, dtype=float)
    expected, _ = scipy.linalg.orthogonal_procrustes(pairs.X - x_mean, pairs.Y - y_mean)
    found = Procrustes().fit_pairs(pairs)
    np.testing.assert_allclose(found.weight, expected, atol=1e-4)
    np.testing.assert_allclose(found.bias, y_mean - x_mean @ expected, atol=1e-3)


@pytest.mark.parametrize(("d_source", "d_target"), [(9, 15), (15, 9)])
def test_rectangular_procrustes_is_semi_orthogonal_and_optimal(d_source: int, d_target: int) -> None:
    pairs = plain(d_source=d_source, d_target=d_target)
    weight = Procrustes(centred=False).fit_pairs(pairs).weight.astype(float)
    inner = weight @ weight.T if d_source < d_target else weight.T @ weight
    np.testing.assert_allclose(inner, np.eye(len(inner)), atol=1e-5)
    agreement = np.vdot(weight, pairs.X.T @ pairs.Y)
    rng = np.random.default_rng(0)
    for _ in range(50):
        left, _, right = np.linalg.svd(rng.standard_normal(weight.shape) + weight, full_matrices=False)
        assert np.vdot(left @ right, pairs.X.T @ pairs.Y) <= agreement * (1 + 1e-6)


def test_scale_is_the_least_squares_one() -> None:
    pairs = plain(d_source=15, d_target=9)
    rotation = Procrustes(centred=False).fit_pairs(pairs).weight
    scaled = Procrustes(centred=False, scaled=True).fit_pairs(pairs).weight
    turned = pairs.X @ rotation
    expected = np.vdot(turned, pairs.Y) / np.vdot(turned, turned)
    np.testing.assert_allclose(scaled, rotation * expected, rtol=1e-4, atol=1e-6)


# --- ridge ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1e-4, 0.1, 3.0])
def test_ridge_equals_scikit_learn(strength: float) -> None:
    pairs = plain()
    centred = pairs.X - pairs.X.mean(axis=0, dtype=float)
    alpha = strength * np.square(centred).sum() / centred.shape[1]
    expected = ReferenceRidge(alpha=alpha).fit(pairs.X.astype(float), pairs.Y.astype(float))
    found = Ridge(strength=strength).fit_pairs(pairs)
    np.testing.assert_allclose(found.weight, expected.coef_.T, atol=2e-4)
    np.testing.assert_allclose(found.bias, expected.intercept_, atol=5e-3)


def test_chosen_strength_has_the_smallest_error_on_the_held_out_rows() -> None:
    pairs = plain(n=60, d_source=30)
    split = statistics(pairs)
    spectrum = Spectrum.of(split.fitting)
    _, held_out = split_rows(pairs)
    errors = []
    for strength in STRENGTHS:
        weight, bias = spectrum.solution(strength)
        errors.append(np.square(held_out.X @ weight + bias - held_out.Y).sum())
    assert choose_strength(spectrum, split.held_out) == STRENGTHS[np.argmin(errors)]
    assert 1e-6 < STRENGTHS[np.argmin(errors)] < 100


def test_ridge_survives_components_without_variance() -> None:
    pairs = plain()
    X = np.hstack([pairs.X, np.ones((len(pairs), 3)), pairs.X[:, :2]])
    mapped = Ridge().fit(X, pairs.Y).transform(X)
    np.testing.assert_allclose(mapped, Ridge().fit_pairs(pairs).transform(pairs.X), atol=0.1)


def test_uncertainty_is_predictive_variance() -> None:
    pairs = plain()
    adapter = Ridge(strength=0.1).fit_pairs(pairs)
    X = pairs.X.astype(float)
    centred = X - X.mean(axis=0)
    scatter = centred.T @ centred
    inverse = np.linalg.inv(scatter + 0.1 * np.trace(scatter) / 12 * np.eye(12))
    leverage = np.einsum("ni,ij,nj->n", centred, inverse, centred)
    expected = adapter.held_out["squared error"] * (1 + leverage)
    np.testing.assert_allclose(adapter.uncertainty(pairs.X), expected, rtol=1e-3)


def test_uncertainty_orders_far_vectors_last() -> None:
    pairs = planted(noise=0.05)
    narrow = ArrayPairs(pairs.X * np.linspace(1, 0.02, 24), pairs.Y, source=pairs.source, target=pairs.target)
    adapter = Ridge().fit_pairs(narrow)
    assert adapter.uncertainty(np.eye(24)[-3:]).min() > adapter.uncertainty(narrow.X).mean()


# --- low rank ---------------------------------------------------------------------------------


def test_low_rank_without_penalty_equals_reduced_rank_regression() -> None:
    pairs = plain()
    X = pairs.X - pairs.X.mean(axis=0, dtype=float)
    Y = pairs.Y - pairs.Y.mean(axis=0, dtype=float)
    least_squares = np.linalg.lstsq(X, Y, rcond=None)[0]
    _, _, right = np.linalg.svd(X @ least_squares, full_matrices=False)
    expected = least_squares @ right[:4].T @ right[:4]
    found = LowRank(rank=4, strength=0).fit_pairs(pairs)
    np.testing.assert_allclose(found.weight, expected, atol=2e-3)
    assert np.linalg.matrix_rank(found.weight, tol=1e-3) == 4
    assert found.arrays["down"].shape == (12, 4)


def test_full_rank_equals_ridge() -> None:
    pairs = plain()
    low, full = LowRank(rank=99).fit_pairs(pairs), Ridge().fit_pairs(pairs)
    assert low.chosen == {**full.chosen, "rank": 12}
    np.testing.assert_allclose(low.transform(pairs.X), full.transform(pairs.X), rtol=1e-3, atol=1e-2)


# --- k-means and local experts ----------------------------------------------------------------


def blobs() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    return (centres[np.repeat(np.arange(3), 50)] + rng.normal(0, 0.5, (150, 2))).astype(np.float32)


def test_squared_distances_equal_the_naive_ones() -> None:
    X = blobs()
    naive = [[float(np.square(x - c).sum()) for c in X[:4]] for x in X]
    np.testing.assert_allclose(squared_distances(X, X[:4]), naive, atol=1e-3)


def test_kmeans_finds_planted_clusters() -> None:
    centres = kmeans(blobs(), 3, seed=0)
    expected = [[0, 0], [0, 10], [10, 0]]
    np.testing.assert_allclose(
        centres[np.lexsort((centres[:, 1], centres[:, 0].round()))], expected, atol=0.4
    )


def test_kmeans_survives_more_clusters_than_distinct_rows() -> None:
    assert np.isfinite(kmeans(np.ones((10, 3), dtype=np.float32), 4, seed=0)).all()


def test_experts_beat_one_rotation_where_regions_turn_differently() -> None:
    rng = np.random.default_rng(0)
    region = rng.integers(0, 2, 2000)
    X = rng.standard_normal((2000, 8))
    X[:, 0] += np.where(region == 1, 6, -6)
    turns = [np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(2)]
    pairs = ArrayPairs(X, np.stack([x @ turns[r] for x, r in zip(X, region, strict=True)]))
    local = LocalExperts(clusters=2, expert="procrustes").fit_pairs(pairs)
    one = Procrustes().fit_pairs(pairs)
    assert local.held_out["relative squared error"] < 0.2 * one.held_out["relative squared error"]


def test_strong_shrinkage_gives_the_global_map() -> None:
    pairs = planted(noise=0.2)
    local = LocalExperts(clusters=4, expert="procrustes", shrinkage=1e7).fit_pairs(pairs)
    expected = Procrustes().fit_pairs(pairs)
    np.testing.assert_allclose(local.transform(pairs.X), expected.transform(pairs.X), atol=1e-4)


def test_direction_chooses_the_kind_of_expert() -> None:
    pairs = planted(noise=0.2)
    for direction, expert in (("forward", "ridge"), ("backward", "procrustes")):
        by_direction = LocalExperts(clusters=2, direction=direction).fit_pairs(pairs)
        by_name = LocalExperts(clusters=2, expert=expert).fit_pairs(pairs)  # type: ignore[arg-type]
        assert by_direction.arrays["weights"].tobytes() == by_name.arrays["weights"].tobytes()
    with pytest.raises(UsageError, match="'sideways'"):
        LocalExperts(direction="sideways")


def test_routing_is_a_distribution_that_hardens_with_low_temperature() -> None:
    pairs = planted()
    soft = LocalExperts(clusters=4, temperature=1.0).fit_pairs(pairs)._routing(unit(pairs.X))
    hard = LocalExperts(clusters=4, temperature=1e-4).fit_pairs(pairs)._routing(unit(pairs.X))
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)
    assert hard.max(axis=1).mean() > 0.99 > soft.max(axis=1).mean()


def test_uncertainty_of_experts_is_larger_where_the_pairs_are_noisier() -> None:
    rng = np.random.default_rng(0)
    noisy = np.arange(1000) % 2 == 1
    X = rng.standard_normal((1000, 6)) + np.where(noisy, 5, -5)[:, None]
    Y = X + rng.standard_normal(X.shape) * np.where(noisy, 1.0, 0.01)[:, None]
    expected = LocalExperts(clusters=2).fit(X, Y).uncertainty(X)
    assert expected[noisy].mean() > 100 * expected[~noisy].mean()


# --- choice of rows, options ------------------------------------------------------------------


def test_row_sample_is_seeded_exact_and_without_repeats() -> None:
    sample = RowSample.choose(1000, 0.2, 4096, seed=1)
    assert len(sample) == len(np.unique(sample.rows)) == 200
    assert (sample.rows == RowSample.choose(1000, 0.2, 4096, seed=1).rows).all()
    assert (sample.rows != RowSample.choose(1000, 0.2, 4096, seed=2).rows).any()
    assert len(RowSample.choose(10**6, 0.2, 4096, seed=0)) == 4096
    masks = np.concatenate([sample.mask(start, 64) for start in range(0, 1000, 64)])
    assert (np.flatnonzero(masks) == sample.rows).all()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Ridge(strength=-1), "0 or more, got -1"),
        (lambda: LowRank(rank=0), "at least 1, got 0"),
        (lambda: LowRank(strength=float("nan")), "0 or more, got nan"),
        (lambda: LocalExperts(clusters=0), "at least 1, got 0"),
        (lambda: LocalExperts(expert="lasso"), "procrustes, ridge, got 'lasso'"),  # type: ignore[arg-type]
        (lambda: LocalExperts(temperature=0), "above 0"),
    ],
)
def test_refuses_impossible_options(make: object, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("length", [1e-35, 1e-20, 1.0, 1e20, 1e35])
def test_unit_length_of_vectors_of_any_size(length: float) -> None:
    direction = np.array([[0.6, -0.8]], dtype=np.float32)
    matrix = np.vstack([direction * np.float32(length), direction])
    np.testing.assert_allclose(scale_to_unit(matrix), np.vstack([direction, direction]), rtol=1e-5)
    assert not scale_to_unit(np.zeros((1, 3), dtype=np.float32)).any()
