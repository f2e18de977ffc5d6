"""Captioned images at a path, whatever their layout."""

from __future__ import annotations

from pathlib import Path

from crossfade.datasets.image_texts.base import ImageTexts
from crossfade.datasets.image_texts.folder import TABLE_SUFFIXES, TABLES, FolderImageTexts
from crossfade.datasets.image_texts.karpathy import KarpathyImageTexts
from crossfade.datasets.image_texts.nocaps import NocapsImageTexts
from crossfade.datasets.image_texts.parquet import ParquetImageTexts
from crossfade.datasets.image_texts.picture_files import read_json
from crossfade.datasets.image_texts.webdataset import WebDatasetImageTexts
from crossfade.errors import UnreadableFile, UsageError

LAYOUTS = (
    "a Karpathy or nocaps JSON file, Parquet, tar shards (a folder of them or shards-{000..003}.tar), "
    f"or a folder with {', '.join(TABLES)}"
)


def open_image_texts(
    location: str | Path,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    image_column: str = "image",
    caption_column: str = "caption",
    id_column: str = "id",
) -> ImageTexts:
    """Captioned images at a path; the layout is recognised.

    Args:
        location: a Karpathy JSON file (``dataset_coco.json``), a JSON file in the layout of COCO (nocaps), a
            Parquet file or a folder of them, a tar shard, a folder of them or ``shards-{000..003}.tar``,
            a folder of pictures with ``captions.csv`` or ``captions.jsonl``, or that table.
        split: one, or several joined by ``+``; what it means is said by the class of the layout.
        images: root of the pictures, for JSON files and tables.
        image_column, caption_column, id_column: names of columns, for Parquet and tables; the caption's
            also for the json files in shards.

    Raises:
        UnreadableFile: nothing there, nothing that is understood, a half-written shard.
        UsageError: no such column or split, or an option that the layout does not have.
        DataError: malformed entries, or no image with a caption is left.
    """
    path = Path(location)
    columns = {"image_column": image_column, "caption_column": caption_column, "id_column": id_column}
    layout = _recognise(path)
    if layout in ("parquet", "tar") and images is not None:
        raise UsageError(f"{location}: the pictures are in the {layout} files; leave images out")
    if layout == "parquet":
        return ParquetImageTexts(path, split=split, **columns)
    if layout == "tar":
        return WebDatasetImageTexts(location, split=split, caption_column=caption_column)
    if layout == "table":
        return FolderImageTexts(path, images=images, split=split, **columns)
    return _open_json(path, images, split)


def _recognise(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".tar" and not path.is_dir():
        return "tar"
    if path.is_dir():
        return _recognise_folder(path)
    if not path.is_file():
        raise UnreadableFile(f"{path}: no such file or folder; give {LAYOUTS}")
    if suffix in TABLE_SUFFIXES:
        return "table"
    if suffix in (".json", ".parquet"):
        return suffix[1:]
    raise UnreadableFile(f"{path}: captioned images are not read from such a file; give {LAYOUTS}")


def _recognise_folder(path: Path) -> str:
    """Shards first: the tools that write them leave Parquet and JSON files of statistics beside them."""
    if any(path.glob("*.tar")) or any(path.glob("*/*.tar")):
        return "tar"
    if any((path / name).is_file() for name in TABLES):
        return "table"
    if any(path.glob("*.parquet")) or any(path.glob("*/*.parquet")):
        return "parquet"
    raise UnreadableFile(f"{path}: no captioned images that are understood; give {LAYOUTS}")


def _open_json(path: Path, images: str | Path | None, split: str | None) -> ImageTexts:
    data = read_json(path)
    if "annotations" in data:
        return NocapsImageTexts(path, images=images, split=split, data=data)
    if "images" in data:
        return KarpathyImageTexts(path, images=images, split=split, data=data)
    raise UnreadableFile(
        f"{path}: neither a Karpathy split ('images' with 'sentences') nor in the layout of COCO ('images', "
        f"'annotations'); it has {', '.join(map(repr, data)) or 'nothing'}"
    )
