"""The projection φ: what it maps, how it is saved, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from adapter_kit import Streamed, new_space, old_space, planted, unit
from scipy.special import ndtr

from crossfade.adapters import load_adapter, make_adapter
from crossfade.adapters.projection import Projection
from crossfade.errors import DimensionMismatch, SpaceMismatch, TooFewPairs, UsageError
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs

QUICK = {"hidden": 16, "epochs": 3, "batch_rows": 100, "sigma": 0.0}


def fitted(pairs: ArrayPairs | Streamed, **options: object) -> Projection:
    return Projection(**{**QUICK, **options}).fit_pairs(pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_maps_as_the_formula_says(depth: int) -> None:
    pairs = planted(d_source=16, d_target=28, noise=0.1)
    adapter = fitted(pairs, depth=depth)
    layers = {f"hidden.{layer}.{part}" for layer in range(depth) for part in ("weight", "bias")}
    assert set(adapter.arrays) == {"skip", "bias"} | layers | ({"out"} if depth else set())
    arrays = {name: array.astype(np.float64) for name, array in adapter.arrays.items()}
    x = unit(pairs.X.astype(np.float64))
    hidden = x
    for layer in range(depth):
        before = hidden @ arrays[f"hidden.{layer}.weight"] + arrays[f"hidden.{layer}.bias"]
        hidden = before * ndtr(before)  # the exact GELU; the tanh approximation is within 5e-4 of it
    mapped = x @ arrays["skip"] + arrays["bias"] + (hidden @ arrays["out"] if depth else 0)
    np.testing.assert_allclose(adapter.transform(pairs.X), unit(mapped), atol=3e-3)


@pytest.mark.parametrize(("d_source", "d_target"), [(24, 24), (16, 28), (28, 16)])
def test_without_noise_it_recovers_a_planted_rotation(d_source: int, d_target: int) -> None:
    pairs = planted(d_source=d_source, d_target=d_target)
    np.testing.assert_allclose(fitted(pairs).transform(pairs.X), unit(pairs.Y), atol=0.03)


def test_vectors_of_spaces_where_lengths_count_keep_theirs() -> None:
    pairs = planted()
    spaces = {"source": Space("a", 24, metric="dot"), "target": Space("b", 24, metric="l2")}
    adapter = fitted(ArrayPairs(3 * pairs.X, 5 * pairs.Y, **spaces), contrastive_weight=0.0)  # type: ignore[arg-type]
    np.testing.assert_allclose(adapter.transform(3 * pairs.X), 5 * pairs.Y, atol=0.3)


def test_streamed_fit_equals_fit_in_memory() -> None:
    pairs = planted(noise=0.1)
    one, other = fitted(pairs, sigma=0.5), fitted(Streamed(pairs), sigma=0.5)
    for name, array in one.arrays.items():
        assert array.tobytes() == other.arrays[name].tobytes(), name


def test_saved_and_loaded_it_maps_the_same(tmp_path: Path) -> None:
    pairs = planted(noise=0.1)
    adapter = fitted(pairs, depth=2, sigma=0.5)
    adapter.save_pretrained(tmp_path / "phi")
    again = load_adapter(tmp_path / "phi")
    assert again.transform(pairs.X).tobytes() == adapter.transform(pairs.X).tobytes()
    assert again.get_params() == adapter.get_params()
    assert again.chosen == adapter.chosen


def test_phi_of_another_pair_of_spaces_is_refused_with_the_spaces() -> None:
    adapter = fitted(planted())
    adapter.require_source(old_space(), "queries")
    with pytest.raises(SpaceMismatch, match=r"queries: .*old-model@1.*third"):
        adapter.require_source(Space("third", 24), "queries")
    with pytest.raises(DimensionMismatch, match="got vectors of 7"):
        adapter.transform(np.ones((2, 7), dtype=np.float32))
    with pytest.raises(UsageError, match=r"same space, new-model@2"):
        Projection().fit_pairs(ArrayPairs(planted().X, planted().Y, source=new_space(), target=new_space()))
    with pytest.raises(TooFewPairs, match=r"needs at least 64 pairs, got 20"):
        fitted(planted(n=20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": -0.1}, r"sigma must be a number of at least 0, got -0\.1"),
        ({"sigma": "auto"}, r"got 'auto'; 'auto' is chosen by crossfade train xbt-text"),
        ({"sigma": float("nan")}, "got nan"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"depth": -1}, "depth must be at least 0, got -1"),
        ({"temperature": 0.0}, r"temperature must be above 0, got 0\.0"),
        ({"shifted": 1.5}, r"shifted is a share between 0 and 1, got 1\.5"),
        ({"cosine": 0.0, "contrastive_weight": 0.0}, "nothing to learn from"),
        ({"batch_rows": 0}, "batch_rows must be at least 1, got 0"),
        ({"warm_up_epochs": 99}, "within the 30 epochs, got 99"),
    ],
)
def test_options_outside_of_their_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Projection(**options)  # type: ignore[arg-type]


def test_it_is_tried_where_it_is_named() -> None:
    assert isinstance(make_adapter("projection", seed=4), Projection)
