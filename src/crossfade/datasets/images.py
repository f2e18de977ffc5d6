"""Labelled images: Parquet, folders of classes, and Hugging Face datasets saved to disk.

Ids and labels are read at once; the encoded pictures are streamed, so that a set may be larger than
memory.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossfade.datasets.labels import ClassLabels, encode_labels
from crossfade.errors import DataError, UnreadableFile, UsageError
from crossfade.vectors.ids import normalize_ids

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".gif", ".bmp", ".ppm")
BATCH_ROWS = 512
Rows = NDArray[np.int64]


class LabelledImages(ABC):
    """Encoded pictures with an id and a class each, in a stable order.

    Attributes:
        name: where they come from, for messages.
        ids: (n,) int64, uint64 or string.
        labels: (n,) class codes and the classes' names.
    """

    name: str
    ids: pa.Array
    labels: ClassLabels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def contents(self, rows: Rows | None = None) -> Iterator[bytes]:
        """The bytes of the pictures in the given rows (ascending), or of all, one after the other."""

    @abstractmethod
    def fingerprint(self) -> list[object]:
        """JSON-ready facts that change when the files do."""


class FolderImages(LabelledImages):
    """One folder per class with its pictures (ImageNet's layout); ids are paths below the root.

    Raises:
        UnreadableFile: no folder, or no pictures in it.
    """

    def __init__(self, root: str | Path) -> None:
        self.name, self._root = str(root), Path(root)
        if not self._root.is_dir():
            raise UnreadableFile(f"{root}: no such folder; give one folder per class with pictures in it")
        self._files = sorted(
            (path for path in self._root.glob("*/**/*") if path.suffix.lower() in SUFFIXES),
            key=lambda path: path.relative_to(self._root).parts,
        )
        if not self._files:
            raise UnreadableFile(
                f"{root}: no pictures in folders of classes (looked for {', '.join(SUFFIXES)} in */)"
            )
        parts = [path.relative_to(self._root) for path in self._files]
        self.ids = pa.array([part.as_posix() for part in parts])
        self.labels = encode_labels([part.parts[0] for part in parts], what=self.name)

    def contents(self, rows: Rows | None = None) -> Iterator[bytes]:
        for row in range(len(self)) if rows is None else rows:
            yield self._files[row].read_bytes()

    def fingerprint(self) -> list[object]:
        sizes = [path.stat().st_size for path in self._files]
        return [str(self._root.resolve()), len(sizes), sum(sizes), self.ids[0].as_py(), self.ids[-1].as_py()]


class _TableImages(LabelledImages):
    """Pictures in a column of Arrow tables: structs with ``bytes``, or plain binary."""

    def __init__(self, name: str, files: list[Path], image: str, label: str, identifier: str) -> None:
        self.name, self._files, self._image = name, files, image
        schema = self._schema()
        missing = [column for column in (image, label) if column not in schema.names]
        if missing:
            raise UsageError(
                f"{name}: no column {', '.join(map(repr, missing))}; it has {', '.join(schema.names)}; "
                "name them with --set data.image_column=... and data.label_column=..."
            )
        has_ids = identifier in schema.names
        table = self._light_columns([label, identifier] if has_ids else [label])
        self.labels = encode_labels(table.column(label), what=f"{name}, column {label!r}")
        ids = (
            table.column(identifier).combine_chunks() if has_ids else pa.array(range(len(table)), pa.int64())
        )
        self.ids = normalize_ids(ids, name)

    @abstractmethod
    def _schema(self) -> pa.Schema: ...

    @abstractmethod
    def _light_columns(self, columns: list[str]) -> pa.Table: ...

    @abstractmethod
    def _image_batches(self) -> Iterator[pa.Array]: ...

    def contents(self, rows: Rows | None = None) -> Iterator[bytes]:
        start = 0
        for column in self._image_batches():
            stop = start + len(column)
            if rows is None:
                chosen = column
            else:
                inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
                chosen = column.take(pa.array(inside - start))
            for value in _encoded(chosen, self.name):
                # An absent picture is a corrupt one: whoever decodes it decides.
                yield value.as_py() or b""
            start = stop

    def fingerprint(self) -> list[object]:
        stats = [path.stat() for path in self._files]
        return [
            str(self._files[0].resolve()),
            self._image,
            *((one.st_size, one.st_mtime_ns) for one in stats),
        ]


class ParquetImages(_TableImages):
    """Pictures in one or more Parquet files, e.g. columns ``image`` (struct with ``bytes``) and ``label``.

    Args:
        path: a file, or a folder of files that are read in the order of their names.
        image, label, identifier: names of the columns; without an id column the row numbers are the ids.

    Raises:
        UnreadableFile: no such file, or no Parquet file.
        UsageError: no such column.
        DataError: a label is null or no class label.
    """

    def __init__(
        self, path: str | Path, *, image: str = "image", label: str = "label", identifier: str = "id"
    ) -> None:
        location = Path(path)
        files = sorted(location.glob("*.parquet")) if location.is_dir() else [location]
        super().__init__(str(path), files, image, label, identifier)

    def _schema(self) -> pa.Schema:
        try:
            return pq.read_schema(self._files[0])
        except (OSError, pa.ArrowInvalid, IndexError) as error:
            raise UnreadableFile(f"{self.name}: not a readable Parquet file ({error})") from None

    def _light_columns(self, columns: list[str]) -> pa.Table:
        return pa.concat_tables([pq.read_table(path, columns=columns) for path in self._files])

    def _image_batches(self) -> Iterator[pa.Array]:
        for path in self._files:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=[self._image]):
                    yield batch.column(0)


class SavedDataset(_TableImages):
    """A Hugging Face dataset written by ``save_to_disk``; its Arrow files are read without that library.

    Raises:
        UnreadableFile: no such dataset, or one with an indices mapping (flatten it first).
    """

    def __init__(
        self, path: str | Path, *, image: str = "image", label: str = "label", identifier: str = "id"
    ) -> None:
        folder = Path(path)
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            files = [folder / entry["filename"] for entry in state["_data_files"]]
        except (OSError, ValueError, KeyError) as error:
            raise UnreadableFile(f"{path}: no dataset written by save_to_disk ({error})") from None
        if state.get("_indices_data_files"):
            raise UnreadableFile(
                f"{path}: its rows are an indices mapping; call flatten_indices() and save_to_disk again"
            )
        super().__init__(str(path), files, image, label, identifier)

    def _schema(self) -> pa.Schema:
        try:
            with pa.memory_map(str(self._files[0])) as file, pa.ipc.open_stream(file) as stream:
                return stream.schema
        except (OSError, pa.ArrowInvalid, IndexError) as error:
            raise UnreadableFile(f"{self.name}: not a readable Arrow file ({error})") from None

    def _light_columns(self, columns: list[str]) -> pa.Table:
        return pa.Table.from_batches([batch.select(columns) for batch in self._record_batches()])

    def _image_batches(self) -> Iterator[pa.Array]:
        for batch in self._record_batches():
            yield batch.column(self._image)

    def _record_batches(self) -> Iterator[pa.RecordBatch]:
        for path in self._files:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                yield from stream


def open_images(
    location: str | Path, *, image: str = "image", label: str = "label", identifier: str = "id"
) -> LabelledImages:
    """Labelled images at a path: a Parquet file or folder of them, a saved dataset, or folders of classes.

    Raises:
        UnreadableFile, UsageError, DataError: see the classes of this file.
    """
    path = Path(location)
    columns = {"image": image, "label": label, "identifier": identifier}
    if path.is_file():
        return ParquetImages(path, **columns)
    if not path.is_dir():
        raise UnreadableFile(
            f"{location}: no such file or folder; give Parquet, a folder per class, or a saved dataset"
        )
    if (path / "state.json").is_file():
        return SavedDataset(path, **columns)
    if any(path.glob("*.parquet")):
        return ParquetImages(path, **columns)
    return FolderImages(path)


def _encoded(column: pa.Array, name: str) -> pa.Array:
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        return pc.struct_field(column, "bytes")
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return column
    raise DataError(f"{name}: pictures are binary or a struct with 'bytes', got {column.type}; encode them")
