"""FCT, FastFill and λ-orthogonal maps on handwritten digits: the published order, and what breaks it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_vectors import NEW, OLD, SIDE, Digits, digits
from scipy.stats import spearmanr

from crossfade.adapters import Adapter, chain, load_adapter, make_adapter
from crossfade.adapters.fastfill import FastFill
from crossfade.adapters.forward_transformation import ForwardTransformation
from crossfade.adapters.lambda_orthogonal import LambdaOrthogonal
from crossfade.adapters.prepared import PreparedPairs
from crossfade.adapters.registry import METHODS, ON_REQUEST
from crossfade.errors import (
    DataError,
    DimensionMismatch,
    SpaceMismatch,
    TrainingDiverged,
    UnknownSpace,
    UsageError,
)
from crossfade.spaces import Space
from crossfade.training import lambda_orthogonal
from crossfade.training.classifier import ClassWeights
from crossfade.training.fastfill import learn as learn_fastfill
from crossfade.training.fct import cache as cache_pairs
from crossfade.training.fct import learn as learn_fct
from crossfade.training.fct import transformation_for
from crossfade.training.vector_loop import Watch
from crossfade.vectors import ArrayPairs, FloatMatrix, align

TRANSFORMATIONS = ("fastfill", "fct", "lambda-orthogonal")
QUICK = {"inner": 128, "epochs": 30, "warm_up_epochs": 2, "batch_rows": 128, "learning_rate": 2e-3}


@cache
def trained(method: str, *, side: bool = True, labels: bool = False) -> Adapter:
    fitted, _ = digits()
    adapter = ON_REQUEST[method](side_information=side, **QUICK)  # type: ignore[call-arg]
    return adapter.fit_pairs(fitted.pairs(labels=labels))


def lifted(adapter: Adapter, part: Digits, side: FloatMatrix | None = None) -> FloatMatrix:
    given = (part.side.matrix if side is None else side) if adapter.side_dimension else None
    return adapter.transform(part.old.matrix, given)


def mean_average_precision(gallery: FloatMatrix, part: Digits) -> float:
    """New queries on a gallery of the same items, the query left out; an item at a time."""
    found = []
    for row, query in enumerate(part.new.matrix):
        order = np.argsort(np.square(gallery - query).sum(axis=1), kind="stable")
        right = part.labels[order[order != row]] == part.labels[row]
        found.append(float((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean()))
    return float(np.mean(found))


# --- quality ----------------------------------------------------------------------------------


def test_side_information_closes_the_gap_and_its_absence_does_not() -> None:
    _, held_out = digits()
    new = mean_average_precision(held_out.new.matrix, held_out)
    with_side = mean_average_precision(lifted(trained("fct"), held_out), held_out)
    without = mean_average_precision(lifted(trained("fct", side=False), held_out), held_out)
    assert with_side > without + 0.05
    assert with_side > new - 0.03


def test_swapped_side_information_loses_the_gain() -> None:
    _, held_out = digits()
    swapped = np.random.default_rng(0).permutation(held_out.side.matrix)
    without = mean_average_precision(lifted(trained("fct", side=False), held_out), held_out)
    assert mean_average_precision(lifted(trained("fct"), held_out, swapped), held_out) < without - 0.1


def test_h_trained_on_swapped_side_information_gains_nothing() -> None:
    fitted, held_out = digits()
    pairs = fitted.pairs()
    swapped = ArrayPairs(
        pairs.X,
        pairs.Y,
        source=OLD,
        target=NEW,
        side=np.random.default_rng(0).permutation(pairs.S),
        side_space=SIDE,
    )
    adapter = ForwardTransformation(**QUICK).fit_pairs(swapped)  # type: ignore[arg-type]
    without = mean_average_precision(lifted(trained("fct", side=False), held_out), held_out)
    assert mean_average_precision(lifted(adapter, held_out), held_out) < without + 0.02


@pytest.mark.parametrize("labels", [False, True], ids=["pairs alone", "labelled"])
def test_fastfill_knows_which_of_its_vectors_are_off(labels: bool) -> None:
    _, held_out = digits()
    adapter = trained("fastfill", labels=labels)
    error = np.square(lifted(adapter, held_out) - held_out.new.matrix).sum(axis=1)
    uncertainty = adapter.uncertainty(held_out.old.matrix, held_out.side.matrix)
    assert uncertainty.shape == (len(error),)
    assert spearmanr(uncertainty, error).statistic > 0.4
    if not labels:  # then it is the expected squared error itself, on items like those it was trained on
        fitted, _ = digits()
        mean = np.square(lifted(adapter, fitted) - fitted.new.matrix).sum(axis=1).mean()
        assert adapter.uncertainty(fitted.old.matrix, fitted.side.matrix).mean() == pytest.approx(
            mean, rel=0.5
        )


def test_lambda_orthogonal_maps_lead_both_ways() -> None:
    fitted, held_out = digits()
    old = mean_average_precision(held_out.new.matrix, held_out)
    ahead = trained("lambda-orthogonal", labels=True)
    assert mean_average_precision(lifted(ahead, held_out), held_out) > old - 0.05
    back = LambdaOrthogonal(direction="backward", **QUICK)  # type: ignore[arg-type]
    back.fit_pairs(fitted.pairs(labels=True).reversed())
    assert back.side_dimension == 0
    error = np.square(back.transform(held_out.new.matrix) - held_out.old.matrix).sum()
    assert error < 0.5 * np.square(held_out.old.matrix - held_out.old.matrix.mean(axis=0)).sum()


def test_the_way_forward_ends_where_the_way_back_begins() -> None:
    """B of what is lifted is what F returned: the inverse is one, also where B forgets dimensions."""
    fitted, held_out = digits()
    adapter = LambdaOrthogonal(side_information=False, **{**QUICK, "epochs": 5})  # type: ignore[arg-type]
    pairs = PreparedPairs(fitted.pairs())
    cached = cache_pairs(adapter, pairs, equal_length=True)
    seen: dict[str, torch.nn.Linear] = {}

    def start(back: torch.nn.Linear, *rest: object) -> np.ndarray:
        seen["back"] = back
        return honest(back, *rest)  # type: ignore[no-any-return]

    honest = lambda_orthogonal._start_orthogonal  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lambda_orthogonal, "_start_orthogonal", start)
        adapter.fit_pairs(fitted.pairs())
    lifted_again = torch.from_numpy(lifted(adapter, held_out) / cached.spreads.y)
    with torch.no_grad():
        returned = seen["back"](lifted_again).numpy() * cached.spreads.x
    error = np.square(returned - held_out.old.matrix).sum()
    assert error < 0.3 * np.square(held_out.old.matrix - held_out.old.matrix.mean(axis=0)).sum()
    # the mean of what B forgets is not lost
    mean = lifted(adapter, fitted).mean(axis=0) - fitted.new.matrix.mean(axis=0)
    assert np.linalg.norm(mean) < 0.2 * np.linalg.norm(fitted.new.matrix.mean(axis=0))


def test_lambda_bounds_the_distance_from_orthogonal() -> None:
    fitted, _ = digits()
    distances = []
    for threshold in (0.2, 12.0):
        adapter = LambdaOrthogonal(direction="backward", threshold=threshold, penalty=10, **QUICK)  # type: ignore[arg-type]
        adapter.fit_pairs(fitted.pairs().reversed())
        distances.append(adapter.chosen["distance from orthogonal"])
    assert distances[0] < 0.3
    assert distances[1] > 1


# --- numbers ----------------------------------------------------------------------------------


def test_numpy_maps_as_the_network_does() -> None:
    fitted, held_out = digits()
    adapter = ForwardTransformation(**{**QUICK, "epochs": 3})  # type: ignore[arg-type]
    pairs = PreparedPairs(fitted.pairs())
    cached = cache_pairs(adapter, pairs)
    network = transformation_for(adapter, cached, pairs.dimensions)
    x, side, y = (torch.from_numpy(part.matrix) for part in (held_out.old, held_out.side, held_out.new))
    spreads = cached.spreads
    network(x / spreads.x, side / spreads.side)  # moves the running statistics away from 0 and 1
    network.eval()
    with torch.no_grad():
        expected = (network(x / spreads.x, side / spreads.side) * spreads.y).numpy()
    adapter.arrays = network.folded(spreads)
    adapter._take_over(pairs)
    found = adapter.transform(x.numpy(), side.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(y.numpy()).max())


@pytest.mark.parametrize("method", TRANSFORMATIONS)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(method: str) -> None:
    fitted, _ = digits()
    options = {**QUICK, "epochs": 2}
    first, second, other = (
        ON_REQUEST[method](seed=seed, **options).fit_pairs(fitted.pairs(labels=True))  # type: ignore[call-arg]
        for seed in (0, 0, 1)
    )
    assert {name: a.tobytes() for name, a in first.arrays.items()} == {
        name: a.tobytes() for name, a in second.arrays.items()
    }
    assert first.arrays["out.weight"].tobytes() != other.arrays["out.weight"].tobytes()


@pytest.mark.parametrize("method", TRANSFORMATIONS)
@pytest.mark.parametrize("side", [True, False], ids=["side", "alone"])
def test_saved_and_loaded_it_maps_the_same(method: str, side: bool, tmp_path: Path) -> None:
    _, held_out = digits()
    adapter = trained(method, side=side, labels=True)
    adapter.save_pretrained(tmp_path / "h")
    again = load_adapter(tmp_path / "h")
    assert (again.side, again.side_dimension) == ((SIDE, SIDE.dimension) if side else (None, 0))
    assert lifted(again, held_out).tobytes() == lifted(adapter, held_out).tobytes()
    assert ("side-information" in (tmp_path / "h" / "README.md").read_text()) == side


def test_a_stopped_training_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    fitted, _ = digits()
    options = {**QUICK, "epochs": 4}

    def fit(watch: Watch | None) -> ForwardTransformation:
        adapter = ForwardTransformation(**options)  # type: ignore[arg-type]
        adapter.trainer = lambda adapter, pairs: learn_fct(adapter, pairs, watch=watch)
        return adapter.fit_pairs(fitted.pairs())

    def stop(epoch: int, numbers: object) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    whole = fit(None)
    with pytest.raises(KeyboardInterrupt):
        fit(Watch(folder=tmp_path, log=stop))
    seen: list[int] = []
    resumed = fit(Watch(folder=tmp_path, log=lambda epoch, numbers: seen.append(epoch)))
    assert seen == [3, 4]  # the third epoch was not saved yet
    assert resumed.arrays["out.weight"].tobytes() == whole.arrays["out.weight"].tobytes()
    finished: list[int] = []  # a finished training is not done again
    again = fit(Watch(folder=tmp_path, log=lambda epoch, numbers: finished.append(epoch)))
    assert again.arrays["out.weight"].tobytes() == whole.arrays["out.weight"].tobytes()
    assert finished == []


def test_resuming_with_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    fitted, _ = digits()

    def fit(rate: float, log: object) -> None:
        adapter = ForwardTransformation(**{**QUICK, "learning_rate": rate})  # type: ignore[arg-type]
        watch = Watch(folder=tmp_path, log=log)  # type: ignore[arg-type]
        adapter.trainer = lambda adapter, pairs: learn_fct(adapter, pairs, watch=watch)
        adapter.fit_pairs(fitted.pairs())

    def stop(epoch: int, numbers: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(1e-3, stop)
    with pytest.raises(UsageError, match=r"recipe\.learning_rate: 0\.001 → 0\.002"):
        fit(2e-3, None)


# --- mistakes ---------------------------------------------------------------------------------


def test_they_are_not_tried_unless_named() -> None:
    assert set(ON_REQUEST).isdisjoint(METHODS)
    assert make_adapter("fct", seed=3).get_params()["seed"] == 3
    assert make_adapter("lambda-orthogonal", direction="backward").get_params()["direction"] == "backward"
    with pytest.raises(UsageError, match=r"choose one of procrustes, .*residual-mlp, fct, fastfill"):
        make_adapter("h")


def test_missing_and_wrong_side_information_are_named() -> None:
    _, held_out = digits()
    old, side, adapter = held_out.old.matrix, held_out.side.matrix, trained("fct")
    with pytest.raises(UsageError, match=r"needs the side-information of every item, 20 dimensions.*--side"):
        adapter.transform(old)
    with pytest.raises(DimensionMismatch, match=r"of 20 dimensions \(digits-components.*got 19"):
        adapter.transform(old, side[:, 1:])
    with pytest.raises(DataError, match=r"one row per vector in the same order"):
        adapter.transform(old, side[1:])
    with pytest.raises(UsageError, match="takes no side-information"):
        trained("fct", side=False).transform(old, side)
    with pytest.raises(UsageError, match=r"gallery: .*needs the side-information"):
        adapter.require_side(None, "gallery")
    with pytest.raises(SpaceMismatch, match="side-information of gallery"):
        adapter.require_side(Space("another", 20, metric="l2"), "gallery")
    adapter.require_side(SIDE, "gallery")


def test_an_adapter_with_unnamed_side_information_is_not_saved(tmp_path: Path) -> None:
    fitted, _ = digits()
    pairs = fitted.pairs()
    unnamed = ArrayPairs(pairs.X, pairs.Y, source=OLD, target=NEW, side=pairs.S)
    adapter = ForwardTransformation(**{**QUICK, "epochs": 2}).fit_pairs(unnamed)  # type: ignore[arg-type]
    with pytest.raises(UnknownSpace, match="side_space="):
        adapter.save_pretrained(tmp_path / "h")


def test_a_classifier_must_fit_the_labels_and_the_new_model() -> None:
    fitted, _ = digits()

    def fit(classifier: ClassWeights, *, labels: bool = True) -> None:
        adapter = FastFill(**{**QUICK, "epochs": 2})  # type: ignore[arg-type]
        adapter.trainer = lambda adapter, pairs: learn_fastfill(adapter, pairs, classifier=classifier)
        adapter.fit_pairs(fitted.pairs(labels=labels))

    def classifier(classes: int, dimension: int) -> ClassWeights:
        weight = np.zeros((classes, dimension), dtype=np.float32)
        return ClassWeights(weight, np.zeros(classes, dtype=np.float32), tuple(range(classes)))

    fit(classifier(10, NEW.dimension))
    with pytest.raises(DataError, match="label 9 is outside the classifier, which has 5 classes"):
        fit(classifier(5, NEW.dimension))
    with pytest.raises(DimensionMismatch, match="embeddings of 15 dimensions, the new model's have 16"):
        fit(classifier(10, 15))
    with pytest.raises(DataError, match="the pairs have no labels"):
        fit(classifier(10, NEW.dimension), labels=False)


def test_a_loss_that_explodes_stops_the_training() -> None:
    fitted, _ = digits()
    adapter = FastFill(**{**QUICK, "learning_rate": 1e6, "warm_up_epochs": 0})  # type: ignore[arg-type]
    with pytest.raises(TrainingDiverged, match=r"the loss became (nan|inf) in epoch \d+ of 30"):
        adapter.fit_pairs(fitted.pairs())


# --- chains -----------------------------------------------------------------------------------


def test_a_chain_of_two_transformations_leads_over_two_updates() -> None:
    """v1 → v2 → v3: the same side-information, stored beside the v1 vectors, serves both steps."""
    fitted, held_out = digits()
    third = Space("digits-third", NEW.dimension, metric="l2")
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)))[0].astype(np.float32)
    first = trained("fct")
    second = ForwardTransformation(**QUICK)  # type: ignore[arg-type]
    second.fit(
        fitted.new.matrix,
        fitted.new.matrix @ rotation,
        source=NEW,
        target=third,
        side=fitted.side.matrix,
        side_space=SIDE,
    )
    both = chain(first, second)
    assert (both.source, both.target, both.side) == (OLD, third, SIDE)
    wanted = held_out.new.matrix @ rotation
    error = np.square(lifted(both, held_out) - wanted).sum() / np.square(wanted - wanted.mean(axis=0)).sum()
    assert error < 0.25
    plain = trained("fct", side=False)
    assert chain(plain, second).side == SIDE
    other = ForwardTransformation(**{**QUICK, "epochs": 2})  # type: ignore[arg-type]
    other.fit(
        fitted.new.matrix,
        fitted.new.matrix @ rotation,
        source=NEW,
        target=third,
        side=fitted.side.matrix,
        side_space=Space("another", 20),
    )
    with pytest.raises(UsageError, match="side-information of different spaces, digits-components"):
        chain(first, other)


# --- pairs that are streamed -------------------------------------------------------------------


def test_pairs_that_do_not_fit_into_a_window_are_streamed_every_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from crossfade.training import vector_loop

    rng = np.random.default_rng(0)
    X, side = (rng.standard_normal((20_000, 6), dtype=np.float32) for _ in range(2))
    pairs = ArrayPairs(X, np.tanh(X + side), side=side)
    options = {**QUICK, "inner": 32, "epochs": 8, "batch_rows": 500}
    whole = ForwardTransformation(**options).fit_pairs(pairs)  # type: ignore[arg-type]
    monkeypatch.setattr(vector_loop, "WINDOW_ROWS", 8192)
    adapter = ForwardTransformation(**options)  # type: ignore[arg-type]
    cached = cache_pairs(adapter, PreparedPairs(pairs))
    generator = torch.Generator().manual_seed(0)
    steps = sum(1 for window in cached.windows() for _ in window.batches(500, generator))
    assert steps == cached.steps_per_epoch(500) == 16 + 16 + 7
    assert [len(window) for window in cached.windows()] == [8192, 8192, 3616]
    streamed = adapter.fit_pairs(pairs)
    for one in (whole, streamed):
        error = np.square(one.transform(X, side) - pairs.Y).mean() / np.square(pairs.Y).mean()
        assert error < 0.2


def test_side_information_of_a_fit_may_come_in_batches_of_any_size() -> None:
    fitted, _ = digits()
    pairs = align(fitted.old, fitted.new, side=fitted.side.take(np.arange(len(fitted.labels))[::-1]))
    options = {**QUICK, "epochs": 2}
    streamed = ForwardTransformation(**options).fit_pairs(pairs)  # type: ignore[arg-type]
    in_memory = ForwardTransformation(**options).fit_pairs(fitted.pairs())  # type: ignore[arg-type]
    assert streamed.arrays["out.weight"].tobytes() == in_memory.arrays["out.weight"].tobytes()
