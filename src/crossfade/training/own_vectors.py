"""A model's vectors of captioned images, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from crossfade.encoders.dual_network import Tokens
from crossfade.spaces import Space
from crossfade.training.pairs_data import ImagePairs
from crossfade.vectors import FloatMatrix

Advance = Callable[[int, int], None]
CHUNK = 1024


class Embeds(Protocol):
    """What embeds decoded pictures and tokenized texts."""

    @property
    def space(self) -> Space: ...
    def encode_pictures(self, pictures: NDArray[np.uint8]) -> FloatMatrix: ...
    def encode_tokens(self, tokens: Tokens) -> FloatMatrix: ...


class OwnVectors(NamedTuple):
    """Memory-mapped: (n, d) of the images, (m, d) of the captions."""

    images: FloatMatrix
    captions: FloatMatrix


def own_vectors(
    model: Embeds,
    pairs: ImagePairs,
    tokens: Tokens,
    directory: str | Path,
    *,
    progress: Advance | None = None,
) -> OwnVectors:
    """The vectors of all images and captions, from `directory` if an earlier call left them there.

    Args:
        tokens: (m, L) `pairs.captions` as the model reads them.
        progress: called with (items done, items in all).
    """
    everything = np.arange(len(pairs))
    key = json.dumps([model.space.to_dict(), pairs.digest(everything), _looks(pairs)])
    folder = Path(directory) / hashlib.sha256(key.encode()).hexdigest()[:16]
    total = len(pairs) + len(tokens)

    def pictures() -> Iterator[FloatMatrix]:
        for start in range(0, len(pairs), CHUNK):
            yield model.encode_pictures(np.asarray(pairs.array[start : start + CHUNK]))

    def captions() -> Iterator[FloatMatrix]:
        for start in range(0, len(tokens), CHUNK):
            yield model.encode_tokens(tokens.rows(slice(start, start + CHUNK)))

    dimension = model.space.dimension
    shapes = {"images": (len(pairs), dimension), "captions": (len(tokens), dimension)}
    done = 0
    for (name, shape), blocks in zip(shapes.items(), (pictures, captions), strict=True):
        report = _from(done, total, progress)
        _write(folder / f"{name}.npy", shape, blocks, report)
        done += shape[0]
    return OwnVectors(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes))


def _write(
    path: Path,
    shape: tuple[int, int],
    blocks: Callable[[], Iterator[FloatMatrix]],
    report: Callable[[int], None],
) -> None:
    """All or nothing; a file that is there is complete."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    row = 0
    for block in blocks():
        array[row : row + len(block)] = block
        row += len(block)
        report(row)
    array.flush()
    del array
    partial.replace(path)


def _from(done: int, total: int, progress: Advance | None) -> Callable[[int], None]:
    return lambda rows: None if progress is None else progress(done + rows, total)


def _looks(pairs: ImagePairs) -> str:
    """The first pictures as they were decoded: the same ids may have been decoded otherwise."""
    return hashlib.sha256(np.ascontiguousarray(pairs.array[:16]).tobytes()).hexdigest()[:16]
