from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from adapter_kit import Streamed, new_space, old_space, planted, unit

from crossfade.adapters import METHODS, auto, fit, fit_auto, make_adapter
from crossfade.adapters.judging import Bootstrap, Judge
from crossfade.adapters.residual_mlp import ResidualMLP
from crossfade.errors import InvalidVectors, MissingExtra, TooFewPairs, UsageError
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, Vectors

LINEAR = ("procrustes", "low-rank", "ridge")


def stretched(n: int = 1500) -> ArrayPairs:
    """Pairs related by a map that a rotation cannot follow, with a little noise."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((n, 24))
    X = latent * np.geomspace(1, 0.05, 24)
    return ArrayPairs(X, latent + 0.05 * rng.standard_normal(X.shape), source=old_space(), target=new_space())


def test_takes_the_simplest_of_equals() -> None:
    result = fit_auto(planted(noise=0.3), methods=LINEAR)
    assert result.adapter.name == "procrustes"
    assert result.adapter.n_pairs == 600
    assert [score.method for score in result.scores] == list(LINEAR)


def test_takes_the_better_where_the_simple_one_falls_behind() -> None:
    result = fit_auto(stretched(), methods=LINEAR)
    behind = {score.method: score for score in result.scores}
    assert result.adapter.name == "low-rank"  # rank 64 is all of 24 dimensions: the same map as ridge
    assert not behind["procrustes"].as_good_as_best
    assert behind["procrustes"].retrieval.high < behind["ridge"].retrieval.low
    assert behind["ridge"].error < behind["procrustes"].error


def test_chosen_adapter_is_the_method_fitted_on_all_pairs() -> None:
    pairs = stretched()
    chosen = fit_auto(pairs, methods=["ridge"], seed=3).adapter
    expected = make_adapter("ridge", seed=3).fit_pairs(pairs)
    assert chosen.arrays["weight"].tobytes() == expected.arrays["weight"].tobytes()


def test_is_deterministic_and_the_same_when_streamed() -> None:
    first, second = fit_auto(stretched(), methods=LINEAR), fit_auto(Streamed(stretched()), methods=LINEAR)
    strip = [{**score.to_dict(), "seconds": 0} for score in first.scores]
    assert strip == [{**score.to_dict(), "seconds": 0} for score in second.scores]
    assert first.adapter.arrays["bias"].tobytes() == second.adapter.arrays["bias"].tobytes()
    json.dumps(strip)


def test_linear_family_shares_one_pass() -> None:
    streamed = Streamed(stretched())
    fit_auto(streamed, methods=LINEAR)
    assert streamed.passes == 3  # the held-out pairs, the statistics, the final fit


def test_says_what_was_skipped_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_torch(name: str, **options: Any) -> Any:
        adapter = make_adapter(name, **options)
        if name == "residual-mlp":

            def refuse(pairs: object) -> None:
                raise MissingExtra("'torch' is not installed; run: pip install 'crossfade[train]'")

            monkeypatch.setattr(adapter, "_learn", refuse)
        return adapter

    monkeypatch.setattr(auto, "make_adapter", without_torch)
    skipped = dict(fit_auto(planted(n=300)).skipped)
    assert "needs at least 320 pairs, got 240" in skipped["local-experts"]
    assert "needs at least 1024 pairs, got 240" in skipped["residual-mlp"]
    assert (
        "crossfade[train]"
        in dict(fit_auto(planted(n=1500), methods=["ridge", "residual-mlp"]).skipped)["residual-mlp"]
    )


def test_tries_every_method_when_pairs_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(name: str, **options: Any) -> Any:
        return ResidualMLP(hidden=16, epochs=1) if name == "residual-mlp" else make_adapter(name, **options)

    monkeypatch.setattr(auto, "make_adapter", quick)
    result = fit_auto(planted(n=1400, noise=0.2))
    assert [score.method for score in result.scores] == list(METHODS)
    assert result.skipped == []


def test_refuses_what_cannot_be_fitted() -> None:
    with pytest.raises(TooFewPairs, match=r"no method can be fitted on 10 pairs; procrustes: .*ridge: "):
        fit_auto(planted(n=10))
    with pytest.raises(UsageError, match="no method is called 'magic'"):
        fit_auto(planted(), methods=["magic"])
    with pytest.raises(UsageError, match="'sideways'"):
        fit_auto(planted(), direction="sideways")
    with pytest.raises(UsageError, match=r"between 0 and 1, got 1\.5"):
        fit_auto(planted(), held_out=1.5)
    bad = planted()
    bad.X[np.random.default_rng(0).permutation(600)[:3]] = np.nan
    with pytest.raises(InvalidVectors, match="3 with NaN"):
        fit_auto(bad)


def test_fit_by_name() -> None:
    assert fit(planted(), method="ridge").name == "ridge"
    assert fit(planted(n=300, noise=0.1)).name == "procrustes"
    with pytest.raises(UsageError, match=r"no method is called 'rigde'; choose one of procrustes, low-rank"):
        fit(planted(), method="rigde")


# --- the judge --------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("backward", [False, True])
def test_judge_equals_a_naive_search(metric: Any, backward: bool) -> None:
    rng = np.random.default_rng(0)
    X, Y, mapped = (rng.standard_normal((70, 5)).astype(np.float32) for _ in range(3))
    spaces = Space("a", 5, metric), Space("b", 5, metric)
    judged = Judge(ArrayPairs(X, Y, source=spaces[0], target=spaces[1]), backward=backward)(mapped)

    def score(query: np.ndarray, item: np.ndarray) -> float:
        if metric == "l2":
            return -float(np.square(query.astype(float) - item).sum())
        length = np.linalg.norm(query) * np.linalg.norm(item) if metric == "cosine" else 1
        return float(query.astype(float) @ item / length)

    def ranking(query: np.ndarray, gallery: np.ndarray) -> list[int]:
        return sorted(range(70), key=lambda j: -score(query, gallery[j]))

    new = X if backward else Y
    for i in range(70):
        query, gallery = (mapped[i], Y) if backward else (Y[i], mapped)
        order = ranking(query, gallery)
        wanted = [j for j in ranking(new[i], new) if j != i][:10]
        found = [j for j in order if j != i][:10]
        assert judged.neighbours[i] == pytest.approx(len(set(found) & set(wanted)) / 10)
        assert judged.partner[i] == pytest.approx(1 / (1 + order.index(i)))


def test_perfect_map_is_judged_perfect() -> None:
    pairs = planted(n=100)
    judged = Judge(pairs, backward=False)(unit(pairs.Y))
    assert judged.neighbours.min() == 1
    assert judged.partner.min() == 1
    assert judged.error == pytest.approx(0, abs=1e-9)


def test_bootstrap_is_paired_and_about_normal() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    interval = Bootstrap(400, seed=1)(values)
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)
    shifted = Bootstrap(400, seed=1)(values + 1)
    assert shifted.low == pytest.approx(interval.low + 1)


def test_fit_takes_arrays_vectors_or_pairs_and_finds_the_same_map() -> None:
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(300, 6)).astype("f"), random.normal(size=(300, 9)).astype("f")
    old, new = Space("old", 6), Space("new", 9)
    by_arrays = fit(X, Y, method="ridge", source=old, target=new)
    order = random.permutation(300)
    shuffled = Vectors(order, X[order], old)
    by_vectors = fit(shuffled, Vectors(np.arange(300), Y, new), method="ridge")
    by_pairs = fit(ArrayPairs(X, Y, source=old, target=new), method="ridge")
    for other in (by_vectors, by_pairs):
        assert (other.source, other.target) == (old, new)
        np.testing.assert_array_equal(other.transform(X), by_arrays.transform(X))


def test_fit_refuses_two_forms_at_once() -> None:
    with pytest.raises(UsageError, match="got ndarray and NoneType"):
        fit(np.ones((4, 2), dtype=np.float32))
