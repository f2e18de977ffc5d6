"""Embed captioned images once: a file of image vectors and one of caption vectors, for everything after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crossfade.datasets.image_texts import ImageTexts
from crossfade.encoders.base import Encoder
from crossfade.errors import DataError, UsageError
from crossfade.training.embed import encode_readable
from crossfade.training.pixels import OnCorrupt
from crossfade.vectors import ParquetVectorWriter, VectorBatch
from crossfade.vectors.ids import first_few

CHUNK = 1024
IMAGES, CAPTIONS = "images.parquet", "captions.parquet"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EmbeddedPairs:
    """What was written.

    Attributes:
        images, captions: rows of the two files.
        truncated: captions that were longer than the model's context, and cut.
        corrupt: ids of unreadable images that were left out, with their captions.
    """

    images: int
    captions: int
    truncated: int
    corrupt: tuple[int | str, ...]


def embed_captioned(
    image: Encoder,
    text: Encoder,
    pairs: ImageTexts,
    out: str | Path,
    *,
    on_corrupt: OnCorrupt = "refuse",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EmbeddedPairs:
    """Write ``images.parquet`` (id, vector) and ``captions.parquet`` (id, image, caption, vector) into `out`.

    A caption's id is its number in the set, so that the files of two models have the same ids; `image` is the
    id of its image. Both files appear whole, or neither does.

    Args:
        image, text: the two towers of a model; they embed into the same space.
        out: folder; made if it is not there.
        on_corrupt: unreadable images: ``refuse`` writes nothing, ``skip`` leaves them and their captions out.
        overwrite: replace files that are there.
        progress: called with what is embedded, how many are done and how many there are.

    Raises:
        SpaceError: the towers embed into different spaces.
        UsageError: a file is there already.
        DataError: unreadable images, where these are refused.
    """
    image.space.require_same(text.space, "the text encoder")
    folder, report = Path(out), progress or _silent
    for name in (IMAGES, CAPTIONS):
        if (folder / name).exists() and not overwrite:
            raise UsageError(f"{folder / name} is there already; name another --out, or give --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    corrupt: list[int | str] = []
    before = getattr(text, "truncated", 0)
    with (
        ParquetVectorWriter(folder / IMAGES, image.space, overwrite=overwrite) as pictures,
        ParquetVectorWriter(folder / CAPTIONS, text.space, overwrite=overwrite) as captions,
    ):
        for batch, lost in _pictures(image, pairs, on_corrupt):
            pictures.write(batch)
            corrupt += lost
            report("images", pictures.rows + len(corrupt), len(pairs))
        total = sum(map(len, pairs.captions))
        for batch in _captions(text, pairs, set(corrupt)):
            captions.write(batch)
            report("captions", captions.rows, total)
    truncated = getattr(text, "truncated", 0) - before
    return EmbeddedPairs(pictures.rows, captions.rows, truncated, tuple(corrupt))


def _pictures(
    encoder: Encoder, pairs: ImageTexts, on_corrupt: OnCorrupt
) -> Iterator[tuple[VectorBatch, list[Any]]]:
    contents, start = pairs.contents(), 0
    while chunk := list(islice(contents, CHUNK)):
        vectors, good = encode_readable(encoder, chunk)
        bad = np.setdiff1d(np.arange(len(chunk)), good)
        lost = pairs.ids.take(pa.array(start + bad)).to_pylist()
        if lost and on_corrupt == "refuse":
            raise DataError(
                f"{pairs.name}: images cannot be read: {first_few(lost)}; repair them, "
                "or leave them out with --on-corrupt skip"
            )
        yield VectorBatch(pairs.ids.take(pa.array(start + good)), vectors), lost
        start += len(chunk)


def _captions(encoder: Encoder, pairs: ImageTexts, left_out: set[int | str]) -> Iterator[VectorBatch]:
    listed = enumerate((row, caption) for row, captions in enumerate(pairs.captions) for caption in captions)
    kept = ((number, row, one) for number, (row, one) in listed if pairs.ids[row].as_py() not in left_out)
    while chunk := list(islice(kept, CHUNK)):
        numbers, rows, texts = zip(*chunk, strict=True)
        columns = {"image": pairs.ids.take(pa.array(rows)), "caption": pa.array(texts)}
        yield VectorBatch(pa.array(numbers), encoder.encode(texts), columns)


def _silent(stage: str, done: int, total: int) -> None:
    return
