from __future__ import annotations

import numpy as np
import pytest

from crossfade.errors import DataError
from crossfade.evaluation.origin import find_origins, wilson

ROWS, DIMENSION = 1200, 64


def _model(meaning: np.ndarray, seed: int, *, anisotropy: float = 1.5) -> np.ndarray:
    """What one model makes of the items: a map of their meaning, and a direction that all vectors share."""
    rng = np.random.default_rng(seed)
    vectors = meaning @ rng.standard_normal((meaning.shape[1], DIMENSION)) / 4
    shared = rng.standard_normal(DIMENSION)
    vectors += anisotropy * np.sqrt(np.square(vectors).sum(1).mean()) * shared / np.linalg.norm(shared)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _meaning(topics: int) -> np.ndarray:
    """Items in topics that are far from each other."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((topics, 16))
    return centers[rng.integers(topics, size=ROWS)] + 0.25 * rng.standard_normal((ROWS, 16))


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5])
@pytest.mark.parametrize("topics", [1, 6])
def test_a_planted_mixture_is_found_with_its_share(share: float, topics: int) -> None:
    meaning = _meaning(topics)
    foreign = np.random.default_rng(1).random(ROWS) < share
    found = find_origins(np.where(foreign[:, None], _model(meaning, 3), _model(meaning, 2)))
    assert found.verdict == "mixed"
    assert len(found.shares) == 2
    smaller = found.shares[1]
    assert smaller.low <= min(foreign.mean(), 1 - foreign.mean()) <= smaller.high
    agreement = ((found.groups > 0) == foreign).mean()
    assert max(agreement, 1 - agreement) > 0.99


@pytest.mark.parametrize("topics", [1, 6])
def test_topics_of_one_model_are_no_mixture(topics: int) -> None:
    found = find_origins(_model(_meaning(topics), 2))
    assert found.verdict == "one origin"
    assert [share.value for share in found.shares] == [1.0]


def test_vectors_without_a_common_direction_cannot_be_judged() -> None:
    vectors = _model(_meaning(6), 2, anisotropy=0.0)
    centered = vectors - vectors.mean(0)
    assert find_origins(centered).verdict == "cannot tell"


def test_new_vectors_are_assigned_to_the_origin_that_they_come_from() -> None:
    meaning = _meaning(3)
    one, other = _model(meaning, 2), _model(meaning, 3)
    found = find_origins(np.concatenate([one[:800], other[:300]]))
    assert (found.assign(one[800:]) == 0).all()
    assert (found.assign(other[800:]) == 1).all()


def test_scaling_changes_nothing() -> None:
    vectors = _model(_meaning(6), 2)
    scaled = vectors * np.random.default_rng(5).uniform(0.1, 9, (ROWS, 1)).astype(np.float32)
    np.testing.assert_array_equal(find_origins(scaled).groups, find_origins(vectors).groups)


def test_too_few_or_zero_vectors_are_refused() -> None:
    with pytest.raises(DataError, match="199 vectors are too few"):
        find_origins(np.ones((199, 4), dtype=np.float32))
    with pytest.raises(DataError, match="1 of 300 vectors have length zero"):
        find_origins(np.vstack([np.ones((299, 4)), np.zeros((1, 4))]).astype(np.float32))


def test_wilson_interval_against_its_published_values() -> None:
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (count, of), (low, high) in published.items():
        found = wilson(count, of)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
