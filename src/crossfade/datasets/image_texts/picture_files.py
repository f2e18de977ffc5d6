"""Pictures in folders, named by a file of captions: found, never outside their root, and streamed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from crossfade.datasets.image_texts.base import Gathering, ImageTexts, Rows, check_size
from crossfade.errors import DataError, DuplicateIds, UnreadableFile
from crossfade.vectors.table import reading

MAX_JSON_BYTES = 4 << 30
# Of Windows as well, wherever this runs: the same set is refused everywhere.
_SLASHES, _ROOTED = re.compile(r"[/\\]"), re.compile(r"[/\\]|[A-Za-z]:")


class PictureFolders:
    """Where pictures are looked for. Folders are listed once, so that a network is not asked for each file.

    Args:
        images: the root as the caller gave it, else the folder of the captions and ``images`` in it.
        captions: the file of the captions.

    Raises:
        UnreadableFile: no such folder.
    """

    def __init__(self, images: str | Path | None, captions: Path) -> None:
        given = captions.parent if images is None else Path(images)
        if not given.is_dir():
            raise UnreadableFile(f"{given}: no such folder; give the folder of the pictures")
        self.roots = (given,) if images is not None else (given, given / "images")
        self._listed: dict[Path, frozenset[str]] = {}

    def find(self, names: Sequence[str], where: str) -> Path | None:
        """The first of these files that is there.

        Raises:
            DataError: a name leads out of the root.
        """
        relative = [safe_name(name, where) for name in names]
        for root in self.roots:
            for name in relative:
                if name.name in self._list(root / name.parent):
                    return root / name
        return None

    def _list(self, folder: Path) -> frozenset[str]:
        if folder not in self._listed:
            try:
                with os.scandir(folder) as entries:
                    self._listed[folder] = frozenset(entry.name for entry in entries if entry.is_file())
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]


def safe_name(name: str, where: str) -> PurePosixPath:
    """A relative path that stays below the folder it is joined to.

    Symbolic links within the root are its owner's and are followed.

    Raises:
        DataError: empty, absolute, with a drive, or with ``..``.
    """
    if not name.strip() or "\0" in name or _ROOTED.match(name) or ".." in _SLASHES.split(name):
        raise DataError(
            f"{where}: picture {name!r} is not below the images' root and is not read; "
            "name pictures relative to the root"
        )
    return PurePosixPath(name)


class FileImageTexts(ImageTexts):
    """Captioned pictures that are files. A subclass reads its captions and calls `_add` and `_finish`."""

    def __init__(self, name: str, captions: Path, images: str | Path | None, split: str | None) -> None:
        self.name, self._captions_file, self._split = name, captions, split
        self._folders = PictureFolders(images, captions)
        self._gathering = Gathering()
        self._found: dict[Hashable, Path] = {}
        self._looked_for: str | None = None
        self._files: list[Path] = []

    def _add(self, image: Hashable, names: Sequence[str], texts: Iterable[str | None], where: str) -> None:
        """An image of this id, whose picture is the first of `names` that exists, has these captions.

        Raises:
            DataError: a name leads out of the root.
            DuplicateIds: the id stands for another picture.
        """
        self._gathering.captions(image, texts)
        found = self._folders.find(names, where)
        self._looked_for = self._looked_for or names[0]
        if found is None:
            return
        if self._found.setdefault(image, found) != found:
            raise DuplicateIds(
                f"{where}: id {image!r} stands for {found.name!r} here and for "
                f"{self._found[image].name!r} before; give every image its own"
            )
        self._gathering.picture(image)

    def _finish(self) -> None:
        if self._looked_for is not None and not self._found:
            raise UnreadableFile(
                f"{self.name}: none of the pictures is in {' or '.join(map(str, self._folders.roots))}, "
                f"the first is {self._looked_for!r}; give the folder of the pictures as images"
            )
        ids, _, captions, skipped = self._gathering.finish()
        self._files = [self._found[image] for image in ids]
        self._settle(ids, captions, skipped)

    def _contents(self, rows: Rows) -> Iterator[bytes]:
        for row in rows:
            path = self._files[row]
            with reading(str(path)):
                check_size(path.stat().st_size, str(path))
                content = path.read_bytes()
            yield content

    def _sources(self) -> list[object]:
        captions, stats = self._captions_file.stat(), [path.stat() for path in self._files]
        sizes, newest = sum(one.st_size for one in stats), max(one.st_mtime_ns for one in stats)
        roots = [str(root.resolve()) for root in self._folders.roots]
        said = [str(self._captions_file.resolve()), captions.st_size, captions.st_mtime_ns]
        return [said, roots, self._split, sizes, newest]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UnreadableFile: no such file, cut short, or something else.
    """
    with reading(str(path)):
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise UnreadableFile(
                f"{path}: {size} bytes; captions in JSON may have {MAX_JSON_BYTES}, use Parquet"
            )
        content = path.read_bytes()
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(
            f"{path}: no valid JSON, it may be cut short ({error}); copy or export it again"
        ) from None
    if not isinstance(data, dict):
        raise UnreadableFile(f"{path}: expected a JSON object with 'images', got {type(data).__name__}")
    return data


def objects(data: dict[str, Any], name: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a list under a name, and where each is, for messages.

    Raises:
        DataError: no list of objects.
    """
    values = data.get(name)
    if not isinstance(values, list):
        raise DataError(f"{path}: no list {name!r}; it has {', '.join(map(repr, data)) or 'nothing'}")
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(f"{path}, {name} {number}: expected an object, got {type(value).__name__}")
    return [(f"{path}, {name} {number}", value) for number, value in enumerate(values)]


def text_in(entry: dict[str, Any], name: str, where: str) -> str:
    """A text under a name; empty where there is none.

    Raises:
        DataError: something else stands there.
    """
    value = entry.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: {name!r} should be a text, got {type(value).__name__}")
    return value or ""


def id_in(entry: dict[str, Any], name: str, where: str) -> int | str:
    """An id under a name.

    Raises:
        DataError: none, or neither integer nor text.
    """
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}: {name!r} should be an integer or a text, got {type(value).__name__}")
    return value
