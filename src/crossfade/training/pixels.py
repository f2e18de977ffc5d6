"""Pictures decoded once, at the size that training reads, in a memory-mapped file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

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
CHUNK = 256


@dataclass(frozen=True)
class Pixels:
    """Decoded pictures of one set.

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
    if on_corrupt not in get_args(OnCorrupt):
        raise UsageError(f"corrupt pictures are refused or skipped (refuse, skip), got {on_corrupt!r}")
    key = hashlib.sha256(json.dumps([side, images.fingerprint()]).encode()).hexdigest()[:16]
    folder = Path(directory) / key
    if not (folder / "cache.json").is_file():
        _build(images, side, folder, progress)
    pixels = _open(folder, images.name)
    if pixels.corrupt and on_corrupt == "refuse":
        raise DataError(
            f"{images.name}: {len(pixels.corrupt)} of {len(images)} images cannot be read: "
            f"{first_few(pixels.corrupt)}; repair them, or leave them out with --set data.corrupt=skip"
        )
    return pixels


def _build(images: LabelledImages, side: int, folder: Path, progress: Advance | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "pixels.npy.partial"
    array = _allocate(partial, (len(images), side, side, 3))
    good: list[int] = []
    for row, picture in enumerate(_decoded(images, side)):
        if picture is not None:
            array[len(good)] = picture
            good.append(row)
        if progress is not None and (row + 1) % CHUNK == 0:
            progress(row + 1, len(images))
    if not good:
        partial.unlink()
        raise DataError(f"{images.name}: none of {len(images)} images can be read; are these pictures?")
    del array  # writes what is still in memory
    partial.replace(folder / "pixels.npy")
    _write_items(images, np.array(good), folder)


def _allocate(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    import shutil

    needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutOfSpace(
            f"decoding needs {needed / 1e9:.1f} GB in {path.parent}, {free / 1e9:.1f} GB are free; "
            "choose another disk with --cache"
        )
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _decoded(images: LabelledImages, side: int) -> Iterator[NDArray[np.uint8] | None]:
    def decode(content: bytes) -> NDArray[np.uint8] | None:
        try:
            return decode_picture(content, side)
        except DataError:
            return None

    contents = images.contents()
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(contents, CHUNK)):
            yield from pool.map(decode, chunk)


def _write_items(images: LabelledImages, good: NDArray[np.int64], folder: Path) -> None:
    names = pa.array(images.labels.names)
    labels = names.take(pa.array(images.labels.codes[good]))
    pq.write_table(
        pa.table({"id": images.ids.take(pa.array(good)), "label": labels}), folder / "items.parquet"
    )
    corrupt = np.setdiff1d(np.arange(len(images)), good)
    facts = {
        "source": images.name,
        "count": len(good),
        "corrupt": images.ids.take(pa.array(corrupt)).to_pylist(),
    }
    partial = folder / "cache.json.partial"
    partial.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / "cache.json")


def _open(folder: Path, name: str) -> Pixels:
    facts = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
    items = pq.read_table(folder / "items.parquet")
    array = np.load(folder / "pixels.npy", mmap_mode="r")[: facts["count"]]
    labels = encode_labels(items.column("label"), what=name)
    return Pixels(array, items.column("id").combine_chunks(), labels, tuple(facts["corrupt"]), name)
