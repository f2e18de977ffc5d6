"""What a model's preprocessor_config.json asks of its pictures, done with Pillow alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfade.encoders.pictures import read_picture
from crossfade.errors import NotSupported, UnreadableFile, UsageError
from crossfade.extras import load

Resize = Literal["shortest", "exact", "none"]
Triple = tuple[float, float, float]

FILE, COMBINED_FILE = "preprocessor_config.json", "processor_config.json"
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
HALF: Triple = (0.5, 0.5, 0.5)
BILINEAR, BICUBIC = 2, 3
LARGEST_SIDE = 4096
LONGEST = 16  # a picture resized to more than this many sides is cut before it is resized


class _Defaults(NamedTuple):
    """What a processor does where its file is silent."""

    size: Any
    number_is_square: bool  # whether a bare number as size is both edges, not the shorter one
    crop: int
    center_crop: bool
    resample: int
    mean: Triple
    std: Triple


_CLIP = _Defaults({"shortest_edge": 224}, False, 224, True, BICUBIC, CLIP_MEAN, CLIP_STD)
_SIGLIP = _Defaults({"height": 224, "width": 224}, False, 224, False, BICUBIC, HALF, HALF)
_VIT = _SIGLIP._replace(number_is_square=True, resample=BILINEAR)
_EFFICIENT_NET = _Defaults({"height": 346, "width": 346}, True, 289, False, BICUBIC, HALF, HALF)
_DEFAULTS = {"Siglip": _SIGLIP, "ViT": _VIT, "DeiT": _VIT, "EfficientNet": _EFFICIENT_NET}


@dataclass(frozen=True)
class PictureSettings:
    """From an encoded picture to what a model sees.

    The picture is turned into RGB (what is transparent becomes white), resized and cut to its center.

    Attributes:
        side: s, pixels on a side of the result.
        resize: ``shortest``: the shorter side becomes `resize_to`, in proportion; ``exact``: both sides do,
            whatever the proportion; ``none``: only the center is cut out.
        resize_to: pixels.
        resample: Pillow's number of the filter (0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, ...).
        mean: per channel, of pixels in [0, 1]; the network subtracts it.
        std: per channel; the network divides by it.

    Raises:
        UsageError: a side, filter or standard deviation that cannot be.
    """

    side: int = 224
    resize: Resize = "shortest"
    resize_to: int = 224
    resample: int = BICUBIC
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD

    def __post_init__(self) -> None:
        for name in ("side", "resize_to"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= LARGEST_SIDE:
                raise UsageError(f"pictures: {name} must be from 1 to {LARGEST_SIDE}, got {value!r}")
        if self.resample not in range(6):
            raise UsageError(f"pictures: resample must be Pillow's number, 0 to 5, got {self.resample!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError(f"pictures: mean {self.mean} and std {self.std} must be 3 numbers each, std > 0")

    def decode(self, item: Any, what: str = "item") -> NDArray[np.uint8]:
        """The bytes of a picture as (side, side, 3) uint8, RGB.

        Args:
            what: what the picture is, for messages.

        Raises:
            DataError: no bytes, not a readable picture, or one that is too large to be one.
            MissingExtra: Pillow is not installed.
        """
        return read_picture(item, self._prepare, what)

    def _prepare(self, picture: Any) -> Any:
        picture = _on_white(picture)
        size = self._resized(picture.size)
        left, top = ((edge - self.side) // 2 for edge in size)
        box = (left, top, left + self.side, top + self.side)
        if max(size) > LONGEST * max(self.side, self.resize_to):
            return self._resized_part(picture, size, box)
        resized = picture if size == picture.size else picture.resize(size, self.resample)
        return resized if resized.size == (self.side, self.side) else resized.crop(box)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.resize == "none":
            return size
        if self.resize == "exact":
            return self.resize_to, self.resize_to
        short, long = sorted(size)
        longer = int(self.resize_to * long / short)
        return (self.resize_to, longer) if size[0] <= size[1] else (longer, self.resize_to)

    def _resized_part(self, picture: Any, size: tuple[int, int], box: tuple[int, int, int, int]) -> Any:
        """Only the box of the resized picture: a strip of one pixel's width would fill the memory."""
        across, down = picture.size[0] / size[0], picture.size[1] / size[1]
        left, top, right, bottom = box
        source = (max(0, left) * across, max(0, top) * down, min(right, size[0]) * across,
                  min(bottom, size[1]) * down)  # fmt: skip
        shape = (min(right, size[0]) - max(0, left), min(bottom, size[1]) - max(0, top))
        part = picture.resize(shape, self.resample, box=source)
        moved = (min(0, left), min(0, top))
        return part.crop((*moved, moved[0] + self.side, moved[1] + self.side))

    def to_config(self) -> dict[str, Any]:
        """As preprocessor_config.json of transformers, with nothing left to defaults."""
        edge = {"height": self.resize_to, "width": self.resize_to}
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": self.resize != "none",
            "size": {"shortest_edge": self.resize_to} if self.resize == "shortest" else edge,
            "resample": self.resample,
            "do_center_crop": True,
            "crop_size": {"height": self.side, "width": self.side},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, e.g. for the name of a cache."""
        return asdict(self)


def read_picture_settings(directory: str | Path) -> PictureSettings:
    """The settings of a model folder: preprocessor_config.json, or the part of processor_config.json.

    Raises:
        UnreadableFile: neither file is there, or it says something impossible.
        NotSupported: pictures that are not square.
    """
    folder = Path(directory)
    for path in (folder / FILE, folder / COMBINED_FILE):
        if not path.is_file():
            continue
        values = _read_json(path)
        values = values if path.name == FILE else values.get("image_processor", {})
        if values:
            return parse_picture_settings(values, str(path))
    raise UnreadableFile(
        f"{folder}: has no {FILE}, so nothing says how its pictures are prepared; "
        "copy it from the model's source"
    )


def parse_picture_settings(values: dict[str, Any], source: str = FILE) -> PictureSettings:
    """What the content of a preprocessor_config.json means.

    Args:
        source: where it is from, for messages.

    Raises:
        UnreadableFile: it says something impossible.
        NotSupported: pictures that are not square.
    """
    try:
        return _parse({key: value for key, value in values.items() if value is not None})
    except NotSupported as error:
        raise NotSupported(f"{source}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableFile(f"{source}: not the settings of pictures ({error}); copy it again") from None


def _parse(values: dict[str, Any]) -> PictureSettings:
    defaults = _defaults_of(values)
    resize, resize_to = _resize(values, defaults)
    if values.get("do_center_crop", defaults.center_crop):
        side = _square(values.get("crop_size", defaults.crop), "crop_size")
    elif resize == "exact":
        side = resize_to
    else:
        raise NotSupported("leaves pictures unequal in size (no crop); only models of square pictures work")
    mean, std = _normalisation(values, defaults)
    resample = int(values.get("resample", defaults.resample))
    return PictureSettings(side, resize, resize_to if resize != "none" else side, resample, mean, std)


def _defaults_of(values: dict[str, Any]) -> _Defaults:
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    return next((found for name, found in _DEFAULTS.items() if kind.startswith(name)), _CLIP)


def _resize(values: dict[str, Any], defaults: _Defaults) -> tuple[Resize, int]:
    if not values.get("do_resize", True):
        return "none", 0
    size = values.get("size", defaults.size)
    if isinstance(size, dict) and "shortest_edge" in size:
        if "longest_edge" in size:
            raise NotSupported("limits the longer edge of pictures; only models of square pictures work")
        return "shortest", int(size["shortest_edge"])
    shortest = isinstance(size, int) and not defaults.number_is_square
    return ("shortest" if shortest else "exact"), _square(size, "size")


def _square(size: Any, name: str) -> int:
    if isinstance(size, dict):
        height, width = int(size["height"]), int(size["width"])
    else:
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    if height != width:
        raise NotSupported(f"{name} is {height} x {width}; only models of square pictures work")
    return height


def _normalisation(values: dict[str, Any], defaults: _Defaults) -> tuple[Triple, Triple]:
    """Mean and standard deviation of pixels in [0, 1] that do all that the processor does to values."""
    rescaled = values.get("do_rescale", True)
    scale = 255 * float(values.get("rescale_factor", 1 / 255)) if rescaled else 255.0
    offset = 1.0 if rescaled and values.get("rescale_offset", False) else 0.0
    mean, spread = np.zeros(3), np.ones(3)
    if values.get("do_normalize", True):
        mean = np.array(values.get("image_mean", defaults.mean), dtype=np.float64)
        spread = np.array(values.get("image_std", defaults.std), dtype=np.float64)
    # (scale x - offset - mean) / spread, written as (x - mean') / spread'.
    return _triple((mean + offset) / scale), _triple(spread / scale)


def _triple(values: NDArray[np.float64]) -> Triple:
    red, green, blue = (float(value) for value in np.broadcast_to(values, 3))
    return red, green, blue


def _on_white(picture: Any) -> Any:
    if "A" not in picture.getbands() and picture.info.get("transparency") is None:
        return picture.convert("RGB")
    image_module = load("PIL.Image", "hf")
    picture = picture.convert("RGBA")
    white = image_module.new("RGBA", picture.size, (255, 255, 255, 255))
    return image_module.alpha_composite(white, picture).convert("RGB")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path}: cannot be read as JSON ({error}); copy it again") from None
    if not isinstance(values, dict):
        raise UnreadableFile(f"{path}: expected a JSON object, got {type(values).__name__}; copy it again")
    return values
