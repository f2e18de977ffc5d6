"""TAR@FAR against scikit-learn, TPIR@FPIR against loops, the update gain against the paper's table."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from crossfade.errors import DataError, UsageError
from crossfade.evaluation.metrics import tar_at_far, tpir_at_fpir, update_gain, verification_pairs

RATES = (0.0, 1e-3, 0.01, 0.1, 0.29, 0.5, 1.0)


def scored_pairs(ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    genuine = rng.random(3000) < 0.2
    scores = rng.standard_normal(3000) + 1.5 * genuine
    return (np.round(scores, 1) if ties else scores), genuine


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_tar_at_far_equals_scikit_learns_curve(ties: bool) -> None:
    scores, genuine = scored_pairs(ties)
    false, true, _ = roc_curve(genuine, scores, drop_intermediate=False)
    found = tar_at_far(scores, genuine, RATES)
    for rate in RATES:
        assert found[rate] == pytest.approx(true[false <= rate + 1e-12].max()), rate


def test_all_pairs_of_a_set() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random((5, 5)), np.array([0, 1, 0, 2, 1])
    found, genuine = verification_pairs(scores, labels)
    expected = [(scores[i, j], labels[i] == labels[j]) for i in range(5) for j in range(i + 1, 5)]
    assert list(zip(found, genuine, strict=True)) == expected


def naive_tpir(scores: np.ndarray, probes: list[int], gallery: list[int], rate: float) -> float:
    """Try every threshold; take the one that lets the fewest strangers beyond the rate through."""
    strangers = [row for row, probe in enumerate(probes) if probe not in gallery]
    enrolled = [row for row, probe in enumerate(probes) if probe in gallery]
    best = 0.0
    for threshold in [*sorted(set(scores.ravel())), np.inf]:
        false = sum(any(score >= threshold for score in scores[row]) for row in strangers)
        if false / len(strangers) > rate:
            continue
        hits = 0
        for row in enrolled:
            highest = max(scores[row])
            at_the_top = {gallery[place] for place, score in enumerate(scores[row]) if score == highest}
            hits += highest >= threshold and at_the_top == {probes[row]}
        best = max(best, hits / len(enrolled))
    return best


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_tpir_at_fpir_equals_a_loop_over_thresholds(ties: bool) -> None:
    rng = np.random.default_rng(2)
    gallery = [place % 6 for place in range(15)]
    probes = rng.integers(0, 10, 40).tolist()
    scores = rng.standard_normal((40, 15)) + 1.2 * (np.array(probes)[:, None] == np.array(gallery)[None, :])
    if ties:
        scores = np.round(scores)
    for rate in (0.0, 0.05, 0.1, 0.3, 1.0):
        found = tpir_at_fpir(scores, probes, gallery, (rate,))[rate]
        assert found == pytest.approx(naive_tpir(scores, probes, gallery, rate)), rate


def test_update_gain_is_the_share_of_the_free_models_gain() -> None:
    # Shen et al., CVPR 2020: 42.2 between 39.5 and 66.3
    assert update_gain(42.2, 39.5, 66.3) == pytest.approx(2.7 / 26.8)
    assert update_gain(30.0, 39.5, 66.3) < 0
    with pytest.raises(UsageError, match=r"0\.3000 on its own gallery and the old model 0\.4000"):
        update_gain(0.35, 0.4, 0.3)


def test_what_cannot_be_measured_is_named() -> None:
    scores = np.zeros((2, 2))
    with pytest.raises(DataError, match="2 of 2 probes are enrolled"):
        tpir_at_fpir(scores, [0, 1], [0, 1])
    with pytest.raises(DataError, match="3 of 3 are genuine"):
        tar_at_far(np.zeros(3), np.ones(3, dtype=bool))
    with pytest.raises(UsageError, match=r"between 0 and 1, got \(10,\)"):
        tar_at_far(np.zeros(2), np.array([True, False]), (10,))
    with pytest.raises(DataError, match=r"3 probes and 2 gallery items"):
        tpir_at_fpir(scores, [0, 1, 2], [0, 1])
