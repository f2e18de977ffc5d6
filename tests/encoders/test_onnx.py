from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crossfade.demo
from crossfade.datasets.scenes import generate, scenes_table
from crossfade.encoders.onnx import OnnxEncoder
from crossfade.errors import DataError, DimensionMismatch, UnreadableFile, UsageError

ASSETS = Path(crossfade.demo.__path__[0]) / "assets"
DIMENSIONS = {"old": 64, "new": 96}
SCENES = 1000
SPECIAL = {"[pad]": 0, "[unknown]": 1}


@pytest.fixture(scope="module")
def data() -> tuple[list[bytes], list[str]]:
    scenes = generate("gallery", SCENES, seed=77)
    return scenes_table(scenes)["image"].to_pylist(), [scene.captions[0] for scene in scenes]


@pytest.fixture(scope="module")
def vectors(data: tuple[list[bytes], list[str]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    images, texts = data
    return {
        model: (
            OnnxEncoder.load(ASSETS / model, "image").encode(images),
            OnnxEncoder.load(ASSETS / model, "text").encode(texts),
        )
        for model in DIMENSIONS
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ASSETS / "old", tmp_path / "model"))


def change(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize("name", DIMENSIONS)
def test_vectors_have_the_shape_type_and_length_that_the_space_promises(name: str, vectors: dict) -> None:
    space = OnnxEncoder.load(ASSETS / name, "image").space
    assert space == OnnxEncoder.load(ASSETS / name, "text").space
    assert (space.model, space.dimension, space.metric) == (
        f"crossfade-demo-{name}",
        DIMENSIONS[name],
        "cosine",
    )
    assert space.normalized
    for side in vectors[name]:
        assert side.shape == (SCENES, DIMENSIONS[name])
        assert side.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1, atol=1e-6)


def recalls(images: np.ndarray, texts: np.ndarray) -> tuple[float, float]:
    scores, truth = texts @ images.T, np.arange(len(images))
    return float((scores.argmax(1) == truth).mean()), float((scores.argmax(0) == truth).mean())


def test_new_model_finds_clearly_more_than_a_useful_old_one(vectors: dict) -> None:
    for old, new in zip(recalls(*vectors["old"]), recalls(*vectors["new"]), strict=True):
        assert old > 0.25  # of 1,000; chance is 0.001
        assert new > 0.70
        assert new > old + 0.2


@pytest.mark.parametrize("modality", ["image", "text"])
def test_encoding_is_deterministic_and_hardly_depends_on_batch_and_threads(
    modality: str, data: tuple
) -> None:
    items = data[0 if modality == "image" else 1][:70]
    expected = OnnxEncoder.load(ASSETS / "new", modality).encode(items)
    assert np.array_equal(OnnxEncoder.load(ASSETS / "new", modality).encode(items), expected)
    for batch, threads in ((1, 1), (7, 2), (200, 1)):
        other = OnnxEncoder.load(ASSETS / "new", modality, batch=batch, threads=threads).encode(items)
        np.testing.assert_allclose(other, expected, atol=1e-5)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_no_items_give_no_vectors(modality: str) -> None:
    assert OnnxEncoder.load(ASSETS / "old", modality).encode([]).shape == (0, 64)


def test_a_picture_of_another_size_and_format_is_understood(data: tuple) -> None:
    encoder = OnnxEncoder.load(ASSETS / "new", "image")
    picture = Image.open(io.BytesIO(data[0][0])).resize((192, 192))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    plain, resized = encoder.encode([data[0][0], buffer.getvalue()])
    assert plain @ resized > 0.8


def test_unknown_words_case_and_length_do_not_stop_a_text() -> None:
    encoder = OnnxEncoder.load(ASSETS / "new", "text")
    lower, upper, unknown = encoder.encode(["a red ring", "A Red RING", "ein roter Ring " * 10_000])
    assert np.array_equal(lower, upper)
    assert np.isfinite(unknown).all()


@pytest.mark.parametrize(
    ("modality", "items", "message"),
    [
        ("image", ["a red ring"], "item 0 is str, expected the bytes of a picture"),
        ("image", [b"not a picture"], "item 0 is not a readable picture"),
        ("text", ["a red ring", b"abc"], "item 1 is bytes, expected a text"),
        ("text", ["a red ring", None], "item 1 is NoneType, expected a text"),
        ("text", ["a red ring", "  "], "item 1 has no words"),
    ],
)
def test_an_item_that_cannot_be_embedded_is_named(modality: str, items: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        OnnxEncoder.load(ASSETS / "old", modality).encode(items)


def test_a_picture_cut_short_is_named_across_batches(data: tuple) -> None:
    images = [*data[0][:9], data[0][9][:-500]]
    with pytest.raises(DataError, match="item 9 is not a readable picture"):
        OnnxEncoder.load(ASSETS / "old", "image", batch=4).encode(images)


def test_a_huge_picture_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch, data: tuple) -> None:
    monkeypatch.setattr("crossfade.encoders.onnx.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="item 0 has 48 x 48 pixels, at most 1000 are read"):
        OnnxEncoder.load(ASSETS / "old", "image").encode(data[0][:1])
    monkeypatch.setattr("crossfade.encoders.onnx.MAX_IMAGE_BYTES", 100)
    with pytest.raises(DataError, match=r"item 0 has \d+ bytes, at most 100 are read"):
        OnnxEncoder.load(ASSETS / "old", "image").encode(data[0][:1])


@pytest.mark.parametrize(
    ("modality", "options", "message"),
    [
        ("audio", {}, "modality 'audio' is not one of image, text"),
        ("text", {"batch": 0}, "batch must be at least 1, got 0"),
        ("text", {"threads": -1}, "threads must be at least 0"),
    ],
)
def test_bad_options_are_named(modality: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OnnxEncoder.load(ASSETS / "old", modality, **options)


def test_a_model_without_the_tower_names_what_it_has(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["image"]
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="no image tower, only: text"):
        OnnxEncoder.load(model, "image")


def test_a_missing_directory_and_a_missing_file_are_named(model: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"nowhere/config.json: cannot be read"):
        OnnxEncoder.load(model / "nowhere", "text")
    (model / "text.onnx").unlink()
    with pytest.raises(UnreadableFile, match=r"text.onnx: no such file, but config.json names it"):
        OnnxEncoder.load(model, "text")


def test_a_model_cut_short_is_named(model: Path) -> None:
    (model / "image.onnx").write_bytes((model / "image.onnx").read_bytes()[:5000])
    with pytest.raises(UnreadableFile, match=r"image.onnx: not a model that onnxruntime can run"):
        OnnxEncoder.load(model, "image")


def test_a_dimension_that_the_model_does_not_have_is_refused(model: Path) -> None:
    space = json.loads((model / "config.json").read_text())["space"]
    change(model, space={**space, "dimension": 96})
    with pytest.raises(DimensionMismatch, match=r"\(1, 64\), its config.json promises \(1, 96\)"):
        OnnxEncoder.load(model, "text").encode(["a red ring"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"space": {"model": "m", "dimension": 0}}, "'space' is not valid .*at least 1, got 0"),
        ({"space": {"model": "m", "dimension": 64, "shape": 1}}, "'space' is not valid .*unknown keys"),
        ({"text": "text.onnx"}, "'text' must be an object, got str"),
        ({"text": {"file": "../text.onnx", "length": 4}}, "'vocabulary' must name a file beside it"),
        (
            {"text": {"file": "text.onnx", "vocabulary": "vocabulary.json"}},
            "'length' must be a whole number .*None",
        ),
        (
            {"text": {"file": "../t", "vocabulary": "vocabulary.json", "length": 4}},
            "'file' must name a file beside",
        ),
    ],
)
def test_a_config_that_is_not_valid_is_named(model: Path, values: dict, message: str) -> None:
    change(model, **values)
    with pytest.raises(UnreadableFile, match=message):
        OnnxEncoder.load(model, "text")


@pytest.mark.parametrize("content", ["{", "[]", '{"space": 1}', "{}"])
def test_a_config_that_is_not_json_or_has_no_space_is_named(model: Path, content: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(UnreadableFile, match=r"config.json: "):
        OnnxEncoder.load(model, "text")


@pytest.mark.parametrize("vocabulary", [{"a": 0}, {**SPECIAL, "a": 7}, {**SPECIAL, "a": []}])
def test_a_vocabulary_that_does_not_fit_is_named(model: Path, vocabulary: dict) -> None:
    (model / "vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(UnreadableFile, match=r"vocabulary.json: "):
        OnnxEncoder.load(model, "text")


def test_length_is_one_after_encoding_if_and_only_if_the_space_is_normalized(model: Path) -> None:
    space = json.loads((model / "config.json").read_text())["space"]
    normalized = OnnxEncoder.load(model, "text").encode(["a red ring"])
    change(model, space={**space, "normalized": False})
    raw = OnnxEncoder.load(model, "text").encode(["a red ring"])
    np.testing.assert_allclose(raw / np.linalg.norm(raw), normalized, atol=1e-6)


def test_importing_the_encoder_loads_neither_runtime_nor_pillow() -> None:
    heavy = "{'onnxruntime', 'PIL', 'torch'}"
    code = f"import sys, crossfade.encoders.onnx; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
