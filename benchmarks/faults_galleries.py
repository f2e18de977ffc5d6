"""Small galleries in every store: made, copied, read as an application reads them, bit for bit."""

from __future__ import annotations

import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.adapters import Adapter, make_adapter
from crossfade.spaces import Space
from crossfade.stores import Store, open_store

D_OLD, D_NEW = 16, 24
OLD, NEW = Space("fault-old", D_OLD, "l2"), Space("fault-new", D_NEW, "l2")
ROWS, PARTS = 96, 4
Bits = dict[str, str]
"""What was read, by what it is: digests and names."""


def old_vectors(ids: Sequence[int]) -> np.ndarray:
    """(n, D_OLD): a function of the id alone."""
    made = [np.random.default_rng(one).standard_normal(D_OLD) for one in ids]
    return np.array(made, dtype=np.float32).reshape(len(ids), D_OLD)


@cache
def adapter() -> Adapter:
    """A ridge map between the spaces, fitted on a planted one."""
    generator = np.random.default_rng(7)
    x = generator.standard_normal((400, D_OLD)).astype(np.float32)
    y = x @ generator.standard_normal((D_OLD, D_NEW)).astype(np.float32)
    return make_adapter("ridge").fit(x, y, source=OLD, target=NEW)


def table(ids: Sequence[int], vectors: np.ndarray | None = None) -> pa.Table:
    """Rows of id, text and vector."""
    made = old_vectors(ids) if vectors is None else vectors
    flat = pa.array(np.ascontiguousarray(made, dtype=np.float32).reshape(-1))
    columns = {"id": pa.array(ids, pa.int64()), "text": [f"item {one}" for one in ids]}
    return pa.table({**columns, "vector": pa.FixedSizeListArray.from_arrays(flat, made.shape[1])})


def digest(*pieces: bytes | str) -> str:
    """Of bytes, for comparing them."""
    made = hashlib.sha256()
    for one in pieces:
        made.update(one if isinstance(one, bytes) else one.encode())
    return made.hexdigest()[:16]


@dataclass(frozen=True)
class Gallery(ABC):
    """A gallery, and everything that belongs to its upgrade.

    Attributes:
        folder: where it lies; a server's gallery keeps the journal there.
    """

    folder: Path

    @property
    @abstractmethod
    def uri(self) -> str:
        """Address of the vectors."""

    @abstractmethod
    def create(self) -> None:
        """Make it."""

    @abstractmethod
    def copy(self, folder: Path) -> Gallery:
        """The same in another place."""

    @abstractmethod
    def live(self) -> Bits:
        """What the application reads: its ids, its texts, its vectors, its index."""

    @abstractmethod
    def traces(self) -> set[str]:
        """Names of everything in the store's place, for finding what an upgrade leaves behind."""

    def open(self) -> Store:
        """The store as an operator opens it."""
        os.environ["CROSSFADE_HOME"] = str(self.folder / "home")
        store = open_store(self.uri)
        if hasattr(store, "part_rows"):
            store.part_rows = ROWS // PARTS
        return store

    def journal(self) -> Path:
        """File of the journal."""
        return self.open().journal

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class FileGallery(Gallery):
    """A gallery that lies in its folder as a whole."""

    def copy(self, folder: Path) -> Gallery:
        shutil.copytree(self.folder, folder)
        return type(self)(folder)

    def traces(self) -> set[str]:
        names = {str(one.relative_to(self.folder)) for one in self.folder.rglob("*") if one.is_file()}
        return {one for one in names if not one.endswith(("-wal", "-shm"))}


@dataclass(frozen=True)
class LanceGallery(FileGallery):
    """A LanceDB table with an index, of several fragments, some rows deleted."""

    @property
    def uri(self) -> str:
        return f"lancedb://{self.folder}#items.vector"

    def create(self) -> None:
        import lancedb

        made: Any = None
        for ids in np.array_split(np.arange(ROWS), PARTS):
            if made is None:
                made = lancedb.connect(self.folder).create_table("items", table(ids.tolist()))
            else:
                made.add(table(ids.tolist()))
        made.delete("id % 20 = 3")
        options = {"metric": "l2", "num_partitions": 2, "name": "vector_idx"}
        made.to_lance().create_index("vector", "IVF_FLAT", **options)

    def live(self) -> Bits:
        import lance

        read = lance.dataset(str(self.folder / "items.lance")).to_table(columns=["id", "text", "vector"])
        found = {name: _buffers(read.column(name)) for name in read.column_names}
        return {
            **found,
            "type": str(read.schema.field("vector").type),
            "index": str(self.open().describe().index),
        }

    def traces(self) -> set[str]:
        """Versions and files of the table have random names, so of those only our own count."""
        import lance

        names = {one for one in super().traces() if not one.startswith("items.lance/")}
        dataset = lance.dataset(str(self.folder / "items.lance"))
        ours = {one for one in super().traces() if one.startswith("items.lance/data/crossfade-")}
        columns = {f"column {one.name} {one.type}" for one in dataset.schema}
        return {one for one in names if "/indexes/" not in one} | ours | columns


@dataclass(frozen=True)
class ParquetGallery(FileGallery):
    """A Parquet file."""

    @property
    def uri(self) -> str:
        return f"parquet://{self.folder / 'items.parquet'}#vector"

    def create(self) -> None:
        self.folder.mkdir(parents=True)
        pq.write_table(table(range(ROWS)), self.folder / "items.parquet", row_group_size=40)

    def live(self) -> Bits:
        return {"file": digest((self.folder / "items.parquet").read_bytes())}


@dataclass(frozen=True)
class FaissGallery(FileGallery):
    """An IVF index of FAISS, with a Parquet file of ids and texts."""

    @property
    def uri(self) -> str:
        return f"faiss://{self.folder / 'items.faiss'}#vector"

    def create(self) -> None:
        import faiss

        self.folder.mkdir(parents=True)
        coarse = faiss.IndexFlatL2(D_OLD)
        inner = faiss.IndexIVFFlat(coarse, D_OLD, 2, faiss.METRIC_L2)
        made = faiss.IndexIDMap2(inner)
        vectors = old_vectors(range(ROWS))
        made.train(vectors)
        made.add_with_ids(vectors, np.arange(ROWS))
        faiss.write_index(made, str(self.folder / "items.faiss"))
        pq.write_table(table(range(ROWS)).drop_columns(["vector"]), self.folder / "items.parquet")

    def live(self) -> Bits:
        names = ("items.faiss", "items.parquet")
        return {name: digest((self.folder / name).read_bytes()) for name in names}


def _buffers(column: pa.ChunkedArray) -> str:
    """Of a column's values, bit for bit."""
    joined = column.combine_chunks()
    values = joined.flatten() if pa.types.is_fixed_size_list(column.type) else joined
    if pa.types.is_floating(values.type):
        return digest(values.to_numpy(zero_copy_only=False).tobytes(), str(joined.is_null().to_pylist()))
    return digest(repr(values.to_pylist()))
