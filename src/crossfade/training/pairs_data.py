"""Images with their captions, as training reads them: decoded once, tokenized once, drawn by seed.

`read_pairs` decodes the pictures into a cache and gives an `ImagePairs`; whoever trains makes `Tokens` of
its captions with the model's own tokenizer; `PairBatches` draws the batches that
`crossfade.training.loop.train` asks for, each part as a `PairPart`, the arguments of the learner:

    pairs = read_pairs(open_image_texts(location), settings, cache)
    batches = PairBatches(pairs, dual.tokenize(pairs.captions), Shuffled(len(pairs), 256, seed), ...)

    def forward(self, pictures, tokens, belongs, image_vectors, caption_vectors): ...

Everything is a function of seed and step: a resumed run sees the same, and so do several processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfade.encoders.dual_network import Tokens
from crossfade.encoders.picture_settings import PictureSettings
from crossfade.errors import DataError
from crossfade.training.augment import Augmentation, Draws
from crossfade.training.data import CAPTIONS, VIEWS, Steps, seed_of
from crossfade.training.distributed import Workers
from crossfade.training.order import Order, Rows
from crossfade.training.pixels import Advance, OnCorrupt, Pictures, cache_pictures
from crossfade.vectors import FloatMatrix


class CaptionedPictures(Pictures, Protocol):
    """Encoded pictures with one or more captions each: `crossfade.datasets.image_texts.ImageTexts`."""

    captions: list[list[str]]


@dataclass(frozen=True)
class ImagePairs:
    """n images and their m captions.

    Attributes:
        array: (n, side, side, 3) uint8, memory-mapped.
        ids: (n,) ids of the images.
        captions: m captions: first those of the first image.
        starts: (n + 1,) int64; the captions of image i are `starts[i]` to `starts[i + 1]` - 1, at least one.
        corrupt: ids of pictures that could not be read; they are left out with their captions.
        name: where all this comes from.
    """

    array: NDArray[np.uint8]
    ids: pa.Array
    captions: tuple[str, ...]
    starts: Rows
    corrupt: tuple[int | str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.ids)

    def captions_of(self, rows: Rows) -> Rows:
        """The captions, as rows of `captions`, of the images in the given rows."""
        return ranges(self.starts[rows], self.starts[rows + 1] - self.starts[rows])

    def digest(self, rows: Rows) -> str:
        """16 digits that change with the chosen images' ids or captions."""
        chosen = [self.captions[row] for row in self.captions_of(rows)]
        facts = [self.ids.take(pa.array(rows)).to_pylist(), np.diff(self.starts)[rows].tolist(), chosen]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def read_pairs(
    images: CaptionedPictures,
    settings: PictureSettings,
    directory: str | Path,
    *,
    on_corrupt: OnCorrupt = "refuse",
    progress: Advance | None = None,
) -> ImagePairs:
    """Decode all pictures as a model's settings say, or open what an earlier call left in `directory`.

    Trainings on the same images with the same settings share the cache, whatever captions they use.

    Args:
        on_corrupt: unreadable pictures: ``refuse`` or ``skip``.
        progress: called with (pictures done, pictures in all).

    Raises:
        DataError: unreadable pictures, where these are refused; or not a single readable one.
        OutOfSpace: the disk is full.
    """

    def items(good: Rows) -> pa.Table:
        return pa.table({"id": images.ids.take(pa.array(good)), "row": good})

    looks = {name: value for name, value in settings.to_dict().items() if name not in ("mean", "std")}
    decoded = cache_pictures(
        images,
        directory,
        side=settings.side,
        key=["pairs", looks],
        decode=settings.decode,
        items=items,
        on_corrupt=on_corrupt,
        progress=progress,
    )
    captions = [images.captions[row] for row in decoded.items.column("row").to_numpy()]
    starts = np.cumsum([0, *map(len, captions)], dtype=np.int64)
    texts = tuple(text for some in captions for text in some)
    ids = decoded.items.column("id").combine_chunks()
    return ImagePairs(decoded.array, ids, texts, starts, decoded.corrupt, images.name)


class PairPart(NamedTuple):
    """A part of a batch: b images of this process, of B over all processes (b = B for one process).

    Attributes:
        pictures: (b, 3, side, side) float in [0, 1].
        tokens: (b, L) one caption of each, drawn anew in every step; L is the longest of these.
        belongs: (B, B) bool: the caption drawn for image j is, token for token, one of the captions of
            image i. The diagonal is true. What is true off the diagonal is no negative for a contrastive
            loss. Processes in the order of `crossfade.training.distributed.gather`.
        image_vectors: (b, d) float32 for each name given to `PairBatches`.
        caption_vectors: (b, d) float32, of the drawn captions.
    """

    pictures: Tensor
    tokens: Tokens
    belongs: Tensor
    image_vectors: dict[str, Tensor]
    caption_vectors: dict[str, Tensor]


class _Ready(NamedTuple):
    pictures: Tensor
    draws: Draws | None
    images: Rows
    captions: Rows
    belongs: list[Tensor]


class PairBatches(Steps[PairPart]):
    """The images and captions of every step.

    Args:
        pairs: what there is.
        tokens: (m, L) `pairs.captions` as the model reads them.
        order: which of `rows` a step sees.
        augmentation: what is random about the pictures; None gives them as they are in the cache.
        accumulate: parts that a batch is divided into.
        seed: of the views and of the drawn captions.
        workers: the processes that share a batch.
        rows: which images are trained on; all if None.
        image_vectors: by name, (n, d) vectors that belong to the images, delivered with each batch.
        caption_vectors: by name, (m, d) vectors that belong to the captions.

    Raises:
        DataError: tokens or vectors are not as many as the captions or images.
    """

    def __init__(
        self,
        pairs: ImagePairs,
        tokens: Tokens,
        order: Order,
        augmentation: Augmentation | None,
        *,
        accumulate: int,
        seed: int,
        workers: Workers,
        rows: Rows | None = None,
        image_vectors: Mapping[str, FloatMatrix] | None = None,
        caption_vectors: Mapping[str, FloatMatrix] | None = None,
    ) -> None:
        self.order = order
        self._pairs, self._augmentation, self._seed = pairs, augmentation, seed
        self._rows = np.arange(len(pairs)) if rows is None else rows
        self._accumulate, self._workers = accumulate, workers
        self._share = workers.part(order.batch // accumulate)
        self._images, self._captions = dict(image_vectors or {}), dict(caption_vectors or {})
        _require(len(pairs), self._images, "images")
        _require(len(pairs.captions), {"tokens": tokens.input_ids, **self._captions}, "captions")
        self._ids, self._mask = tokens.input_ids.to(torch.int32), tokens.attention_mask.to(torch.int8)
        self._codes = _codes(self._ids.numpy())

    def _read(self, step: int) -> _Ready:
        """This process's pictures of a step; what is random is drawn for the whole batch."""
        images = self._rows[self.order.rows(step)]
        captions = self._drawn(images, step)
        parts = images.reshape(self._accumulate, -1), captions.reshape(self._accumulate, -1)
        belongs = [torch.from_numpy(self._belong(*part)) for part in zip(*parts, strict=True)]
        mine, spoken = (part[:, self._share].ravel() for part in parts)
        pictures = torch.from_numpy(self._pairs.array[mine])
        if self._workers.device.type == "cuda":
            pictures = pictures.pin_memory()
        draws = None
        if self._augmentation is not None:
            generator = torch.Generator().manual_seed(seed_of(self._seed, VIEWS, step))
            draws = self._augmentation.draw(self.order.batch, generator)
        return _Ready(pictures, draws, mine, spoken, belongs)

    def _parts(self, ready: _Ready) -> Iterator[PairPart]:
        size = len(ready.pictures) // self._accumulate
        for number in range(self._accumulate):
            mine = slice(number * size, (number + 1) * size)
            captions = ready.captions[mine]
            yield PairPart(
                self._views(ready, mine, number),
                Tokens(self._ids[captions].long(), self._mask[captions].long())
                .rows(slice(None))
                .to(self._workers.device),
                ready.belongs[number].to(self._workers.device),
                self._vectors(self._images, ready.images[mine]),
                self._vectors(self._captions, captions),
            )

    def _views(self, ready: _Ready, mine: slice, number: int) -> Tensor:
        pictures = ready.pictures[mine].to(self._workers.device, non_blocking=True)
        if self._augmentation is None or ready.draws is None:
            return pictures.permute(0, 3, 1, 2).float() / 255
        first = number * (self.order.batch // self._accumulate) + self._share.start
        return self._augmentation.apply(pictures, ready.draws.rows(first, first + len(pictures)))

    def _vectors(self, arrays: Mapping[str, FloatMatrix], rows: Rows) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(np.asarray(array[rows], dtype=np.float32)).to(self._workers.device)
            for name, array in arrays.items()
        }

    def _drawn(self, images: Rows, step: int) -> Rows:
        """One caption of each image."""
        generator = np.random.default_rng(seed_of(self._seed, CAPTIONS, step))
        starts = self._pairs.starts
        return starts[images] + generator.integers(starts[images + 1] - starts[images])

    def _belong(self, images: Rows, drawn: Rows) -> NDArray[np.bool_]:
        """(b, b): whether the j-th drawn caption is one that the i-th image has."""
        starts = self._pairs.starts
        counts = starts[images + 1] - starts[images]
        owners = np.repeat(np.arange(len(images)), counts)
        codes = self._codes[self._pairs.captions_of(images)]
        order = np.argsort(self._codes[drawn])
        ordered = self._codes[drawn][order]
        first, after = (np.searchsorted(ordered, codes, side) for side in ("left", "right"))
        belongs = np.zeros((len(images), len(images)), dtype=np.bool_)
        belongs[np.repeat(owners, after - first), order[ranges(first, after - first)]] = True
        return belongs


def ranges(starts: Rows, counts: Rows) -> Rows:
    """The numbers of many ranges, one after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _codes(ids: NDArray[np.int32]) -> Rows:
    """(m,) numbers that are equal for captions of equal tokens."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), len(seen)) for row in ids], dtype=np.int64)


def _require(count: int, arrays: Mapping[str, FloatMatrix | Tensor], what: str) -> None:
    for name, array in arrays.items():
        if len(array) != count:
            raise DataError(f"{name!r} has {len(array)} rows, there are {count} {what}; make it for these")
