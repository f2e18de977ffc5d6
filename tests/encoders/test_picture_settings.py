"""Picture settings against the processors of transformers that work with Pillow."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_duals import ALIGN_PICTURES, CLIP_PICTURES, SIGLIP_PICTURES, VIT_PICTURES, picture, write_json

from crossfade.encoders import picture_settings
from crossfade.encoders.picture_settings import (
    PictureSettings,
    parse_picture_settings,
    read_picture_settings,
)
from crossfade.errors import DataError, NotSupported, UnreadableFile, UsageError

CLIP = "clip.image_processing_pil_clip.CLIPImageProcessorPil"
SIGLIP = "siglip.image_processing_pil_siglip.SiglipImageProcessorPil"
VIT = "vit.image_processing_pil_vit.ViTImageProcessorPil"
ALIGN = "efficientnet.image_processing_pil_efficientnet.EfficientNetImageProcessorPil"
SQUARE = {"height": 20, "width": 20}
CONFIGURATIONS = {
    "clip": (CLIP, CLIP_PICTURES),
    "silent clip": (CLIP, {"image_processor_type": "CLIPImageProcessor"}),
    "crop within": (CLIP, {**CLIP_PICTURES, "size": {"shortest_edge": 21}, "crop_size": SQUARE}),
    "crop beyond": (CLIP, {**CLIP_PICTURES, "size": {"shortest_edge": 13}, "crop_size": SQUARE}),
    "crop only": (CLIP, {**CLIP_PICTURES, "do_resize": False}),
    "chinese clip": (CLIP, {**CLIP_PICTURES, "size": SQUARE, "crop_size": SQUARE}),
    "values as they are": (CLIP, {**CLIP_PICTURES, "do_rescale": False, "do_normalize": False}),
    "siglip": (SIGLIP, SIGLIP_PICTURES),
    "silent siglip": (SIGLIP, {"image_processor_type": "SiglipImageProcessor"}),
    "vit": (VIT, VIT_PICTURES),
    "align": (ALIGN, ALIGN_PICTURES),
    "silent efficient net": (
        ALIGN,
        {"image_processor_type": "EfficientNetImageProcessor", "include_top": False},
    ),
}
SIZES = [(16, 16), (40, 30), (31, 77), (9, 14), (400, 37)]


def processor(path: str, values: dict[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)(**values)


def expected_pixels(path: str, values: dict[str, Any], content: bytes) -> np.ndarray:
    """What transformers makes of a picture: (3, s, s), normalised."""
    with Image.open(io.BytesIO(content)) as opened:
        found = processor(path, values)(opened, return_tensors="np", do_convert_rgb=True)
    return np.asarray(found["pixel_values"][0], dtype=np.float64)


def pixels(settings: PictureSettings, content: bytes) -> np.ndarray:
    values = settings.decode(content).transpose(2, 0, 1) / 255
    mean, std = (np.array(triple).reshape(3, 1, 1) for triple in (settings.mean, settings.std))
    return (values - mean) / std


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_as_transformers_does_it(name: str, size: tuple[int, int]) -> None:
    path, values = CONFIGURATIONS[name]
    content = picture(size, seed=sum(size))
    settings = parse_picture_settings(values)
    assert settings.decode(content).shape == (settings.side, settings.side, 3)
    scale = 1 if name != "values as they are" else 255
    np.testing.assert_allclose(
        pixels(settings, content), expected_pixels(path, values, content), atol=2e-6 * scale
    )


MODES = ["RGBA PNG", "LA PNG", "L PNG", "P GIF", "CMYK JPEG", "1 PNG", "I;16 PNG"]


@pytest.mark.parametrize("kind", MODES)
def test_pictures_of_any_mode(kind: str) -> None:
    mode, form = kind.split()
    if mode == "I;16":
        buffer = io.BytesIO()
        Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(buffer, form)
        content = buffer.getvalue()
    else:
        content = picture((30, 20), mode=mode, form=form)
    path, values = CONFIGURATIONS["clip"]
    found = pixels(parse_picture_settings(values), content)
    np.testing.assert_allclose(found, expected_pixels(path, values, content), atol=2e-6)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_written_and_read_again(tmp_path: Path, name: str) -> None:
    settings = parse_picture_settings(CONFIGURATIONS[name][1])
    write_json(tmp_path / "preprocessor_config.json", settings.to_config())
    assert read_picture_settings(tmp_path) == settings


def test_transformers_reads_what_is_written() -> None:
    content = picture((50, 31))
    for name in ("clip", "siglip", "align", "crop only"):
        settings = parse_picture_settings(CONFIGURATIONS[name][1])
        expected = expected_pixels(CLIP, settings.to_config(), content)
        np.testing.assert_allclose(pixels(settings, content), expected, atol=2e-6)


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (33, 64)], ids=str)
@pytest.mark.parametrize("name", ["clip", "crop within", "crop beyond", "siglip"])
def test_cutting_before_resizing_is_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]
) -> None:
    settings, content = parse_picture_settings(CONFIGURATIONS[name][1]), picture(size)
    whole = settings.decode(content).astype(int)
    monkeypatch.setattr(picture_settings, "LONGEST", 0)
    # Not to the bit: Pillow rounds between its two passes.
    difference = np.abs(settings.decode(content) - whole)
    assert difference.max() <= 12
    assert difference.mean() < 0.5


def test_a_strip_does_not_fill_the_memory() -> None:
    # Its shorter side resized to 224, it would have 224 x 1,120,000 pixels.
    content = picture((2, 10_000))
    found = PictureSettings().decode(content)
    assert found.shape == (224, 224, 3)
    middle = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[4_999:5_001]
    np.testing.assert_allclose(found.mean(axis=(0, 1)), middle.mean(axis=(0, 1)), atol=3)


def test_no_picture() -> None:
    with pytest.raises(DataError, match="item 3 is not a readable picture"):
        PictureSettings().decode(b"no picture", "item 3")
    with pytest.raises(DataError, match="item is str, expected the bytes"):
        PictureSettings().decode("path.jpg")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"do_center_crop": False}, NotSupported, "leaves pictures unequal in size"),
        ({"crop_size": {"height": 16, "width": 24}}, NotSupported, "crop_size is 16 x 24; only .* square"),
        ({"size": {"shortest_edge": 16, "longest_edge": 32}}, NotSupported, "limits the longer edge"),
        ({"size": {"max_height": 16}}, UnreadableFile, "not the settings of pictures"),
        ({"size": 0}, UnreadableFile, "resize_to must be from 1 to 4096, got 0"),
        ({"image_std": [0.5, 0.0, 0.5]}, UnreadableFile, "std > 0"),
        ({"image_mean": [0.5, 0.5]}, UnreadableFile, "not the settings of pictures"),
        ({"resample": 9}, UnreadableFile, "resample must be Pillow's number, 0 to 5, got 9"),
    ],
)
def test_impossible_settings(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"x\.json: .*{message}"):
        parse_picture_settings({**CLIP_PICTURES, **values}, "x.json")


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="side must be from 1 to 4096, got 0"):
        PictureSettings(side=0)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"has no preprocessor_config\.json, so nothing says how"):
        read_picture_settings(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UnreadableFile, match="cannot be read as JSON"):
        read_picture_settings(tmp_path)
    write_json(tmp_path / "preprocessor_config.json", [1])
    with pytest.raises(UnreadableFile, match="expected a JSON object, got list"):
        read_picture_settings(tmp_path)
