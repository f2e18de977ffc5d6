"""Captioned images at a path, whatever their layout."""

from __future__ import annotations

from pathlib import Path

from crossfade.datasets.image_texts.base import ImageTexts
from crossfade.datasets.image_texts.parquet import ParquetImageTexts
from crossfade.errors import UnreadableFile


def open_image_texts(
    location: str | Path,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    image_column: str = "image",
    caption_column: str = "caption",
    id_column: str = "id",
) -> ImageTexts:
    path = Path(location)
    if path.suffix == ".parquet" or any(path.glob("*.parquet")):
        return ParquetImageTexts(
            path, split=split, image_column=image_column, caption_column=caption_column, id_column=id_column
        )
    raise UnreadableFile(f"{location}: no captioned images")
