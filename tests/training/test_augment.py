from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from crossfade.encoders.architecture import Architecture
from crossfade.encoders.network import center_view
from crossfade.errors import UsageError
from crossfade.training.augment import Augmentation, Draws
from crossfade.training.recipe import AugmentationRecipe

NOTHING = {"crop": "center", "flip": 0.0}


def _pictures(count: int = 4, side: int = 12) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def _views(
    recipe: AugmentationRecipe, pictures: torch.Tensor, size: int = 12, seed: int = 0, crop: float = 1.0
):
    side = pictures.shape[1]
    architecture = Architecture(picture_size=side, input_size=size, crop=crop)
    augmentation = Augmentation(recipe, architecture)
    draws = augmentation.draw(len(pictures), torch.Generator().manual_seed(seed))
    return augmentation.apply(pictures, draws), draws


def _float(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.permute(0, 3, 1, 2).float() / 255


def _draws(count: int, **changed: float) -> Draws:
    neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "sigma": 0.0, **changed}
    colors = {name: torch.full((count,), value) for name, value in neutral.items()}
    return Draws(center=torch.zeros(count, 2), extent=torch.ones(count, 2), **colors)


def _recolored(pictures: torch.Tensor, **changed: float) -> torch.Tensor:
    recipe = AugmentationRecipe(crop="center", flip=0, jitter=1.0, blur=float("sigma" in changed))
    augmentation = Augmentation(recipe, Architecture(picture_size=12, input_size=12))
    return augmentation.apply(pictures, _draws(len(pictures), **changed))


def test_nothing_random_gives_the_picture() -> None:
    pictures = _pictures()
    views, _ = _views(AugmentationRecipe(**NOTHING), pictures)
    torch.testing.assert_close(views, _float(pictures), atol=1e-5, rtol=0)


def test_center_is_what_the_encoder_sees() -> None:
    pictures = _pictures(side=16)
    views, _ = _views(AugmentationRecipe(**NOTHING), pictures, size=12, crop=0.75)
    expected = center_view(pictures, Architecture(picture_size=16, input_size=12, crop=0.75))
    torch.testing.assert_close(views, expected, atol=1e-5, rtol=0)


def test_flip_mirrors_about_half() -> None:
    pictures = _pictures(200)
    views, draws = _views(AugmentationRecipe(crop="center", flip=0.5), pictures)
    mirrored = draws.extent[:, 0] < 0
    assert 70 < int(mirrored.sum()) < 130
    torch.testing.assert_close(views[mirrored], _float(pictures).flip(3)[mirrored], atol=1e-5, rtol=0)
    torch.testing.assert_close(views[~mirrored], _float(pictures)[~mirrored], atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [12, 13, 16])
def test_padded_crops_are_shifted_windows_with_zeros_outside(side: int) -> None:
    pictures = _pictures(30, side)
    views, draws = _views(AugmentationRecipe(crop="padded", padding=3, flip=0), pictures, size=12)
    padded = torch.nn.functional.pad(_float(pictures), (3, 3, 3, 3))
    corners = ((draws.center + 1) * side / 2 - 6 + 3).round().int()
    assert int(corners.min()) == 0
    assert int(corners.max()) == side + 6 - 12
    for row, (x, y) in enumerate(corners.tolist()):
        window = padded[row, :, y : y + 12, x : x + 12]
        torch.testing.assert_close(views[row], window, atol=1e-4, rtol=0)


def test_resized_crops_keep_to_area_and_shape_and_stay_inside() -> None:
    recipe = AugmentationRecipe(crop="resized", scale=(0.25, 0.75), flip=0)
    _, draws = _views(recipe, _pictures(2000, 4), size=4)
    area = draws.extent[:, 0] * draws.extent[:, 1]
    shape = draws.extent[:, 0] / draws.extent[:, 1]
    assert bool((draws.center.abs() + draws.extent <= 1 + 1e-6).all())
    assert 0.24 < float(area.min()) < 0.27
    assert 0.70 < float(area.max()) <= 0.76
    assert 0.74 < float(shape.min()) < 0.8
    assert 1.25 < float(shape.max()) < 1.34


def test_a_resized_crop_of_a_quarter_is_that_quarter() -> None:
    pictures = _pictures(1, 24)
    draws = _draws(1)
    draws.center[:] = torch.tensor([-0.5, 0.5])
    draws.extent[:] = 0.5
    augmentation = Augmentation(AugmentationRecipe(), Architecture(picture_size=24, input_size=12))
    expected = _float(pictures)[:, :, 12:, :12]
    torch.testing.assert_close(augmentation.apply(pictures, draws), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.5, 1.3])
def test_jitter_agrees_with_pillow(name: str, enhance: type, factor: float) -> None:
    pictures = _pictures()
    views = _recolored(pictures, **{name: factor})
    for view, picture in zip(views, pictures, strict=True):
        expected = np.asarray(enhance(Image.fromarray(picture.numpy())).enhance(factor)) / 255
        assert np.abs(view.permute(1, 2, 0).numpy() - expected).max() < 2.5 / 255


def test_hue_keeps_gray_and_luma_and_turns_colors() -> None:
    gray = torch.full((1, 12, 12, 3), 100, dtype=torch.uint8)
    torch.testing.assert_close(_recolored(gray, hue=0.3), _float(gray), atol=1e-4, rtol=0)
    red = torch.zeros(1, 12, 12, 3, dtype=torch.uint8)
    red[..., 0] = 150
    red[..., 1:] = 90
    turned = _recolored(red, hue=0.1)[0, :, 0, 0]
    weights = torch.tensor([0.299, 0.587, 0.114])
    assert float(turned @ weights) == pytest.approx(float(_float(red)[0, :, 0, 0] @ weights), abs=1e-4)
    before = colorsys.rgb_to_hsv(*_float(red)[0, :, 0, 0].tolist())[0]
    after = colorsys.rgb_to_hsv(*turned.tolist())[0]
    assert min(abs(after - before), 1 - abs(after - before)) == pytest.approx(0.1, abs=0.06)


def test_blur_agrees_with_pillow_away_from_the_edges() -> None:
    smooth = np.asarray(
        Image.fromarray(_pictures(1, 6)[0].numpy()).resize((40, 40), Image.Resampling.BICUBIC)
    )
    recipe = AugmentationRecipe(crop="center", flip=0, blur=1.0)
    augmentation = Augmentation(recipe, Architecture(picture_size=40, input_size=40))
    view = augmentation.apply(torch.from_numpy(smooth.copy())[None], _draws(1, sigma=0.8))[0]
    expected = np.asarray(Image.fromarray(smooth).filter(ImageFilter.GaussianBlur(0.8))) / 255
    assert np.abs(view.permute(1, 2, 0).numpy() - expected)[4:-4, 4:-4].max() < 4 / 255


def test_the_same_seed_gives_the_same_views_and_a_part_of_them_the_same_part() -> None:
    recipe = AugmentationRecipe(
        jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, blur=0.5
    )
    pictures = _pictures(10, 24)
    views, draws = _views(recipe, pictures, size=24, seed=5)
    again, _ = _views(recipe, pictures, size=24, seed=5)
    other, _ = _views(recipe, pictures, size=24, seed=6)
    assert torch.equal(views, again)
    assert not torch.equal(views, other)
    augmentation = Augmentation(recipe, Architecture(picture_size=24, input_size=24))
    torch.testing.assert_close(
        augmentation.apply(pictures[3:7], draws.rows(3, 7)), views[3:7], atol=1e-6, rtol=0
    )
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1


def test_grayscale_has_equal_channels() -> None:
    views, _ = _views(AugmentationRecipe(crop="center", flip=0, grayscale=1.0), _pictures())
    torch.testing.assert_close(views[:, 0], views[:, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(views[:, 0], views[:, 2], atol=1e-5, rtol=0)


def test_padded_crops_larger_than_the_padded_picture_are_refused() -> None:
    with pytest.raises(UsageError, match=r"padded crops of 32 pixels do not fit pictures of 8 with 4"):
        Augmentation(AugmentationRecipe(crop="padded"), Architecture(picture_size=8, input_size=32))
