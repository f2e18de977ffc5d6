"""Drift of a bridge: the measures, the rate of false alarms, the power that is stated."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from crossfade.adapters import make_adapter
from crossfade.evaluation.bridge import Bridge, Sample
from crossfade.evaluation.drift import Change, changes, decay_p, measure_bridge
from crossfade.evaluation.interpolation import slerp
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix, Vectors

OLD, NEW = Space("old-model", 8), Space("new-model", 12)
MAP = np.random.default_rng(3).standard_normal((8, 12))


def sample(count: int, seed: int, noise: float = 0.5) -> Sample:
    """Items whose new vector is a map of the old one, and something of its own."""
    rng = np.random.default_rng(seed)
    old = rng.standard_normal((count, 8))
    new = old @ MAP / 3 + noise * rng.standard_normal((count, 12))
    return Sample(Vectors(np.arange(count), old, OLD), Vectors(np.arange(count), new, NEW))


def matrices(one: Sample) -> tuple[FloatMatrix, FloatMatrix]:
    assert one.old is not None
    assert one.new is not None
    return one.old.matrix, one.new.matrix


def fitted(direction: str, weight: float | None = None) -> Bridge:
    old, new = matrices(sample(1500, 99))
    if direction == "forward":
        return Bridge.by(make_adapter("ridge").fit(old, new, source=OLD, target=NEW), OLD)
    return Bridge.by(make_adapter("ridge").fit(new, old, source=NEW, target=OLD), OLD, weight=weight)


def unit(matrix: FloatMatrix) -> FloatMatrix:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


# --- measures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["query", "interpolate", "gallery"])
def test_measures_are_what_a_plain_loop_finds(kind: str) -> None:
    gallery, queries = sample(60, 1), sample(15, 2)
    bridge = fitted("forward" if kind == "gallery" else "backward", 0.4 if kind == "interpolate" else None)
    assert bridge.kind == kind
    assert bridge.adapter is not None
    (g_old, g_new), (q_old, q_new) = matrices(gallery), matrices(queries)
    found = measure_bridge(bridge, gallery, queries)
    for row in range(15):
        wanted = unit(q_new[row : row + 1]) @ unit(g_new).T
        if kind == "gallery":
            lifted = bridge.adapter.transform(g_old)
            scores = unit(q_new[row : row + 1]) @ lifted.T
            faithful = bridge.adapter.transform(q_old[row : row + 1]) @ unit(q_new[row : row + 1]).T
        else:
            asked = mapped = bridge.adapter.transform(q_new[row : row + 1])
            if kind == "interpolate":
                asked = slerp(q_old[row : row + 1], mapped, 0.4)
            scores = asked @ unit(g_old).T
            faithful = mapped @ unit(q_old[row : row + 1]).T
        ten = set(np.argsort(-wanted[0])[:10].tolist())
        assert found["agreement"][row] == len(ten & set(np.argsort(-scores[0])[:10].tolist())) / 10
        assert found["nearness"][row] == pytest.approx(wanted.max(), abs=1e-5)
        assert found["fidelity"][row] == pytest.approx(faithful.item(), abs=1e-5)


def test_without_old_queries_there_is_no_fidelity() -> None:
    found = measure_bridge(fitted("backward"), sample(60, 1), Sample(new=sample(15, 2).new))
    assert set(found) == {"agreement", "nearness"}


def test_a_compatible_model_needs_no_map() -> None:
    queries, gallery = sample(15, 2), sample(60, 1)
    same = Sample(queries.old, queries.old), Sample(gallery.old, gallery.old)
    found = measure_bridge(Bridge("native"), same[1], same[0])
    assert (found["agreement"] == 1).all()
    np.testing.assert_allclose(found["fidelity"], 1, atol=1e-5)


# --- the test ---------------------------------------------------------------------------------


def test_p_is_the_share_of_all_partitions_that_are_as_low() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((4, 6), (6, 4), (5, 5)):
        recent, kept = rng.normal(-0.7, 1, n).round(1), rng.normal(0, 1, m).round(1)
        pooled = np.concatenate([kept, recent])
        means = [
            pooled[list(rows)].mean() - np.delete(pooled, rows).mean() for rows in combinations(range(10), n)
        ]
        exact = np.mean(np.array(means) <= recent.mean() - kept.mean() + 1e-9)
        assert decay_p(kept, recent, permutations=20_000) == pytest.approx(exact, abs=0.015)


def looks(count: int, shift: float, alpha: float, sizes: tuple[int, int] = (80, 60)) -> list[Change]:
    """Alarms of many looks at queries of which two measures are known."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng([11, seed])
        kept = {"agreement": rng.binomial(10, 0.6, sizes[0]) / 10, "nearness": rng.gamma(2, 1, sizes[0])}
        recent = {
            "agreement": rng.binomial(10, 0.6, sizes[1]) / 10 - shift,
            "nearness": rng.gamma(2, 1, sizes[1]),
        }
        made += changes(kept, recent, alpha=alpha, permutations=400, seed=seed)
    return made


def test_alarms_on_unchanged_queries_are_as_rare_as_stated() -> None:
    made = looks(400, 0.0, 0.1)
    alarms = sum(made[place].alarm or made[place + 1].alarm for place in range(0, len(made), 2))
    # 40 are allowed on the mean; 60 come by chance once in a thousand times, 15 even more rarely
    assert 15 < alarms < 60
    each = sum(one.alarm for one in made if one.name == "nearness")
    assert 6 < each < 36


def test_a_decay_of_the_stated_size_is_noticed_four_times_out_of_five() -> None:
    size = np.mean([one.noticed for one in looks(40, 0.0, 0.05) if one.name == "agreement"])
    shifted = [one for one in looks(250, float(size), 0.05) if one.name == "agreement"]
    assert 0.72 < np.mean([one.alarm for one in shifted]) < 0.88


def test_a_decay_below_the_tolerance_is_no_alarm() -> None:
    rng = np.random.default_rng(0)
    kept, recent = {"nearness": rng.normal(0.5, 0.01, 500)}, {"nearness": rng.normal(0.48, 0.01, 500)}
    (found,) = changes(kept, recent, alpha=0.01)
    assert found.alarm
    assert found.difference.low < -0.02 < found.difference.high
    assert not changes(kept, recent, alpha=0.01, tolerance=0.05)[0].alarm
    assert not changes(recent, kept, alpha=0.01)[0].alarm  # better is no decay
