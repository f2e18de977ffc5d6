"""Pairs in Parquet: one row per image, or one row per caption and the id of its image.

The picture is a struct with ``bytes`` (as Hugging Face writes it) or plain binary; captions are a string
or a list of strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crossfade.datasets.image_texts.base import Gathering, ImageTexts, Rows, check_size
from crossfade.datasets.image_texts.parts import choose_parts, filter_split, require_splits
from crossfade.errors import DataError, UsageError
from crossfade.vectors.columns import describe_columns
from crossfade.vectors.table import reading

# Few rows at a time: a picture may have megabytes.
PICTURE_ROWS = 64
TEXT_ROWS = 65536
BUFFER_BYTES = 1 << 20


class ParquetImageTexts(ImageTexts):
    """Pairs in one or more Parquet files.

    Rows of the same id are captions of one image, of which the first picture counts. Without an id column
    every row is an image, and row numbers (over all files, before anything is left out) are the ids.

    Args:
        path: a file, or a folder of files that are read in the order of their names.
        split: only rows whose column ``split`` says so; without such a column, only files of the folder
            that are named so (``train.parquet``, ``train-00000-of-00004.parquet``, ``train/0.parquet``).
        image_column, caption_column, id_column: names of the columns; ``image.path`` is a field of one.

    Raises:
        UnreadableFile: no such file, or no Parquet file.
        UsageError: no such column, or no such split.
        DataError: columns of other types, or nothing is left.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        split: str | None = None,
        image_column: str = "image",
        caption_column: str = "caption",
        id_column: str = "id",
    ) -> None:
        self.name = str(path)
        self._files, self._split_column = choose_parts(Path(path), ".parquet", split, self._has_split_column)
        self._split, self._picture = split, ""
        self._columns = (image_column, caption_column, id_column)
        self._light = [self._check(file) for file in self._files]
        gathering, self._known = Gathering(), set[str]()
        start = 0
        for file, light in zip(self._files, self._light, strict=True):
            start += self._gather(gathering, file, light, start)
        if split is not None and self._split_column:
            require_splits(split, self._known, self.name)
        ids, places, captions, skipped = gathering.finish()
        self._places = np.array(places, dtype=np.int64)
        self._settle(ids, captions, skipped)

    def _has_split_column(self, file: Path) -> bool:
        return "split" in _schema(file).names

    def _check(self, file: Path) -> list[str]:
        """Look at the schema of a file; which columns besides the picture to read."""
        schema = _schema(file)
        image, caption, identifier = self._columns
        missing = [name for name in (image, caption) if name not in schema.names]
        has_ids = _has_field(schema, identifier)
        if not has_ids and identifier != "id":
            missing.append(identifier)
        if missing:
            raise UsageError(
                f"{file}: no column {', '.join(map(repr, missing))}; it has {describe_columns(schema)}; "
                "name the columns of images, captions and ids"
            )
        picture = _picture_field(schema.field(image), file)
        if self._picture not in ("", picture):
            raise DataError(
                f"{file}: column {image!r} is of another type than in {self._files[0]}; write them alike"
            )
        self._picture = picture
        _check_captions(schema.field(caption), file)
        return [caption, *([identifier] if has_ids else []), *(["split"] if self._split_column else [])]

    def _gather(self, gathering: Gathering, path: Path, light: list[str], start: int) -> int:
        """Read ids and captions of a file, and which of its pictures are there; its number of rows."""
        _, caption, identifier = self._columns
        with reading(str(path)), pq.ParquetFile(path) as file:
            absent = _absent(file, self._picture)
            row = 0
            for batch in file.iter_batches(TEXT_ROWS, columns=light):
                numbers = np.arange(row, row + len(batch))
                row += len(batch)
                if self._split is not None and self._split_column:
                    self._known.update(filter(None, batch.column("split").unique().to_pylist()))
                    chosen = filter_split(batch.column("split"), self._split)
                    batch, numbers = batch.filter(pa.array(chosen)), numbers[chosen]
                ids = _ids(batch, identifier, path) if identifier in light else (start + numbers).tolist()
                texts = batch.column(caption).to_pylist()
                _add(gathering, ids, texts, (start + numbers).tolist(), absent[numbers].tolist())
        return row

    def _contents(self, rows: Rows) -> Iterator[bytes]:
        places = self._places[rows]
        start = 0
        for path in self._files:
            with reading(str(path)), pq.ParquetFile(path, buffer_size=BUFFER_BYTES) as file:
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    inside = places[np.searchsorted(places, start) : np.searchsorted(places, stop)]
                    if len(inside):
                        yield from self._of_group(file, group, inside - start)
                    start = stop

    def _of_group(self, file: Any, group: int, wanted: Rows) -> Iterator[bytes]:
        start = 0
        for batch in file.iter_batches(PICTURE_ROWS, row_groups=[group], columns=[self._picture]):
            inside = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(batch))]
            for value in _binary(batch.column(0)).take(pa.array(inside - start)):
                content = value.as_py() or b""
                check_size(len(content), self.name)
                yield content
            start += len(batch)

    def _sources(self) -> list[object]:
        stats = [(path, path.stat()) for path in self._files]
        files = [[str(path.resolve()), one.st_size, one.st_mtime_ns] for path, one in stats]
        return [*files, list(self._columns), self._split]


def _schema(file: Path) -> pa.Schema:
    with reading(str(file)):
        return pq.read_schema(file)


def _has_field(schema: pa.Schema, name: str) -> bool:
    column, _, inner = name.partition(".")
    if name in schema.names or column not in schema.names:
        return name in schema.names
    found = schema.field(column).type
    return bool(inner) and pa.types.is_struct(found) and found.get_field_index(inner) >= 0


def _picture_field(field: pa.Field, file: Path) -> str:
    if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
        return f"{field.name}.bytes"
    if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
        return str(field.name)
    raise DataError(
        f"{file}: column {field.name!r} is {field.type}; pictures are binary or a struct with 'bytes'; "
        "encode them"
    )


def _check_captions(field: pa.Field, file: Path) -> None:
    found = field.type
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        found = found.value_type
    if pa.types.is_dictionary(found):
        found = found.value_type
    if not (pa.types.is_string(found) or pa.types.is_large_string(found)):
        raise DataError(
            f"{file}: column {field.name!r} is {field.type}; captions are strings or lists of strings"
        )


def _absent(file: Any, picture: str) -> np.ndarray:
    """(rows,) which pictures are null: from the statistics, or by reading where there are none or some."""
    masks = [_absent_in(file, group, picture) for group in range(file.num_row_groups)]
    return np.concatenate([np.zeros(0, dtype=bool), *masks])


def _absent_in(file: Any, group: int, picture: str) -> np.ndarray:
    metadata = file.metadata.row_group(group)
    columns = (metadata.column(index) for index in range(metadata.num_columns))
    statistics = next(one.statistics for one in columns if one.path_in_schema == picture)
    if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
        return np.zeros(metadata.num_rows, dtype=bool)
    batches = file.iter_batches(PICTURE_ROWS, row_groups=[group], columns=[picture])
    masks = [_binary(batch.column(0)).is_null().to_numpy(zero_copy_only=False) for batch in batches]
    return np.concatenate([np.zeros(0, dtype=bool), *masks])


def _binary(column: pa.Array) -> pa.Array:
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _ids(batch: pa.RecordBatch, name: str, path: Path) -> list[Any]:
    column, _, inner = name.partition(".")
    values = (
        batch.column(name) if name in batch.schema.names else pc.struct_field(batch.column(column), inner)
    )
    if values.null_count:
        raise DataError(
            f"{path}: {values.null_count} rows have no {name!r}; "
            "give every image an id or name another column"
        )
    ids: list[Any] = values.to_pylist()
    return ids


def _add(
    gathering: Gathering, ids: list[Any], texts: Iterable[Any], places: list[int], absent: list[bool]
) -> None:
    for image, text, place, without in zip(ids, texts, places, absent, strict=True):
        if not without:
            gathering.picture(image, place)
        if text is not None and text != []:
            gathering.captions(image, [text] if isinstance(text, str) else text)
