"""Pictures decoded once, at the size that training reads, in a memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossfade.datasets.images import LabelledImages
from crossfade.datasets.labels import ClassLabels, encode_labels
from crossfade.encoders.pictures import decode_picture
from crossfade.errors import DataError, OutOfSpace, UsageError
from crossfade.vectors.ids import first_few

OnCorrupt = Literal["refuse", "skip"]
Advance = Callable[[int, int], None]
Decode = Callable[[bytes], NDArray[np.uint8]]
CHUNK = 256


class Pictures(Protocol):
    """Encoded pictures in a stable order: `LabelledImages`, `ImageTexts`."""

    name: str
    ids: pa.Array

    def contents(self) -> Iterator[bytes]:
        """The bytes of all pictures, one after the other."""

    def fingerprint(self) -> list[object]:
        """JSON-ready facts that change when the files do."""


@dataclass(frozen=True)
class Decoded:
    """What `cache_pictures` keeps.

    Attributes:
        array: (n, side, side, 3) uint8, memory-mapped: the readable pictures.
        items: n rows, what was noted of each.
        corrupt: ids of pictures that could not be read and are left out.
    """

    array: NDArray[np.uint8]
    items: pa.Table
    corrupt: tuple[int | str, ...]


@dataclass(frozen=True)
class Pixels:
    """Decoded pictures of one labelled set.

    Attributes:
        array: (n, side, side, 3) uint8, memory-mapped.
        ids: (n,) ids.
        labels: (n,) class codes and names.
        corrupt: ids of pictures that could not be read and are left out.
        name: where they come from.
    """

    array: NDArray[np.uint8]
    ids: pa.Array
    labels: ClassLabels
    corrupt: tuple[int | str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.labels)


def cache_pixels(
    images: LabelledImages,
    side: int,
    directory: str | Path,
    *,
    on_corrupt: OnCorrupt = "refuse",
    progress: Advance | None = None,
) -> Pixels:
    """Decode all pictures to `side` pixels, or open what an earlier call left in `directory`.

    The cache is bound to the files' sizes and dates: when they change it is made again.

    Args:
        on_corrupt: ``refuse`` stops at the end of the reading and names unreadable pictures; ``skip``
            leaves them out.
        progress: called with (pictures done, pictures in all).

    Raises:
        DataError: unreadable pictures, where these are refused; or not a single readable one.
        OutOfSpace: the disk is full.
    """

    def decode(content: bytes) -> NDArray[np.uint8]:
        return decode_picture(content, side)

    def items(good: NDArray[np.int64]) -> pa.Table:
        labels = pa.array(images.labels.names).take(pa.array(images.labels.codes[good]))
        return pa.table({"id": images.ids.take(pa.array(good)), "label": labels})

    found = cache_pictures(
        images,
        directory,
        side=side,
        key=[side],
        decode=decode,
        items=items,
        on_corrupt=on_corrupt,
        progress=progress,
    )
    labels = encode_labels(found.items.column("label"), what=images.name)
    return Pixels(found.array, found.items.column("id").combine_chunks(), labels, found.corrupt, images.name)


def cache_pictures(
    pictures: Pictures,
    directory: str | Path,
    *,
    side: int,
    key: Sequence[object],
    decode: Decode,
    items: Callable[[NDArray[np.int64]], pa.Table],
    on_corrupt: OnCorrupt = "refuse",
    progress: Advance | None = None,
) -> Decoded:
    """Decode all pictures, or open what an earlier call left in `directory`.

    Args:
        side: pixels on a side of a decoded picture.
        key: JSON-ready facts that decide how pictures are decoded; another key is another cache.
        decode: bytes to (side, side, 3) uint8; raises `DataError` for what is no readable picture.
        items: what is to be kept of the pictures in the given rows.
        on_corrupt, progress: see `cache_pixels`.

    Raises:
        DataError, OutOfSpace: see `cache_pixels`.
    """
    if on_corrupt not in get_args(OnCorrupt):
        raise UsageError(f"corrupt pictures are refused or skipped (refuse, skip), got {on_corrupt!r}")
    name = hashlib.sha256(json.dumps([*key, pictures.fingerprint()]).encode()).hexdigest()[:16]
    folder = Path(directory) / name
    if not (folder / "cache.json").is_file():
        good = _build(pictures, side, decode, folder, progress)
        _write_items(pictures, items(good), good, folder)
    decoded = _open(folder)
    if decoded.corrupt and on_corrupt == "refuse":
        raise DataError(
            f"{pictures.name}: {len(decoded.corrupt)} of {len(pictures.ids)} images cannot be read: "
            f"{first_few(decoded.corrupt)}; repair them, or leave them out with --set data.corrupt=skip"
        )
    return decoded


def _build(
    pictures: Pictures, side: int, decode: Decode, folder: Path, progress: Advance | None
) -> NDArray[np.int64]:
    """The rows of readable pictures, whose pixels are in ``pixels.npy`` afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    partial, total = folder / "pixels.npy.partial", len(pictures.ids)
    array = _allocate(partial, (total, side, side, 3))
    good: list[int] = []
    for row, picture in enumerate(_decoded(pictures, decode)):
        if picture is not None:
            array[len(good)] = picture
            good.append(row)
        if progress is not None and (row + 1) % CHUNK == 0:
            progress(row + 1, total)
    if not good:
        partial.unlink()
        raise DataError(f"{pictures.name}: none of {total} images can be read; are these pictures?")
    del array  # writes what is still in memory
    partial.replace(folder / "pixels.npy")
    return np.array(good)


def _allocate(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutOfSpace(
            f"decoding needs {needed / 1e9:.1f} GB in {path.parent}, {free / 1e9:.1f} GB are free; "
            "choose another disk with --cache"
        )
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _decoded(pictures: Pictures, decode: Decode) -> Iterator[NDArray[np.uint8] | None]:
    def attempt(content: bytes) -> NDArray[np.uint8] | None:
        try:
            return decode(content)
        except DataError:
            return None

    contents = pictures.contents()
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(contents, CHUNK)):
            yield from pool.map(attempt, chunk)


def _write_items(pictures: Pictures, items: pa.Table, good: NDArray[np.int64], folder: Path) -> None:
    pq.write_table(items, folder / "items.parquet")
    corrupt = np.setdiff1d(np.arange(len(pictures.ids)), good)
    facts = {
        "source": pictures.name,
        "count": len(good),
        "corrupt": pictures.ids.take(pa.array(corrupt)).to_pylist(),
    }
    partial = folder / "cache.json.partial"
    partial.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / "cache.json")


def _open(folder: Path) -> Decoded:
    facts = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
    items = pq.read_table(folder / "items.parquet")
    array = np.load(folder / "pixels.npy", mmap_mode="r")[: facts["count"]]
    return Decoded(array, items, tuple(facts["corrupt"]))
