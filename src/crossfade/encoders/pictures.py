"""Encoded pictures (PNG, JPEG, ...) as square arrays of pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import DataError
from crossfade.extras import load

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 2**20


def decode_picture(item: Any, side: int, what: str = "item") -> NDArray[np.uint8]:
    """The middle square of a picture: shorter side scaled to `side`, then cut to the center.

    Args:
        item: the bytes of a picture.
        side: pixels on a side of the result.
        what: what it is, for messages.

    Returns:
        (side, side, 3) uint8, RGB.

    Raises:
        DataError: no bytes, not a readable picture, or one that is too large to be one.
        MissingExtra: Pillow is not installed.
    """

    def prepare(picture: Any) -> Any:
        picture.draft("RGB", (side, side))  # lets a large JPEG be decoded at a fraction of its size
        return _middle_square(picture.convert("RGB"), side, load("PIL.Image", "train"))

    return read_picture(item, prepare, what)


def read_picture(item: Any, prepare: Callable[[Any], Any], what: str = "item") -> NDArray[np.uint8]:
    """Open a picture with the bounds that strangers' files need.

    Args:
        item: the bytes of a picture.
        prepare: makes of Pillow's open picture the one whose pixels are returned; in RGB.
        what: what it is, for messages.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        DataError: no bytes, not a readable picture, or one that is too large to be one.
        MissingExtra: Pillow is not installed.
    """
    if not isinstance(item, bytes | bytearray | memoryview):
        raise DataError(f"{what} is {type(item).__name__}, expected the bytes of a picture (PNG, JPEG, ...)")
    if len(item) > MAX_BYTES:
        raise DataError(f"{what} has {len(item)} bytes, at most {MAX_BYTES} are read; shrink it first")
    image_module = load("PIL.Image", "train")
    try:
        with image_module.open(io.BytesIO(item), formats=FORMATS) as picture:
            if picture.size[0] * picture.size[1] > MAX_PIXELS:
                raise ValueError(
                    f"{picture.size[0]} x {picture.size[1]} pixels, at most {MAX_PIXELS} are read"
                )
            return np.asarray(prepare(picture))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error on broken files
        raise DataError(f"{what} is not a readable picture ({error}); repair it or leave it out") from None


def _middle_square(picture: Any, side: int, image_module: Any) -> Any:
    width, height = picture.size
    if (width, height) == (side, side):
        return picture
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = (left, top, left + edge, top + edge)
    return picture.resize((side, side), image_module.Resampling.BICUBIC, box=box)
