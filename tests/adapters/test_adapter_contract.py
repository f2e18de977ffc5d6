"""What every adapter keeps, whatever its method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adapter_kit import MAKERS, MakeAdapter, Streamed, new_space, old_space, planted, unit

from crossfade.adapters import METHODS, Adapter, load_adapter
from crossfade.errors import (
    DataError,
    DimensionMismatch,
    InvalidVectors,
    NotFittedError,
    NotSupported,
    SpaceMismatch,
    TooFewPairs,
    UsageError,
    WrongDirection,
)
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs


def test_every_method_is_under_contract() -> None:
    assert {make().name for make in MAKERS.values()} == set(METHODS)


def test_methods_are_listed_from_simple_to_complex() -> None:
    order = [method.complexity for method in METHODS.values()]
    assert order == sorted(order)
    assert len(set(order)) == len(order)


def test_recovers_a_planted_rotation(make: MakeAdapter) -> None:
    pairs = planted()
    mapped = make().fit_pairs(pairs).transform(pairs.X)
    np.testing.assert_allclose(mapped, unit(pairs.Y), atol=0.02)


@pytest.mark.parametrize(("d_source", "d_target"), [(16, 28), (28, 16)], ids=["up", "down"])
def test_maps_between_unequal_dimensions(make: MakeAdapter, d_source: int, d_target: int) -> None:
    pairs = planted(d_source=d_source, d_target=d_target)
    mapped = make().fit_pairs(pairs).transform(pairs.X)
    assert mapped.shape == (len(pairs), d_target)
    np.testing.assert_allclose(mapped, unit(pairs.Y), atol=0.02)


def test_generalises_to_vectors_it_has_not_seen(make: MakeAdapter) -> None:
    pairs = planted(n=900, noise=0.05)
    adapter = make().fit_pairs(pairs.take(np.arange(600)))
    cosines = (adapter.transform(pairs.X[600:]) * unit(pairs.Y[600:])).sum(axis=1)
    assert cosines.mean() > 0.98


def test_same_data_and_seed_give_the_same_bits(make: MakeAdapter) -> None:
    pairs = planted(noise=0.1)
    first, second = make().fit_pairs(pairs), make().fit_pairs(pairs)
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        assert array.tobytes() == second.arrays[name].tobytes(), name


def test_fitting_again_forgets_the_fit_before(make: MakeAdapter) -> None:
    pairs, other = planted(noise=0.1), planted(noise=0.1, seed=5)
    adapter = make().fit_pairs(other).fit_pairs(pairs)
    assert adapter.transform(pairs.X).tobytes() == make().fit_pairs(pairs).transform(pairs.X).tobytes()


def test_streamed_fit_equals_fit_in_memory(make: MakeAdapter) -> None:
    pairs = planted(noise=0.1)
    in_memory, streamed = make().fit_pairs(pairs), make().fit_pairs(Streamed(pairs))
    for name, array in in_memory.arrays.items():
        assert array.tobytes() == streamed.arrays[name].tobytes(), name
    assert in_memory.held_out == streamed.held_out


def test_result_is_contiguous_float32_of_unit_length(fitted: Adapter) -> None:
    mapped = fitted.transform(planted().X.astype(np.float64)[:, ::1])
    assert mapped.dtype == np.float32
    assert mapped.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)


def test_length_of_cosine_vectors_does_not_matter(make: MakeAdapter) -> None:
    pairs = planted(noise=0.1)
    lengths = np.random.default_rng(1).uniform(0.1, 50, (2, len(pairs), 1)).astype(np.float32)
    scaled = ArrayPairs(pairs.X * lengths[0], pairs.Y * lengths[1], source=pairs.source, target=pairs.target)
    one, other = make().fit_pairs(pairs), make().fit_pairs(scaled)
    np.testing.assert_allclose(other.transform(scaled.X), one.transform(pairs.X), atol=2e-3)


def test_plain_arrays_keep_their_length(make: MakeAdapter) -> None:
    pairs = planted()
    adapter = make().fit(3 * pairs.X, 3 * pairs.Y)
    assert adapter.source is None
    np.testing.assert_allclose(adapter.transform(3 * pairs.X), 3 * pairs.Y, atol=0.2)


def test_fit_transform_maps_what_it_was_fitted_on(make: MakeAdapter) -> None:
    pairs = planted(noise=0.1)
    mapped = make().fit_transform(pairs.X, pairs.Y, source=pairs.source, target=pairs.target)
    assert mapped.tobytes() == make().fit_pairs(pairs).transform(pairs.X).tobytes()


def test_no_rows_in_no_rows_out(fitted: Adapter) -> None:
    assert fitted.transform(np.empty((0, 24), dtype=np.float32)).shape == (0, 24)


# --- saving and loading -----------------------------------------------------------------------


def test_round_trip_keeps_every_bit(fitted: Adapter, saved: Path) -> None:
    loaded = load_adapter(saved)
    X = planted(seed=3).X
    assert type(loaded) is type(fitted)
    assert loaded.transform(X).tobytes() == fitted.transform(X).tobytes()
    assert (loaded.source, loaded.target, loaded.n_pairs) == (fitted.source, fitted.target, fitted.n_pairs)
    assert loaded.get_params() == fitted.get_params()
    assert (loaded.chosen, loaded.held_out) == (fitted.chosen, fitted.held_out)


def test_saved_files_are_exactly_three_and_no_pickle(fitted: Adapter, saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = json.loads((saved / "config.json").read_text())
    assert config["source"]["model"] == "old-model"
    assert config["method"] == fitted.name
    header_length = int.from_bytes((saved / "model.safetensors").read_bytes()[:8], "little")
    assert 0 < header_length < 2000  # a safetensors header, JSON
    assert {path.name for path in saved.parent.iterdir()} == {"adapter"}


def test_model_card_names_both_models_and_the_pairs(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    assert "old-model" in card
    assert "new-model" in card
    assert "| pairs | 600 |" in card
    assert "held out: relative squared error" in card


# --- what is refused --------------------------------------------------------------------------


def test_refuses_use_before_fit(make: MakeAdapter, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        make().transform(planted().X)
    with pytest.raises(NotFittedError):
        make().save_pretrained(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_refuses_wrong_dimension(fitted: Adapter) -> None:
    with pytest.raises(DimensionMismatch, match=r"24 dimensions.*got vectors of 7"):
        fitted.transform(np.ones((3, 7), dtype=np.float32))
    with pytest.raises(DataError, match="must be a matrix"):
        fitted.transform(np.ones(24, dtype=np.float32))


def test_says_when_the_dimension_is_the_targets(make: MakeAdapter) -> None:
    adapter = make().fit_pairs(planted(d_source=16, d_target=28))
    with pytest.raises(DimensionMismatch, match="is the direction right"):
        adapter.transform(np.ones((3, 28), dtype=np.float32))


@pytest.mark.parametrize(
    ("value", "counted"),
    [(np.nan, "1 with NaN"), (np.inf, "1 with infinite"), (0.0, "1 all zero")],
    ids=["nan", "inf", "zero"],
)
@pytest.mark.parametrize("side", ["X", "Y"])
def test_refuses_to_fit_invalid_vectors(make: MakeAdapter, value: float, counted: str, side: str) -> None:
    pairs = planted()
    getattr(pairs, side)[17] = value
    adapter = make()
    with pytest.raises(InvalidVectors, match=counted):
        adapter.fit_pairs(pairs)
    assert not adapter.fitted


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0], ids=["nan", "inf", "zero"])
def test_refuses_to_map_invalid_vectors(fitted: Adapter, value: float) -> None:
    X = planted().X
    X[[3, 5]] = value
    with pytest.raises(InvalidVectors, match=r"600 vectors, of these .*2 (with NaN|with infinite|all zero)"):
        fitted.transform(X)


def test_refuses_too_few_pairs_with_both_numbers(make: MakeAdapter) -> None:
    adapter = make()
    needed = adapter.required_pairs(24, 24)
    few = planted().take(np.arange(needed - 1))
    with pytest.raises(TooFewPairs, match=rf"at least {needed} pairs, got {needed - 1}; embed 1 more"):
        adapter.fit_pairs(few)
    adapter.fit_pairs(planted(n=needed, noise=0.1))


def test_refuses_the_wrong_direction_and_other_spaces(fitted: Adapter) -> None:
    fitted.require_source(old_space(), "gallery")
    with pytest.raises(WrongDirection, match=r"gallery: .*new-model@2.*from old-model@1.*--direction"):
        fitted.require_source(new_space(), "gallery")
    with pytest.raises(SpaceMismatch, match=r"gallery: .*old-model@1.*other"):
        fitted.require_source(Space("other", 24), "gallery")
    with pytest.raises(DimensionMismatch):
        fitted.require_source(Space("other", 25), "gallery")


def test_refuses_to_map_a_space_into_itself(make: MakeAdapter) -> None:
    pairs = planted()
    with pytest.raises(UsageError, match="same space"):
        make().fit(pairs.X, pairs.Y, source=old_space(), target=old_space())


def test_refuses_vectors_that_are_not_of_their_space(make: MakeAdapter) -> None:
    pairs = planted()
    with pytest.raises(DimensionMismatch, match=r"24 dimensions.*says 25"):
        make().fit(pairs.X, pairs.Y, source=old_space(25), target=new_space())


def test_uncertainty_is_a_number_per_vector_or_refused(fitted: Adapter) -> None:
    X = planted().X
    if fitted.name in {"ridge", "local-experts"}:
        expected = fitted.uncertainty(X)
        assert expected.shape == (len(X),)
        assert expected.dtype == np.float32
        assert (expected > 0).all()
    else:
        with pytest.raises(NotSupported, match=rf"{fitted.name} has no uncertainty; fit 'ridge'"):
            fitted.uncertainty(X)
