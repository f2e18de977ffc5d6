"""Decoding once, corrupt pictures, classes that are too small, and vectors of a labelled set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_training import png, recipe_values, write_images

from crossfade.datasets.images import open_images
from crossfade.encoders import CallableEncoder
from crossfade.encoders.pictures import decode_picture
from crossfade.encoders.trained import TrainedEncoder
from crossfade.errors import DataError, OutOfSpace, UsageError
from crossfade.spaces import Space
from crossfade.training import Recipe, embed_images, train_model
from crossfade.training.classifier import ClassWeights, class_means, load_classifier, synthesize
from crossfade.training.pixels import cache_pixels
from crossfade.vectors import open_vectors


def _pictures(count: int) -> list[bytes]:
    generator = np.random.default_rng(0)
    return [png(generator.integers(0, 256, (10, 10, 3))) for _ in range(count)]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Twelve images of three classes, two of which cannot be read."""
    pictures = _pictures(12)
    pictures[3], pictures[7] = pictures[3][:50], b""
    return write_images(tmp_path / "broken.parquet", pictures, np.repeat([0, 1, 2], 4))


def test_pictures_are_decoded_once(
    digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images(digits["test"])
    seen: list[tuple[int, int]] = []
    pixels = cache_pixels(images, 12, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert pixels.array.shape == (len(images), 12, 12, 3)
    for row, content in enumerate(images.contents()):
        np.testing.assert_array_equal(pixels.array[row], decode_picture(content, 12))
    assert pixels.labels.names == images.labels.names
    np.testing.assert_array_equal(pixels.labels.codes, images.labels.codes)
    assert seen[-1] == (512, 597)
    monkeypatch.setattr("crossfade.training.pixels.decode_picture", None)
    again = cache_pixels(images, 12, tmp_path)
    np.testing.assert_array_equal(again.array, pixels.array)
    with pytest.raises(TypeError):
        list(cache_pixels(images, 13, tmp_path).array)


def test_corrupt_pictures_are_counted_and_named(broken: Path, tmp_path: Path) -> None:
    message = (
        r"2 of 12 images cannot be read: 3, 7; repair them, or leave them out with --set data.corrupt=skip"
    )
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            cache_pixels(open_images(broken), 8, tmp_path)


def test_corrupt_pictures_can_be_left_out(broken: Path, tmp_path: Path) -> None:
    pixels = cache_pixels(open_images(broken), 8, tmp_path, on_corrupt="skip")
    assert pixels.corrupt == (3, 7)
    assert pixels.ids.to_pylist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert pixels.labels.codes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    good = [content for row, content in enumerate(open_images(broken).contents()) if row not in (3, 7)]
    np.testing.assert_array_equal(pixels.array, [decode_picture(content, 8) for content in good])
    with pytest.raises(UsageError, match="refuse, skip"):
        cache_pixels(open_images(broken), 8, tmp_path, on_corrupt="ignore")  # type: ignore[arg-type]


def test_training_refuses_or_skips_corrupt_pictures(broken: Path, tmp_path: Path) -> None:
    values = recipe_values(batch=5, schedule={"max_steps": 1})
    with pytest.raises(DataError, match="2 of 12 images cannot be read"):
        train_model(Recipe.from_dict(values), broken, tmp_path / "model", device="cpu")
    assert not (tmp_path / "model").exists()
    skipping = Recipe.from_dict({**values, "data": {"corrupt": "skip"}})
    trained = train_model(skipping, broken, tmp_path / "model", device="cpu")
    assert (trained.images, trained.corrupt) == (10, (3, 7))


def test_nothing_but_rubbish_is_an_error(tmp_path: Path) -> None:
    path = write_images(tmp_path / "x.parquet", [b"text"] * 3, np.arange(3))
    with pytest.raises(DataError, match="none of 3 images can be read"):
        cache_pixels(open_images(path), 8, tmp_path)


def test_a_disk_that_is_too_small_is_noticed_before(
    digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(OutOfSpace, match=r"choose another disk with --cache"):
        cache_pixels(open_images(digits["test"]), 8, tmp_path)


def test_a_class_with_one_image_is_refused_for_metric_learning(tmp_path: Path) -> None:
    data = write_images(tmp_path / "x.parquet", _pictures(9), np.array([0, 0, 0, 0, 1, 1, 1, 1, 2]))
    values = recipe_values(method="metric-learning", batch=4, schedule={"max_steps": 1})
    with pytest.raises(DataError, match=r"1 of 3 classes have fewer than 2 images: 2 \(1\)"):
        train_model(Recipe.from_dict(values), data, tmp_path / "model", device="cpu")
    skipping = Recipe.from_dict({**values, "data": {"small_classes": "skip"}})
    trained = train_model(skipping, data, tmp_path / "model", device="cpu")
    assert (trained.images, trained.classes) == (8, 2)


def _model(digits: dict[str, Path], folder: Path, method: str = "classification") -> TrainedEncoder:
    recipe = Recipe.from_dict(recipe_values(method=method, schedule={"max_steps": 2}))
    train_model(recipe, digits["train"], folder / "model", device="cpu")
    return TrainedEncoder.load(folder / "model", device="cpu")


def test_vectors_carry_space_labels_and_ids(digits: dict[str, Path], tmp_path: Path) -> None:
    encoder, images = _model(digits, tmp_path), open_images(digits["test"])
    done = embed_images(encoder, images, tmp_path / "a.parquet", cache=tmp_path / "pixels")
    embed_images(encoder, images, tmp_path / "b.parquet")
    from_cache, from_bytes = (
        open_vectors(str(tmp_path / name)).read(("label",)) for name in ("a.parquet", "b.parquet")
    )
    assert done.rows == len(images) == len(from_cache)
    assert from_cache.space == encoder.space
    assert from_cache.ids.to_pylist() == images.ids.to_pylist()
    names = [images.labels.names[code] for code in images.labels.codes]
    assert from_cache.columns["label"].to_pylist() == names
    np.testing.assert_allclose(from_cache.matrix, from_bytes.matrix, atol=1e-6)
    with pytest.raises(UsageError, match="is there already"):
        embed_images(encoder, images, tmp_path / "a.parquet")


@pytest.mark.parametrize("cached", [False, True])
def test_embedding_refuses_or_skips_corrupt_pictures(
    cached: bool, broken: Path, digits: dict[str, Path], tmp_path: Path
) -> None:
    encoder, images = _model(digits, tmp_path), open_images(broken)
    cache = tmp_path / "pixels" if cached else None
    with pytest.raises(DataError, match=r"images cannot be read: 3, 7"):
        embed_images(encoder, images, tmp_path / "a.parquet", cache=cache)
    assert not (tmp_path / "a.parquet").exists()
    done = embed_images(encoder, images, tmp_path / "a.parquet", cache=cache, on_corrupt="skip")
    assert (done.rows, done.corrupt) == (10, (3, 7))
    assert open_vectors(str(tmp_path / "a.parquet")).read().ids.to_pylist() == [
        0,
        1,
        2,
        4,
        5,
        6,
        8,
        9,
        10,
        11,
    ]


def test_a_callable_sees_the_bytes(broken: Path, tmp_path: Path) -> None:
    encoder = CallableEncoder(lambda items: [[len(item) + 1.0] for item in items], Space("length", 1))
    assert embed_images(encoder, open_images(broken), tmp_path / "a.parquet").rows == 12


def test_the_classifier_is_kept_with_its_classes(digits: dict[str, Path], tmp_path: Path) -> None:
    encoder = _model(digits, tmp_path)
    weights = load_classifier(tmp_path / "model")
    assert weights is not None
    assert weights.names == tuple(range(10))
    embeddings = encoder.encode(list(open_images(digits["test"]).contents())[:5])
    import torch

    logits = weights.frozen()(torch.from_numpy(embeddings)).numpy()
    np.testing.assert_allclose(logits, embeddings @ weights.weight.T + weights.bias, atol=1e-5)


def test_side_information_has_no_classifier(digits: dict[str, Path], tmp_path: Path) -> None:
    _model(digits, tmp_path, "simclr")
    assert load_classifier(tmp_path / "model") is None


def test_class_means_are_the_naive_means() -> None:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(20, 3)).astype(np.float32)
    codes = generator.permutation(np.arange(20) % 4)
    means = class_means(embeddings, codes, 4)
    for code in range(4):
        np.testing.assert_allclose(means[code], embeddings[codes == code].mean(0), atol=1e-6)
    with pytest.raises(DataError, match=r"class means need items of each of 5 classes .* 1 have none"):
        class_means(embeddings, codes, 5)


def test_a_synthesized_classifier_keeps_what_the_old_one_knows() -> None:
    generator = np.random.default_rng(0)
    old = ClassWeights(
        generator.normal(size=(2, 3)).astype(np.float32), np.array([0.5, 1.5], np.float32), ("b", "c")
    )
    embeddings, codes = generator.normal(size=(30, 3)).astype(np.float32), np.arange(30) % 3
    made = synthesize(old, embeddings, codes, ("a", "b", "c"))
    np.testing.assert_array_equal(made.weight[1:], old.weight)
    assert made.bias.tolist() == [1.0, 0.5, 1.5]
    mean = embeddings[codes == 0].mean(0)
    length = np.linalg.norm(old.weight, axis=1).mean()
    np.testing.assert_allclose(made.weight[0], mean / np.linalg.norm(mean) * length, rtol=1e-5)
    alone = synthesize(None, embeddings, codes, ("a", "b", "c"))
    assert alone.normalized
    np.testing.assert_allclose(np.linalg.norm(alone.weight, axis=1), 1, rtol=1e-6)
