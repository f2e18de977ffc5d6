from __future__ import annotations

import numpy as np
import pytest
from adapter_kit import planted, unit

from crossfade.adapters import chain
from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.ridge import Ridge
from crossfade.errors import (
    DimensionMismatch,
    NotFittedError,
    NotSupported,
    SpaceMismatch,
    UsageError,
    WrongDirection,
)
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs

V1, V2, V3 = Space("v1", 24), Space("v2", 24), Space("v3", 24)


def between(source: Space, target: Space, seed: int = 0) -> Procrustes:
    pairs = planted(seed=seed)
    return Procrustes().fit(pairs.X, pairs.Y, source=source, target=target)


def test_composition_equals_one_map_after_the_other() -> None:
    first, second = between(V1, V2), between(V2, V3, seed=1)
    X = planted(seed=2).X
    both = chain(first, second)
    assert both.transform(X).tobytes() == second.transform(first.transform(X)).tobytes()
    assert (both.source, both.target, both.dimensions) == (V1, V3, (24, 24))


def test_three_links_recover_the_planted_composition() -> None:
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((500, 16))
    steps = [latent @ np.linalg.qr(rng.standard_normal((16, 16)))[0] for _ in range(4)]
    spaces = [Space(f"v{i}", 16) for i in range(4)]
    links = [
        Procrustes().fit_pairs(ArrayPairs(steps[i], steps[i + 1], source=spaces[i], target=spaces[i + 1]))
        for i in range(3)
    ]
    np.testing.assert_allclose(chain(*links).transform(steps[0]), unit(steps[3]), atol=1e-3)


def test_there_and_back_is_the_identity() -> None:
    pairs = planted()
    there = Procrustes(centred=False).fit_pairs(pairs)
    back = Procrustes(centred=False).fit_pairs(pairs.reversed())
    np.testing.assert_allclose(chain(there, back).transform(pairs.X), unit(pairs.X), atol=1e-4)


def test_counts_the_pairs_of_its_weakest_link() -> None:
    few = planted(n=100)
    second = Procrustes().fit(few.X, few.Y, source=V2, target=V3)
    assert chain(between(V1, V2), second).n_pairs == 100


def test_refuses_links_that_do_not_meet() -> None:
    with pytest.raises(SpaceMismatch, match=r"link 2 of the chain \(procrustes\).*v2.*v1"):
        chain(between(V1, V2), between(V1, V3))
    with pytest.raises(WrongDirection, match=r"link 2 .* maps from v3 .* into v2 .*other direction"):
        chain(between(V1, V2), between(V3, V2))
    small = planted(d_source=12)
    with pytest.raises(DimensionMismatch, match=r"link 2 .*24.*12"):
        chain(between(V1, V2), Ridge().fit(small.X, small.Y, source=Space("v2", 12), target=V3))


def test_plain_links_must_fit_by_dimension() -> None:
    pairs, down = planted(), planted(d_target=12)
    square, narrowing = Procrustes().fit(pairs.X, pairs.Y), Procrustes().fit(down.X, down.Y)
    assert chain(square, narrowing).transform(pairs.X).shape == (600, 12)
    with pytest.raises(DimensionMismatch):
        chain(narrowing, square)


def test_refuses_what_is_not_fitted_and_nothing_at_all() -> None:
    with pytest.raises(NotFittedError, match="link 2 of the chain, ridge, is not fitted"):
        chain(between(V1, V2), Ridge())
    with pytest.raises(UsageError, match="at least one"):
        chain()
    with pytest.raises(NotSupported, match="fit its links"):
        chain(between(V1, V2)).fit_pairs(planted())
