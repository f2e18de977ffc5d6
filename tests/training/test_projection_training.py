"""Stage 1 of XBT on a planted world: φ learned from texts alone maps images."""

from __future__ import annotations

import math
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from two_towers import NEW, OLD, World, found, world

from crossfade.adapters.projection import Projection
from crossfade.errors import TrainingDiverged
from crossfade.training import vector_loop
from crossfade.training.losses.cosine import cosine_loss
from crossfade.training.losses.info_nce import info_nce
from crossfade.training.projection import ProjectionLearner, ProjectionNetwork, learn
from crossfade.training.transformation import Spreads
from crossfade.training.vector_loop import Watch
from crossfade.vectors import ArrayPairs, FloatMatrix

QUICK = {"hidden": 64, "batch_rows": 256, "epochs": 8}
rng = np.random.default_rng(0)


@cache
def planted() -> World:
    return world()


def trained(pairs: ArrayPairs, gap: FloatMatrix | None = None, **options: object) -> Projection:
    adapter = Projection(**{**QUICK, **options})  # type: ignore[arg-type]
    adapter.trainer = partial(learn, gap=gap)
    return adapter.fit_pairs(pairs)


def both_ways(adapter: Projection) -> tuple[float, float]:
    """New images on old texts, new texts on old images."""
    here = planted()
    images, texts = adapter.transform(here.new_images), adapter.transform(here.new_texts)
    return found(images, here.old_texts), found(texts, here.old_images)


# --- what it is for ---------------------------------------------------------------------------


def test_learned_from_texts_alone_new_beats_old_both_ways_and_noise_is_what_carries_it() -> None:
    here = planted()
    old = found(here.old_images, here.old_texts), found(here.old_texts, here.old_images)
    with_noise, without = both_ways(trained(here.texts)), both_ways(trained(here.texts, sigma=0.0))
    assert with_noise[0] > old[0] + 0.1
    assert with_noise[1] > old[1] + 0.2
    assert with_noise[0] > without[0] + 0.3
    assert with_noise[1] > without[1] + 0.1


def test_shuffled_text_pairs_destroy_it() -> None:
    pairs = planted().texts
    order = np.random.default_rng(1).permutation(len(pairs))
    shuffled = ArrayPairs(pairs.X, pairs.Y[order], source=NEW, target=OLD)
    assert max(both_ways(trained(shuffled))) < 0.06  # 5 of 400 are found by chance


def test_the_shift_of_unpaired_images_helps_images_and_keeps_texts() -> None:
    here = planted()
    gap = here.unpaired.mean(axis=0) - here.texts.X.mean(axis=0)
    plain, shifted = both_ways(trained(here.texts)), both_ways(trained(here.texts, gap, shifted=0.5))
    assert shifted[0] > plain[0]
    assert shifted[1] > plain[1] - 0.02
    assert trained(here.texts, gap, epochs=1, shifted=0.5).chosen[
        "length of the modality gap"
    ] == pytest.approx(float(np.linalg.norm(gap)))


# --- noise and shift --------------------------------------------------------------------------


def learner(
    sigma: float, gap: torch.Tensor | None = None, d: int = 400, **options: object
) -> ProjectionLearner:
    adapter = Projection(sigma=sigma, **options)  # type: ignore[arg-type]
    return ProjectionLearner(ProjectionNetwork(d, 8, 4, 1), adapter, unit=True, gap=gap)


def spread(rows: int, d: int = 400) -> torch.Tensor:
    """Unit vectors as the loop scales them: of length √d."""
    x = torch.from_numpy(rng.standard_normal((rows, d)).astype(np.float32))
    return x / x.norm(dim=1, keepdim=True) * math.sqrt(d)


@pytest.mark.parametrize("sigma", [0.25, 1.0, 2.0])
def test_noise_is_sigma_times_as_long_as_the_vector_and_the_sum_keeps_its_length(sigma: float) -> None:
    x = spread(500)
    seen = learner(sigma).disturbed(x)
    torch.testing.assert_close(seen.norm(dim=1), x.norm(dim=1))
    # Noise in many dimensions is orthogonal to x: the tangent of the angle is its relative length.
    cosine = torch.nn.functional.cosine_similarity(seen, x, dim=1)
    tangent = torch.tan(torch.acos(cosine))
    assert float(tangent.mean()) == pytest.approx(sigma, rel=0.02)


def test_noise_is_fresh_at_every_step_and_the_same_for_the_same_seed() -> None:
    x = spread(3)
    first, second, other = learner(1.0), learner(1.0), learner(1.0, seed=1)
    steps = [first.disturbed(x) for _ in range(2)]
    assert not torch.allclose(steps[0], steps[1])
    torch.testing.assert_close(second.disturbed(x), steps[0], rtol=0, atol=0)
    assert not torch.allclose(other.disturbed(x), steps[0])
    resumed = learner(1.0)
    resumed.load_state_dict(second.state_dict())
    torch.testing.assert_close(resumed.disturbed(x), steps[1], rtol=0, atol=0)
    assert learner(0.0).disturbed(x).sub(x).abs().max() < 1e-5


def test_a_share_of_the_rows_is_moved_by_the_gap() -> None:
    x, gap = spread(2000), 0.7 * spread(1)[0]
    away = learner(0.0, gap, shifted=0.3).disturbed(x)
    moved = ~torch.isclose(away, x, atol=1e-4).all(dim=1)
    assert float(moved.float().mean()) == pytest.approx(0.3, abs=0.04)
    expected = torch.nn.functional.normalize(x + gap, dim=1) * 20
    torch.testing.assert_close(away[moved], expected[moved])


# --- the losses -------------------------------------------------------------------------------


def test_info_nce_equals_a_loop_over_both_directions() -> None:
    first, second = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    expected = 0.0
    for i in range(5):
        own = math.exp(cosine(first[i], second[i]) / 0.2)
        expected -= math.log(own / sum(math.exp(cosine(first[i], second[j]) / 0.2) for j in range(5)))
        expected -= math.log(own / sum(math.exp(cosine(first[j], second[i]) / 0.2) for j in range(5)))
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    assert float(info_nce(*tensors, 0.2)) == pytest.approx(expected / 10)
    assert float(info_nce(*tensors, torch.tensor(0.2))) == pytest.approx(expected / 10)
    assert float(info_nce(3 * tensors[0], tensors[1], 0.2)) == pytest.approx(expected / 10)


def test_cosine_loss_equals_a_loop() -> None:
    first, second = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    one_by_one = [
        1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(first, second, strict=True)
    ]
    assert float(cosine_loss(torch.from_numpy(first), torch.from_numpy(second))) == pytest.approx(
        float(np.mean(one_by_one))
    )


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    adapter = Projection(sigma=0.0, cosine=2.0, contrastive_weight=0.25, temperature=0.1)
    network = ProjectionNetwork(6, 4, 5, 1)
    x, y = torch.randn(7, 6), torch.randn(7, 4)
    numbers = ProjectionLearner(network, adapter, unit=True)(x, x[:, :0], y, torch.zeros(7))
    mapped = network(x)
    expected = 2 * cosine_loss(mapped, y) + 0.25 * info_nce(mapped, y, 0.1)
    torch.testing.assert_close(numbers["loss"], expected, rtol=1e-4, atol=1e-5)
    assert set(numbers) == {"loss", "cosine", "contrastive"}


# --- the closed form, the network, the loop ---------------------------------------------------


def test_it_starts_from_the_best_linear_map_of_noisy_vectors() -> None:
    """Least squares on many noisy copies, which knows nothing of the closed form."""
    pairs = planted().texts
    sigma, copies = 0.8, 40
    gap = 0.9 * planted().unpaired.mean(axis=0)
    start = trained(pairs, gap, sigma=sigma, epochs=1, warm_up_epochs=0, learning_rate=1e-9, shifted=0.25)
    random = np.random.default_rng(3)
    noisy = np.concatenate([pairs.X] * copies).astype(np.float64)
    noisy += (random.random((len(noisy), 1)) < 0.25) * gap
    noisy += sigma / math.sqrt(NEW.dimension) * random.standard_normal(noisy.shape)
    longer = math.sqrt(1 + sigma**2)
    design = np.concatenate([noisy / longer, np.ones((len(noisy), 1))], axis=1)
    solution = np.linalg.lstsq(design, np.concatenate([pairs.Y] * copies).astype(np.float64), rcond=None)[0]
    expected = planted().new_texts @ solution[:-1] + solution[-1]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(start.transform(planted().new_texts), expected, atol=0.02)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_numpy_maps_as_torch_does(depth: int) -> None:
    here = planted()
    adapter = trained(here.texts, depth=depth, epochs=2)
    network = ProjectionNetwork.from_adapter(adapter)
    x = torch.from_numpy(here.new_images)
    mapped = torch.nn.functional.normalize(network(x), dim=1)
    assert mapped.requires_grad
    np.testing.assert_allclose(adapter.transform(here.new_images), mapped.detach().numpy(), atol=1e-5)


def test_the_network_that_was_trained_is_what_the_adapter_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means and spreads, folded into the arrays, change nothing."""
    here = planted()
    networks: list[ProjectionNetwork] = []
    original = ProjectionNetwork.folded

    def spy(network: ProjectionNetwork, spreads: Spreads) -> dict[str, FloatMatrix]:
        networks.append(network)
        return original(network, spreads)

    monkeypatch.setattr(ProjectionNetwork, "folded", spy)
    adapter = trained(here.texts, epochs=1)
    scaled = torch.from_numpy(here.new_texts) * math.sqrt(NEW.dimension)
    mapped = torch.nn.functional.normalize(networks[0](scaled), dim=1).detach().numpy()
    np.testing.assert_allclose(adapter.transform(here.new_texts), mapped, atol=1e-5)


def test_a_stopped_training_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    pairs = planted().texts

    def fit(watch: Watch | None) -> dict[str, bytes]:
        adapter = Projection(**{**QUICK, "epochs": 4})  # type: ignore[arg-type]
        adapter.trainer = partial(learn, watch=watch)
        return {name: array.tobytes() for name, array in adapter.fit_pairs(pairs).arrays.items()}

    def stop(epoch: int, numbers: object) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    whole = fit(None)
    with pytest.raises(KeyboardInterrupt):
        fit(Watch(folder=tmp_path, log=stop))
    seen: list[int] = []
    assert fit(Watch(folder=tmp_path, log=lambda epoch, numbers: seen.append(epoch))) == whole
    assert seen == [3, 4]


def test_windows_of_a_long_stream_see_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pairs than a window holds are trained on in windows, with the same start and like quality."""
    monkeypatch.setattr("crossfade.adapters.prepared.BATCH_ROWS", 512)
    monkeypatch.setattr(vector_loop, "WINDOW_ROWS", 1024)
    assert both_ways(trained(planted().texts))[0] > 0.5


def test_a_loss_that_explodes_names_the_learning_rate() -> None:
    with pytest.raises(TrainingDiverged, match="learning rate"):
        trained(planted().texts, learning_rate=1e30, warm_up_epochs=0, cosine=1e30)
