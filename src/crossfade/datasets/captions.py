"""Images and their captions: which captions are right for which images, in both directions.

Two images may have the very same caption ("a dog runs"). Such captions are one caption that is right
for several images; counting them apart would call a right answer wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossfade.datasets.relevance import Relevance
from crossfade.errors import DataError, UsageError
from crossfade.vectors.columns import describe_columns
from crossfade.vectors.ids import normalize_ids
from crossfade.vectors.table import reading


@dataclass(frozen=True, slots=True)
class Captions:
    """Distinct images, distinct captions, and which belong together.

    Attributes:
        image_ids: (n,) ids of the images, in order of appearance.
        texts: (m,) distinct captions, in order of appearance.
        images: (p,) int64 positions in `image_ids`, one for each distinct (image, caption).
        captions: (p,) int64 positions in `texts`.
        rows: (r,) int64 position in `texts` of each caption of the table, in its order; a row of vectors
            made for the table's captions belongs to that text.
    """

    image_ids: pa.Array
    texts: pa.Array
    images: NDArray[np.int64]
    captions: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def image_to_text(self) -> Relevance:
        """Images as queries, distinct captions as the gallery."""
        return self._relevance(len(self.image_ids), len(self.texts), self.images, self.captions)

    @property
    def text_to_image(self) -> Relevance:
        """Distinct captions as queries, images as the gallery."""
        return self._relevance(len(self.texts), len(self.image_ids), self.captions, self.images)

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """(m,) row of the table where each distinct caption first stands."""
        return np.unique(self.rows, return_index=True)[1].astype(np.int64)

    def _relevance(
        self, n_queries: int, n_gallery: int, queries: NDArray[np.int64], items: NDArray[np.int64]
    ) -> Relevance:
        order = np.lexsort((items, queries))
        return Relevance(
            n_queries, n_gallery, queries[order], items[order], np.ones(len(order), dtype=np.int64)
        )


def captions_from_table(
    table: pa.Table, *, image_column: str = "id", caption_column: str = "caption"
) -> Captions:
    """Captions of a table with one row per caption, or one row per image and a list of captions.

    White space around a caption does not count.

    Raises:
        UsageError: no such column.
        DataError: an image without id or caption, or a caption that is empty.
    """
    for name in (image_column, caption_column):
        if name not in table.column_names:
            raise UsageError(
                f"no column {name!r} in the captions; they have {describe_columns(table.schema)}"
            )
    ids = normalize_ids(_join(table[image_column]), f"captions, column {image_column!r}")
    values = _join(table[caption_column])
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        ids, values = _one_row_each(ids, values)
    texts = _clean(values)
    image_ids, images = _number(ids)
    distinct, rows = _number(texts)
    pairs = np.unique(np.stack([images, rows], axis=1), axis=0)
    return Captions(image_ids, distinct, pairs[:, 0], pairs[:, 1], rows)


def read_captions(path: str | Path, *, image_column: str = "id", caption_column: str = "caption") -> Captions:
    """Captions of a Parquet file; see `captions_from_table`.

    Raises:
        UnreadableFile: no such file, cut short, or no Parquet.
        UsageError, DataError: see `captions_from_table`.
    """
    with reading(str(path)):
        columns = [name for name in (image_column, caption_column) if name in pq.read_schema(path).names]
        table = pq.ParquetFile(path).read(columns)
    return captions_from_table(table, image_column=image_column, caption_column=caption_column)


def _one_row_each(ids: pa.Array, lists: pa.Array) -> tuple[pa.Array, pa.Array]:
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    without = np.flatnonzero(counts == 0)
    if len(without):
        raise DataError(
            f"{len(without)} of {len(ids)} images have no caption, "
            f"the first is {ids[int(without[0])].as_py()!r}; caption them or leave them out"
        )
    return ids.take(pa.array(np.repeat(np.arange(len(ids)), counts))), lists.flatten()


def _clean(values: pa.Array) -> pa.Array:
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise DataError(f"captions are {values.type}; they must be strings or lists of strings")
    texts = pc.utf8_trim_whitespace(values)
    empty = np.flatnonzero(pc.fill_null(pc.equal(texts, ""), True).to_numpy(zero_copy_only=False))
    if len(empty):
        raise DataError(
            f"{len(empty)} of {len(texts)} captions are empty or null, "
            f"the first is number {empty[0]}, counted from 0; write them or leave them out"
        )
    return texts


def _number(values: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Distinct values in order of appearance, and the position of each value among them."""
    encoded = values.dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)


def _join(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
