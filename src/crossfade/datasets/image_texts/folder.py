"""A folder of pictures and a table of captions: ``captions.csv`` (or .tsv) or ``captions.jsonl``.

The table has a column with the path of the picture below the folder and one with the caption; several rows
of a picture are several captions of it, and in JSONL a caption may be a list. ``metadata.csv`` and
``metadata.jsonl`` with ``file_name``, as Hugging Face has them, are read alike.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from crossfade.datasets.image_texts.parts import require_splits, split_names
from crossfade.datasets.image_texts.picture_files import FileImageTexts
from crossfade.datasets.images import SUFFIXES
from crossfade.datasets.lines import numbered_lines, parse_object, texts_of
from crossfade.errors import DataError, UnreadableFile, UsageError
from crossfade.vectors.table import reading

TABLES = ("captions.csv", "captions.tsv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
IMAGE_COLUMNS = ("file_name", "filename", "filepath", "path")


@dataclass(frozen=True, slots=True)
class _Row:
    picture: str
    image: int | str | None
    texts: list[str]
    split: str
    where: str


class FolderImageTexts(FileImageTexts):
    """Pictures of a folder and the captions in its table.

    The ids are those of the id column where it has one for each picture, else the paths in the table.

    Args:
        path: the folder, or the table.
        images: root of the pictures; unless given, the folder of the table, or ``images`` in it.
        split: only rows whose column ``split`` says so.
        image_column, caption_column, id_column: names of the columns; the pictures may stand under
            ``file_name``, ``filename``, ``filepath`` or ``path`` as well.

    Raises:
        UnreadableFile: no such folder or table, or none of the pictures is there.
        UsageError: no such column or split.
        DataError: a malformed row, or a path that leaves the root.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images: str | Path | None = None,
        split: str | None = None,
        image_column: str = "image",
        caption_column: str = "caption",
        id_column: str = "id",
    ) -> None:
        table = find_table(Path(path))
        super().__init__(str(path), table, images, split)
        rows = list(_read(table, image_column, caption_column, id_column))
        if split is not None:
            require_splits(split, (row.split for row in rows if row.split), self.name)
        chosen = None if split is None else split_names(split)
        by_id = _ids_are_those_of_pictures(rows)
        if not by_id and id_column != "id":
            raise DataError(f"{table}: column {id_column!r} has not one id for every picture; name another")
        for row in rows:
            if chosen is None or row.split in chosen:
                image = row.image if by_id and row.image is not None else row.picture
                self._add(image, [row.picture], row.texts, row.where)
        self._count_uncaptioned(rows)
        self._finish()

    def _count_uncaptioned(self, rows: list[_Row]) -> None:
        """Pictures of the root that no row of the table names, of whatever split."""
        named = {os.path.normpath(row.picture) for row in rows}
        root = self._folders.roots[0]
        prefixes = [folder.relative_to(root) for folder in self._folders.roots if folder.is_relative_to(root)]
        for relative in _pictures_below(root):
            inner = [relative.relative_to(one) for one in prefixes if relative.is_relative_to(one)]
            if not any(str(one) in named for one in inner):
                self._gathering.without_captions.add(relative.as_posix())


def find_table(path: Path) -> Path:
    """The table of a folder, or the file itself.

    Raises:
        UnreadableFile: there is none.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in TABLES if (path / name).is_file()]
    if not found:
        raise UnreadableFile(f"{path}: no captions; the folder should hold one of {', '.join(TABLES)}")
    return found[0]


def _pictures_below(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        inner.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES):
                yield (Path(folder) / name).relative_to(root)


def _ids_are_those_of_pictures(rows: list[_Row]) -> bool:
    """Whether there is one id for every picture, and one picture for every id (ids may be the captions')."""
    pairs = {(row.picture, row.image) for row in rows}
    pictures, images = Counter(one for one, _ in pairs), Counter(one for _, one in pairs)
    return None not in images and len(pairs) == len(pictures) == len(images)


def _read(table: Path, image: str, caption: str, identifier: str) -> Iterator[_Row]:
    rows = _objects(table) if table.suffix.lower() == ".jsonl" else _cells(table)
    picture = ""
    for number, entry in rows:
        where = f"{table}, line {number}"
        if not picture:
            picture, caption = _columns(entry, image, caption, identifier, where)
        yield _Row(
            _picture(entry.get(picture), picture, where),
            _id(entry.get(identifier), identifier, where),
            texts_of(entry.get(caption), where),
            str(entry.get("split") or ""),
            where,
        )


def _columns(entry: dict[str, Any], image: str, caption: str, identifier: str, where: str) -> tuple[str, str]:
    """Names of the columns of pictures and captions, by the first row."""
    others = IMAGE_COLUMNS if image == "image" else ()
    picture = next((name for name in (image, *others) if name in entry), None)
    several = ("captions",) if caption == "caption" else ()
    said = next((name for name in (caption, *several) if name in entry), None)
    wanted = {image: picture, caption: said, identifier: identifier == "id" or identifier in entry or None}
    missing = [name for name, found in wanted.items() if not found]
    if missing or picture is None or said is None:
        raise UsageError(
            f"{where}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, entry))}; "
            "name the columns of images, captions and ids"
        )
    return picture, said


def _picture(value: object, column: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {column!r} should be the path of a picture, got {value!r}")
    return PurePosixPath(value.strip()).as_posix()


def _id(value: object, column: str, where: str) -> int | str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}: {column!r} should be an integer or a text, got {type(value).__name__}")
    return value


def _objects(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in numbered_lines(table):
        if line.strip():
            yield number, parse_object(line, f"{table}, line {number}")


def _cells(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with reading(str(table)), table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(rows, [])
            for cells in rows:
                if cells:
                    yield rows.line_num, _entry(header, cells, f"{table}, line {rows.line_num}")
        except csv.Error as error:
            raise DataError(f"{table}, line {rows.line_num}: {error}; correct the line") from None
        except UnicodeDecodeError as error:
            raise UnreadableFile(f"{table}: not UTF-8 ({error.reason}); save it as UTF-8") from None


def _entry(header: list[str], cells: list[str], where: str) -> dict[str, Any]:
    if len(cells) != len(header):
        raise DataError(
            f"{where}: {len(cells)} cells under {len(header)} columns; "
            "put captions with a delimiter in them in quotation marks"
        )
    return dict(zip(header, cells, strict=True))
