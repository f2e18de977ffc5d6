"""Random views of pictures, on batches of tensors, on whichever device they are.

The random numbers are drawn on the CPU from a seeded generator, for the whole batch at once: the
same view of the same picture results on every device and for every number of processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from crossfade.encoders.architecture import Architecture
from crossfade.errors import UsageError
from crossfade.training.recipe import AugmentationRecipe

GRAY = (0.299, 0.587, 0.114)
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of n views.

    Attributes:
        center: (n, 2) middle of the window, x and y, in [-1, 1] over the picture.
        extent: (n, 2) half the window's width and height in the same units; a negative width mirrors it.
        brightness, contrast, saturation: (n,) factors.
        hue: (n,) rotation of the colors, in turns.
        sigma: (n,) width of the blur in pixels, 0 for none.
    """

    center: Tensor
    extent: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    sigma: Tensor

    def rows(self, start: int, stop: int) -> Draws:
        """The numbers of some of the views."""
        return Draws(**{field.name: getattr(self, field.name)[start:stop] for field in fields(self)})


class Augmentation:
    """Random crops, flips, color jitter, grayscale and blur.

    Args:
        recipe: probabilities and strengths.
        architecture: side of the pictures and of the views.

    Raises:
        UsageError: padded crops of pictures that are too small for them.
    """

    def __init__(self, recipe: AugmentationRecipe, architecture: Architecture) -> None:
        self.recipe, self.architecture = recipe, architecture
        self.input_size = architecture.input_size
        widest = architecture.picture_size + 2 * recipe.padding
        if recipe.crop == "padded" and self.input_size > widest:
            raise UsageError(
                f"padded crops of {self.input_size} pixels do not fit pictures of "
                f"{architecture.picture_size} with {recipe.padding} of padding; "
                "raise architecture.picture_size or use another crop"
            )
        self._colors = recipe.jitter > 0 or recipe.grayscale > 0

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The random numbers of `count` views."""
        recipe = self.recipe
        center, extent = self._windows(count, generator)
        mirrored = _happens(count, recipe.flip, generator)
        extent[:, 0] = torch.where(mirrored, -extent[:, 0], extent[:, 0])
        jittered = _happens(count, recipe.jitter, generator)
        factors = [
            torch.where(jittered, 1 + strength * _signed(count, generator), 1.0).clamp(min=0)
            for strength in (recipe.brightness, recipe.contrast, recipe.saturation)
        ]
        hue = torch.where(jittered, recipe.hue * _signed(count, generator), 0.0)
        gray = _happens(count, recipe.grayscale, generator)
        factors[2] = torch.where(gray, 0.0, factors[2])
        sigma = 0.1 + 1.9 * torch.rand(count, generator=generator)
        sigma = torch.where(_happens(count, recipe.blur, generator), sigma, 0.0)
        brightness, contrast, saturation = factors
        return Draws(center, extent, brightness, contrast, saturation, hue, sigma)

    @torch.no_grad()
    def apply(self, pictures: Tensor, draws: Draws) -> Tensor:
        """(n, side, side, 3) uint8 → (n, 3, input_size, input_size) float in [0, 1]."""
        device = pictures.device
        views = self._cut(pictures.permute(0, 3, 1, 2).float() / 255, draws)
        if self._colors:
            views = _recolor(views, draws)
        if self.recipe.blur:
            views = _blur(views, draws.sigma.to(device))
        return views

    def _windows(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.recipe.crop == "resized":
            return _resized_windows(count, self.recipe, generator)
        if self.recipe.crop == "center":
            return torch.zeros(count, 2), torch.full((count, 2), self.architecture.crop)
        side, margin = self.architecture.picture_size, self.recipe.padding
        # The window's corner is on a whole pixel, so that no value is interpolated.
        last = side + 2 * margin - self.input_size
        corner = torch.randint(0, last + 1, (count, 2), generator=generator) - margin
        center = (corner + self.input_size / 2) * 2 / side - 1
        return center, torch.full((count, 2), self.input_size / side)

    def _cut(self, pixels: Tensor, draws: Draws) -> Tensor:
        count, device = len(pixels), pixels.device
        center, extent = draws.center.to(device), draws.extent.to(device)
        theta = torch.zeros(count, 2, 3, device=device)
        theta[:, 0, 0], theta[:, 1, 1] = extent[:, 0], extent[:, 1]
        theta[:, :, 2] = center
        size = [count, 3, self.input_size, self.input_size]
        grid = F.affine_grid(theta, size, align_corners=False)
        return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _resized_windows(
    count: int, recipe: AugmentationRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Windows of random area and shape that lie inside the picture (Szegedy et al., 2015)."""
    low, high = recipe.scale
    area = low + (high - low) * torch.rand(count, generator=generator)
    narrow, wide = math.log(recipe.ratio[0]), math.log(recipe.ratio[1])
    shape = torch.exp(narrow + (wide - narrow) * torch.rand(count, generator=generator))
    extent = torch.stack([(area * shape).sqrt(), (area / shape).sqrt()], dim=1).clamp(max=1)
    place = 2 * torch.rand(count, 2, generator=generator) - 1
    return place * (1 - extent), extent


def _recolor(views: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order, clamped at the end.

    All four are linear in a pixel's color, up to a picture's mean gray for the contrast.
    """
    device = views.device
    gray = torch.tensor(GRAY, device=device)
    brightness, contrast, saturation = (
        values.to(device)[:, None, None] for values in (draws.brightness, draws.contrast, draws.saturation)
    )
    identity = torch.eye(3, device=device)
    desaturate = saturation * identity + (1 - saturation) * gray.expand(3, 3)
    matrix = _hue_rotation(draws.hue.to(device)) @ desaturate
    mean = torch.einsum("nchw,c->n", views, gray) / views[0, 0].numel()
    offset = (1 - contrast) * (mean[:, None, None] * brightness)
    colors = (views.flatten(2) * (brightness * contrast) + offset).view_as(views)
    return torch.einsum("nij,njhw->nihw", matrix, colors).clamp(0, 1)


def _hue_rotation(turns: Tensor) -> Tensor:
    """(n, 3, 3): rotate the chroma plane of YIQ."""
    to_yiq = torch.tensor(RGB_TO_YIQ, device=turns.device)
    cos, sin = torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)
    rotation = torch.zeros(len(turns), 3, 3, device=turns.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1], rotation[:, 1, 2] = cos, -sin
    rotation[:, 2, 1], rotation[:, 2, 2] = sin, cos
    return torch.linalg.inv(to_yiq) @ rotation @ to_yiq


def _blur(views: Tensor, sigma: Tensor) -> Tensor:
    """A Gaussian of its own width for each picture; the kernel spans a tenth of the side."""
    count, channels, height, width = views.shape
    reach = max(1, height // 20)
    offsets = torch.arange(-reach, reach + 1, device=views.device, dtype=views.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-2)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(views.reshape(1, count * channels, height, width), (reach,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, :, None, :], groups=count * channels)
    return F.conv2d(flat, kernel[:, :, :, None], groups=count * channels).view_as(views)


def _happens(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < probability


def _signed(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, generator=generator) - 1
