"""Pictures of two colors, one above the other, and captions that say so: what a tiny dual encoder learns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tiny_training import png

COLORS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (40, 60, 220),
    "yellow": (230, 220, 50),
    "white": (245, 245, 245),
    "black": (10, 10, 10),
}


class ColourWords:
    """Captioned pictures in memory: every pair of colors, `copies` times, with noise.

    An image has two captions, in other words; those of copies are equal.
    """

    name = "colors"

    def __init__(self, copies: int = 4, side: int = 16, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        pairs = [pair for pair in product(COLORS, COLORS) if pair[0] != pair[1]] * copies
        self.pairs = [pairs[row] for row in generator.permutation(len(pairs))]
        self.pictures = [png(self._draw(pair, side, generator)) for pair in self.pairs]
        self.captions = [[f"{top} above {bottom}", f"{bottom} under {top}"] for top, bottom in self.pairs]
        self.ids = pa.array([f"picture {row}" for row in range(len(self.pairs))])
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def contents(self, rows: object = None) -> Iterator[bytes]:
        return iter(self.pictures)

    def fingerprint(self) -> list[object]:
        return [len(self), self.seed]

    def write(self, path: Path) -> Path:
        """As Parquet: image, caption (a list), id."""
        images = pa.array([{"bytes": one} for one in self.pictures])
        pq.write_table(pa.table({"image": images, "caption": self.captions, "id": self.ids}), path)
        return path

    @staticmethod
    def _draw(pair: tuple[str, str], side: int, generator: np.random.Generator) -> np.ndarray:
        picture = np.empty((side, side, 3))
        picture[: side // 2], picture[side // 2 :] = COLORS[pair[0]], COLORS[pair[1]]
        return (picture + 12 * generator.standard_normal(picture.shape)).clip(0, 255)
