from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.errors import DimensionMismatch, InvalidVectors, MissingExtra, UsageError
from crossfade.evaluation import search
from crossfade.evaluation.search import Engine
from crossfade.spaces import Metric, Space
from crossfade.vectors import Vectors

ENGINES: tuple[Engine, ...] = ("faiss", "numpy")
METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")


def full_sort(
    queries: np.ndarray, gallery: np.ndarray, k: int, metric: Metric
) -> tuple[np.ndarray, np.ndarray]:
    q, g = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        q, g = q / np.linalg.norm(q, axis=1, keepdims=True), g / np.linalg.norm(g, axis=1, keepdims=True)
    scores = q @ g.T
    if metric == "l2":
        scores = 2 * scores - (q**2).sum(axis=1)[:, None] - (g**2).sum(axis=1)
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, positions, axis=1), positions


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("n_queries", "n_gallery", "k"), [(1, 50, 1), (7, 3000, 10), (300, 9000, 100), (3, 5, 9)]
)
def test_search_equals_a_full_sort(
    engine: Engine, metric: Metric, n_queries: int, n_gallery: int, k: int
) -> None:
    rng = np.random.default_rng(n_gallery)
    queries = rng.standard_normal((n_queries, 16)).astype(np.float32)
    gallery = (rng.standard_normal((n_gallery, 16)) * rng.uniform(0.5, 2, (n_gallery, 1))).astype(np.float32)
    scores, positions = search(queries, gallery, k, metric, engine=engine)
    expected, expected_positions = full_sort(queries, gallery, k, metric)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert np.mean(positions == expected_positions) > 0.999  # rounding may swap two neighbours


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_numpy_search_equals_a_stable_sort_when_scores_tie(metric: Metric, data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    k = data.draw(st.integers(1, 50))
    whole = st.integers(-2, 2)
    queries = np.array(data.draw(st.lists(st.lists(whole, min_size=3, max_size=3), min_size=n, max_size=n)))
    gallery = np.array(data.draw(st.lists(st.lists(whole, min_size=3, max_size=3), min_size=m, max_size=m)))
    if metric == "cosine":  # unit vectors along the axes: their cosines are exact
        queries, gallery = np.eye(3)[np.abs(queries[:, 0])], np.eye(3)[np.abs(gallery[:, 0])]
    q, g = queries.astype(np.float32), gallery.astype(np.float32)
    scores, positions = search(q, g, k, metric, engine="numpy")
    expected, expected_positions = full_sort(q, g, k, metric)
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(positions, expected_positions)


@pytest.mark.parametrize("engine", ENGINES)
def test_tied_items_come_by_position(engine: Engine) -> None:
    gallery = np.tile(np.eye(4, dtype=np.float32), (25, 1))
    scores, positions = search(np.eye(4, dtype=np.float32)[:1], gallery, 25, "dot", engine=engine)
    np.testing.assert_array_equal(positions[0], np.arange(0, 100, 4))
    assert (scores == 1).all()


@pytest.mark.parametrize("metric", METRICS)
def test_numpy_search_is_exact_over_many_blocks(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["crossfade.evaluation.search"]
    monkeypatch.setattr(module, "THRESHOLD_COLUMNS", 64)
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 8 * 100)
    monkeypatch.setattr(module, "QUERY_ROWS", 8)
    rng = np.random.default_rng(0)
    queries, gallery = rng.integers(-3, 4, (21, 5)), rng.integers(-3, 4, (1003, 5))
    gallery[(gallery == 0).all(axis=1)] = 1
    queries[(queries == 0).all(axis=1)] = 1
    q, g = queries.astype(np.float32), gallery.astype(np.float32)
    scores, positions = search(q, g, 30, metric, engine="numpy")
    expected, expected_positions = full_sort(q, g, 30, metric)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    if metric != "cosine":
        np.testing.assert_array_equal(positions, expected_positions)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", METRICS)
def test_a_streamed_source_gives_what_the_matrix_gives(engine: Engine, metric: Metric) -> None:
    rng = np.random.default_rng(1)
    gallery = rng.standard_normal((20_000, 8)).astype(np.float32)
    queries = rng.standard_normal((5, 8)).astype(np.float32)
    source = Vectors(np.arange(20_000), gallery, Space("m", 8))
    scores, positions = search(queries, source, 10, metric, engine=engine)
    expected, expected_positions = search(queries, gallery, 10, metric, engine=engine)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(positions, expected_positions)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_zero_vector_has_cosine_zero(engine: Engine) -> None:
    gallery = np.array([[0, 0], [-1, 0], [1, 0]], dtype=np.float32)
    scores, positions = search(np.array([[2, 0]], dtype=np.float32), gallery, 3, "cosine", engine=engine)
    np.testing.assert_array_equal(positions, [[2, 0, 1]])
    np.testing.assert_array_equal(scores, [[1, 0, -1]])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", METRICS)
def test_search_copies_no_gallery(engine: Engine, metric: Metric) -> None:
    gallery = np.random.default_rng(0).standard_normal((40_000, 512), dtype=np.float32)  # 82 MB
    queries = gallery[:4] * 2
    search(queries, gallery[:1000], 10, metric, engine=engine)
    tracemalloc.start()
    _, positions = search(queries, gallery, 10, metric, engine=engine)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if metric != "dot":
        np.testing.assert_array_equal(
            positions[:, 0], np.arange(4) if metric == "cosine" else positions[:, 0]
        )
    assert peak < gallery.nbytes / 2


@pytest.mark.parametrize("engine", ENGINES)
def test_no_queries_give_no_results(engine: Engine) -> None:
    scores, positions = search(np.empty((0, 3), np.float32), np.ones((4, 3), np.float32), 2, engine=engine)
    assert scores.shape == positions.shape == (0, 2)


def test_wrong_dimension_names_both() -> None:
    with pytest.raises(DimensionMismatch, match="queries have 3 dimensions, the gallery has 4; map"):
        search(np.ones((1, 3), np.float32), np.ones((2, 4), np.float32), 1)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="k must be at least 1, got 0"):
        search(np.ones((1, 3), np.float32), np.ones((2, 3), np.float32), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_nan_is_named(engine: Engine) -> None:
    gallery = np.ones((5, 3), np.float32)
    gallery[2] = np.nan
    with pytest.raises(InvalidVectors, match="NaN"):
        search(np.ones((1, 3), np.float32), gallery, 5, "dot", engine=engine)


def test_without_faiss_numpy_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(sys.modules["crossfade.evaluation.search"], "installed", lambda module: False)
    _, positions = search(np.ones((1000, 2), np.float32), np.eye(2, dtype=np.float32), 1, "dot")
    assert (positions == 0).all()
    with pytest.raises((MissingExtra, ModuleNotFoundError)):
        search(np.ones((1, 2), np.float32), np.eye(2, dtype=np.float32), 1, "dot", engine="faiss")
