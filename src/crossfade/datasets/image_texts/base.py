"""What every set of captioned images gives, and how what is missing in it is counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.datasets.captions import Captions, captions_from_table
from crossfade.errors import DataError, DuplicateIds, UsageError
from crossfade.vectors.ids import IdIndex, first_few, normalize_ids

Rows = NDArray[np.int64]
NAMED = 5
MAX_CAPTIONS = 1000
MAX_PICTURE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Left:
    """How many were left out, and the names of the first few."""

    count: int = 0
    first: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.first:
            return str(self.count)
        more = ", ..." if self.count > len(self.first) >= NAMED else ""
        return f"{self.count} ({', '.join(map(repr, self.first))}{more})"


@dataclass(frozen=True, slots=True)
class Skipped:
    """What of a set is not used.

    Attributes:
        images_without_captions: images, by id, that have no caption or only empty ones.
        captions_without_images: captions, by the image they name, whose image is absent.
        empty_captions: captions, by the id of their image, that are empty or white space.
        repeated_captions: captions that their image has already.
    """

    images_without_captions: Left = Left()
    captions_without_images: Left = Left()
    empty_captions: Left = Left()
    repeated_captions: Left = Left()

    def __bool__(self) -> bool:
        return any(left.count for left in self._named().values())

    def __str__(self) -> str:
        said = [f"{name}: {left}" for name, left in self._named().items() if left.count]
        return "; ".join(said) or "nothing"

    def _named(self) -> dict[str, Left]:
        return {
            "images without captions": self.images_without_captions,
            "captions without images": self.captions_without_images,
            "empty captions": self.empty_captions,
            "repeated captions": self.repeated_captions,
        }


@dataclass
class Tally:
    """Counts what is left out while a set is read."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: object, count: int = 1) -> None:
        self.count += count
        if count and len(self.first) < NAMED and str(name) not in self.first:
            self.first.append(str(name))

    def left(self) -> Left:
        return Left(self.count, tuple(self.first))


class Gathering:
    """Captions by image while a set is read: stripped, none empty, none twice for an image.

    Images keep the order in which they were first named by `picture`.
    """

    def __init__(self) -> None:
        self._captions: dict[Hashable, list[str]] = {}
        self._pictures: dict[Hashable, int] = {}
        self.without_captions, self.without_images = Tally(), Tally()
        self.empty, self.repeated = Tally(), Tally()

    def picture(self, image: Hashable, place: int = 0) -> None:
        """There is a picture of this image; the first place that is given counts."""
        self._pictures.setdefault(image, place)

    def captions(self, image: Hashable, texts: Iterable[str | None]) -> None:
        """The image, whether or not there is a picture of it, has these captions.

        Raises:
            DataError: more than `MAX_CAPTIONS` of one image.
        """
        held = self._captions.setdefault(image, [])
        for text in texts:
            stripped = (text or "").strip()
            if not stripped:
                self.empty.add(image)
            elif stripped in held:
                self.repeated.add(image)
            else:
                held.append(stripped)
        if len(held) > MAX_CAPTIONS:
            raise DataError(
                f"image {image!r} has more than {MAX_CAPTIONS} captions; are the ids those of the images?"
            )

    def finish(self) -> tuple[list[Hashable], list[int], list[list[str]], Skipped]:
        """Images with a picture and a caption, their places and captions, and what is left over."""
        chosen = []
        for image in self._pictures:
            if self._captions.get(image):
                chosen.append(image)
            else:
                self.without_captions.add(image)
        for image, texts in self._captions.items():
            if image not in self._pictures:
                self.without_images.add(image, len(texts))
        places = [self._pictures[image] for image in chosen]
        return chosen, places, [self._captions[image] for image in chosen], self._skipped()

    def _skipped(self) -> Skipped:
        tallies = (self.without_captions, self.without_images, self.empty, self.repeated)
        return Skipped(*(tally.left() for tally in tallies))


class ImageTexts(ABC):
    """Encoded pictures with an id and one or more captions each, in a stable order.

    Ids and captions are held; pictures are streamed.

    Attributes:
        name: where they come from, for messages.
        ids: (n,) int64, uint64 or string; none twice.
        captions: n lists of one or more captions, stripped, none empty and none twice in a list.
        skipped: what of the set is not used.
    """

    name: str
    ids: pa.Array
    captions: list[list[str]]
    skipped: Skipped

    def __len__(self) -> int:
        return len(self.captions)

    def contents(self, rows: Rows | Sequence[int] | None = None) -> Iterator[bytes]:
        """The bytes of the pictures in the given rows (ascending), or of all, one after the other.

        Raises:
            UsageError: rows that are not ascending, or not there.
            UnreadableFile: a file that went missing or was cut short after it was opened.
            DataError: a picture of more than `MAX_PICTURE_BYTES`.
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(chosen) and (chosen[0] < 0 or chosen[-1] >= len(self) or (np.diff(chosen) < 0).any()):
            raise UsageError(f"{self.name}: rows must ascend from 0 to {len(self) - 1}; sort them")
        return self._contents(chosen)

    @abstractmethod
    def _contents(self, rows: Rows) -> Iterator[bytes]: ...

    @abstractmethod
    def _sources(self) -> list[object]:
        """JSON-ready facts about the files."""

    def fingerprint(self) -> list[object]:
        """JSON-ready facts that change when the files do, or the images that are chosen from them."""
        chosen = blake2b(repr(self.ids.to_pylist()).encode("utf-8", "backslashreplace"), digest_size=16)
        return [type(self).__name__, *self._sources(), len(self), chosen.hexdigest()]

    def relevance(self) -> Captions:
        """Which captions are right for which images; equal captions are one."""
        return captions_from_table(
            pa.table({"id": self.ids, "caption": pa.array(self.captions, pa.list_(pa.string()))})
        )

    def _settle(self, ids: Sequence[object], captions: list[list[str]], skipped: Skipped) -> None:
        """Keep ids and captions.

        Raises:
            DataError: nothing is left; the message says what was skipped.
            DuplicateIds: an id belongs to several images.
        """
        if not len(ids):
            raise DataError(f"{self.name}: no image with a caption is left; skipped {skipped}")
        self.ids = normalize_ids(_array(ids, self.name), self.name)
        self.captions, self.skipped = captions, skipped
        repeated = IdIndex([self.ids]).repeated()
        if repeated:
            raise DuplicateIds(
                f"{self.name}: {len(repeated)} ids stand for several images, first {first_few(repeated)}; "
                "give every image its own"
            )


def _array(ids: Sequence[object], name: str) -> pa.Array:
    try:
        return pa.array(ids)
    except (pa.ArrowException, OverflowError):
        raise DataError(f"{name}: ids are integers or strings, all of one kind; correct them") from None


def check_size(size: int, where: str) -> None:
    """Refuse a picture that no memory should be filled with.

    Raises:
        DataError: more than `MAX_PICTURE_BYTES`.
    """
    if size > MAX_PICTURE_BYTES:
        raise DataError(
            f"{where}: {size} bytes, pictures may have {MAX_PICTURE_BYTES}; is it a picture? Leave it out"
        )
