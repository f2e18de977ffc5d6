"""Embed a labelled set once, and write the vectors where everything else reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from crossfade.datasets.images import LabelledImages
from crossfade.encoders.base import Encoder
from crossfade.encoders.trained import TrainedEncoder
from crossfade.errors import DataError
from crossfade.training.pixels import OnCorrupt, cache_pixels
from crossfade.vectors import FloatMatrix, ParquetVectorWriter, VectorBatch
from crossfade.vectors.ids import first_few

CHUNK = 2048
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        path: the file.
        rows: vectors in it.
        corrupt: ids of unreadable images that were left out.
    """

    path: Path
    rows: int
    corrupt: tuple[int | str, ...]


def embed_images(
    encoder: Encoder,
    images: LabelledImages,
    path: str | Path,
    *,
    cache: str | Path | None = None,
    on_corrupt: OnCorrupt = "refuse",
    overwrite: bool = False,
    progress: Advance | None = None,
) -> Embedded:
    """Write ``id``, ``label`` and ``vector`` of every image, with the encoder's space, as Parquet.

    Args:
        encoder: any encoder of pictures.
        cache: folder of decoded pictures (see `cache_pixels`), which an encoder that Crossfade trained
            reads instead of decoding them again.
        on_corrupt: unreadable images: ``refuse`` writes nothing, ``skip`` leaves them out.
        overwrite: replace a file that is there.
        progress: called with (images done, images in all).

    Raises:
        DataError: unreadable images, where these are refused.
        UsageError: a file is there already.
    """
    if isinstance(encoder, TrainedEncoder) and cache is not None:
        batches = _from_pixels(encoder, images, cache, on_corrupt)
    else:
        batches = _from_bytes(encoder, images, on_corrupt)
    corrupt: list[int | str] = []
    done = 0
    with ParquetVectorWriter(path, encoder.space, overwrite=overwrite) as writer:
        for batch, lost in batches:
            writer.write(batch)
            corrupt += lost
            done += len(batch) + len(lost)
            if progress is not None:
                progress(done, len(images))
    return Embedded(Path(path), writer.rows, tuple(corrupt))


Batches = Iterator[tuple[VectorBatch, list[int | str]]]


def _from_pixels(
    encoder: TrainedEncoder, images: LabelledImages, cache: str | Path, on_corrupt: OnCorrupt
) -> Batches:
    pixels = cache_pixels(images, encoder.network.architecture.picture_size, cache, on_corrupt=on_corrupt)
    names = pa.array(pixels.labels.names)
    lost = list(pixels.corrupt)
    for start in range(0, len(pixels), CHUNK):
        rows = slice(start, start + CHUNK)
        labels = names.take(pa.array(pixels.labels.codes[rows]))
        vectors = encoder.encode_pictures(pixels.array[rows])
        yield VectorBatch(pixels.ids[start : start + len(vectors)], vectors, {"label": labels}), lost
        lost = []


def _from_bytes(encoder: Encoder, images: LabelledImages, on_corrupt: OnCorrupt) -> Batches:
    names = pa.array(images.labels.names)
    contents, start = images.contents(), 0
    while chunk := list(islice(contents, CHUNK)):
        vectors, good = encode_readable(encoder, chunk)
        bad = np.setdiff1d(np.arange(len(chunk)), good)
        lost = images.ids.take(pa.array(start + bad)).to_pylist()
        if lost and on_corrupt == "refuse":
            raise DataError(
                f"{images.name}: images cannot be read: {first_few(lost)}; repair them, "
                "or leave them out with --on-corrupt skip"
            )
        rows = start + good
        labels = names.take(pa.array(images.labels.codes[rows]))
        yield VectorBatch(images.ids.take(pa.array(rows)), vectors, {"label": labels}), lost
        start += len(chunk)


def encode_readable(encoder: Encoder, chunk: list[bytes]) -> tuple[FloatMatrix, np.ndarray]:
    """Vectors, and which items they are of: one by one where the whole cannot be embedded."""
    try:
        return encoder.encode(chunk), np.arange(len(chunk))
    except DataError:
        kept, vectors = [], [np.empty((0, encoder.space.dimension), dtype=np.float32)]
    for position, item in enumerate(chunk):
        try:
            vectors.append(encoder.encode([item]))
            kept.append(position)
        except DataError:
            continue
    return np.concatenate(vectors), np.array(kept, dtype=np.int64)
