"""A table in some store, as an application makes and changes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.stores import Receipt, Store, open_store


def table(ids: list[Any], vectors: NDArray[np.float32] | None, column: str = "vector") -> pa.Table:
    """Rows with an id, a text, and a vector each."""
    columns: dict[str, Any] = {"id": pa.array(ids), "text": [f"item {one}" for one in ids]}
    if vectors is not None:
        values = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        columns[column] = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    return pa.table(columns)


class Backend(ABC):
    """A table in some store, written to by an application that knows nothing of Crossfade."""

    name: str
    library: str = ""
    """Module without which the store's tests are skipped."""
    packages: tuple[str, ...] = ()
    """What the store runs on in the tests; their versions are printed at the end."""

    @classmethod
    def engine(cls) -> str:
        """What the store runs on, in words."""
        return ", ".join(f"{one} {version(one)}" for one in cls.packages) or cls.name

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    @abstractmethod
    def uri(self) -> str:
        """Address of the column."""

    @abstractmethod
    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        """A table of these rows, in several parts."""

    @abstractmethod
    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        """The application adds rows, with a vector in the column that it knows, or without."""

    @abstractmethod
    def delete(self, ids: list[Any]) -> None:
        """The application deletes rows."""

    @abstractmethod
    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        """The application gives rows other vectors."""

    @abstractmethod
    def compact(self) -> None:
        """The application tidies up the store, as its manual tells it to."""

    @abstractmethod
    def index(self, metric: str) -> None:
        """The application builds an ANN index."""

    @abstractmethod
    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        """Vectors by id, as a client reads them."""

    def open(self) -> Store:
        return open_store(self.uri)

    def traces(self) -> set[Any]:
        """Everything in the store's place that an upgrade could leave behind."""
        return set(self.folder.rglob("*"))

    def damages(self, receipt: Receipt) -> Iterator[str]:
        """Change what was written behind the upgrade's back, in one way after the other, and name each."""
        path = next(self.folder.rglob(receipt.location["path"]))
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
        yield "other content"
        path.write_bytes(content[:-7])
        yield "bytes"
        path.unlink()
        yield "gone"


def by_id(rows: pa.Table, column: str) -> dict[Any, NDArray[np.float32] | None]:
    """Vectors of a table by id."""
    pairs = zip(rows.column("id").to_pylist(), rows.column(column).to_pylist(), strict=True)
    return {one: None if vector is None else np.array(vector, dtype=np.float32) for one, vector in pairs}
