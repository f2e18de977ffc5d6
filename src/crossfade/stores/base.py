"""What Crossfade asks of a vector store.

A `Store` is one column of vectors of one table. An upgrade never touches that column's vectors: it
writes new ones beside them, part by part, and then switches, so that the application finds the new
vectors under the name it has always used. Every call reads the store as it is now; none keeps rows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import DimensionMismatch
from crossfade.spaces import Space
from crossfade.stores.address import Address
from crossfade.stores.records import (
    Capabilities,
    Description,
    Hits,
    IndexInfo,
    Obstacle,
    Part,
    Pause,
    Produce,
    Receipt,
    Rows,
    Staged,
    Write,
)
from crossfade.vectors import BATCH_ROWS, FloatMatrix

OVERHEAD = 1.03
"""Files are this much larger than the vectors in them."""


class Store(ABC):
    """One column of vectors of one table."""

    capabilities: Capabilities
    knows_rows: bool = False
    """Whether a row whose new vector is missing or stale has none, so that the others of its part count."""
    strict_rounds: int = 5
    """How often a cutover catches up with writers before it asks for a switch that is not strict."""
    rehearsal_rows: int | None = None
    """Rows of a batch that is written on trial; the plan's unless a store would take long for them."""
    uri: str
    """Address without credentials."""
    column: str
    """Name under which the application reads its vectors, before and after an upgrade."""

    @classmethod
    def serves(cls, address: Address) -> bool:
        """Whether this is the kind for what is at an address, where a scheme has several."""
        return True

    # --- reading ------------------------------------------------------------------------------

    @abstractmethod
    def describe(self) -> Description:
        """What is in the store now."""

    @abstractmethod
    def scan(
        self, column: str | None = None, *, rows: int = BATCH_ROWS, columns: Sequence[str] = ()
    ) -> Iterator[Rows]:
        """Stream all rows in a stable order; vectors of `column` (the store's own unless given)."""

    @abstractmethod
    def sample(
        self, count: int, seed: int, vectors: Sequence[str], columns: Sequence[str], parts: Collection[str]
    ) -> tuple[Rows, ...]:
        """At most `count` random rows of the `parts`: one `Rows` per column of vectors, in the same order."""

    @abstractmethod
    def search(
        self,
        queries: FloatMatrix,
        k: int,
        space: Space,
        *,
        column: str | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Hits]:
        """The `k` nearest rows of each query, through the index unless `exact`.

        Rows without a vector are never found.

        Args:
            queries: (q, d) vectors.
            space: that they are in; it says how vectors are compared.

        Raises:
            SpaceMismatch, DimensionMismatch: the column is recorded to be in another space.
        """

    def _require_queries(
        self, queries: FloatMatrix, dimension: int, recorded: Space | None, space: Space
    ) -> None:
        """Compare queries only with vectors of their own space, `recorded` or not, of this dimension."""
        if queries.ndim != 2 or queries.shape[1] != dimension:
            raise DimensionMismatch(
                f"{self.uri}: queries must be (n, {dimension}), got {queries.shape}; "
                "embed them with the model that made the vectors"
            )
        if recorded is not None:
            recorded.require_same(space, "queries")

    @abstractmethod
    def fetch(self, handles: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        """`columns` of the rows that a search has just returned, in that order."""

    @abstractmethod
    def space(self) -> Space | None:
        """The space recorded for the column now."""

    def obstacles(self, new: Space | None = None) -> list[Obstacle]:
        """What stands in the way of an upgrade (into `new`) beyond what `describe` shows."""
        return []

    # --- writing ------------------------------------------------------------------------------

    @abstractmethod
    def record_space(self, space: Space) -> None:
        """Record which model made the store's vectors."""

    @abstractmethod
    def parts(self, staged: Staged) -> list[Part]:
        """The parts in which new vectors are written, as the table is now."""

    def rows_in_parts(self, staged: Staged) -> int:
        """Rows in all parts, as of the last look at them: for whoever watches, and no more than that."""
        return sum(part.rows for part in self.parts(staged))

    @abstractmethod
    def write_part(self, part: Part, staged: Staged, produce: Produce, *, rows: int = BATCH_ROWS) -> Receipt:
        """Write new vectors of one part, durably, without any reader seeing them.

        `produce` gets the rows in batches whose boundaries depend on the part alone, so that the
        bytes do too. A row without an old vector keeps the new one that it already has; after a
        switch, every row does.
        """

    def begun(self, staged: Staged) -> bool:
        """Whether the table itself shows that new vectors of this upgrade are being written."""
        return False

    @abstractmethod
    def publish(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        """Make the written vectors readable under `staged.name`; returns parts that are not written yet."""

    @abstractmethod
    def check_part(self, receipt: Receipt) -> str | None:
        """Read a written part again; returns what is wrong with it, or None."""

    @abstractmethod
    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        """Index the published new vectors like the old ones; the index is put in use by `switch`."""

    @abstractmethod
    def switch(self, staged: Staged, receipts: Mapping[str, Receipt], *, strict: bool = True) -> list[Part]:
        """Give the new vectors the column's name and their index, at once for all readers.

        To be called again until it returns nothing.

        Args:
            strict: switch only when every row has its new vector. Under writers that never pause
                that moment may never come; without it, rows that were added in the instant of the
                switch lack a new vector until they are written right after it.

        Returns:
            Parts that are still to be written.
        """

    def switch_pausing(
        self, staged: Staged, receipts: Mapping[str, Receipt], write: Write, *, strict: bool = True
    ) -> list[Part]:
        """`switch`; a store that can make writers wait lets `write` write the last rows in that pause.

        Without `strict` it then makes them wait however many rows these are.
        """
        return self.switch(staged, receipts, strict=strict)

    def pause(self, staged: Staged, rows_per_second: float) -> Pause | None:
        """What the next switch asks of writers; None if they need not know of it.

        Args:
            rows_per_second: at which new vectors are written.
        """
        return None

    @abstractmethod
    def switch_back(self, staged: Staged) -> None:
        """Give the old vectors their name and their index back, at once for all readers."""

    @abstractmethod
    def switched(self, staged: Staged) -> bool:
        """Whether readers see the new vectors under the column's name."""

    @abstractmethod
    def drop_old(self, staged: Staged) -> None:
        """Delete the old vectors after a switch. There is no way back."""

    @abstractmethod
    def drop_new(self, staged: Staged) -> None:
        """Delete the new vectors, which must not be in use, and every file written for them."""

    def stored(self, vectors: FloatMatrix, staged: Staged) -> FloatMatrix:
        """What the store gives back for these new vectors: it may round, normalise or compress them."""
        return vectors

    def check_whole(self, staged: Staged) -> str | None:
        """What is wrong with that which holds the new vectors of all parts, or None."""
        return None

    def distrust(self, staged: Staged, receipts: Mapping[str, Receipt]) -> None:
        """Have `apply` write again what is not as it was written, though it looks as if it were.

        By default nothing is done: `pending` finds what is gone or cut short.
        """
        return

    def remarks(self, staged: Staged) -> list[str]:
        """What to know of the new vectors before they are used, e.g. what compressing them lost."""
        return []

    def in_words(self, sentence: str, staged: Staged) -> str:
        """A sentence on a step, as this store carries it out: for one whose switch renames no columns."""
        return sentence

    def left_null(self, staged: Staged, receipts: Mapping[str, Receipt]) -> int:
        """Rows that were left without a new vector on purpose."""
        return sum(one.nulls for one in receipts.values())

    # --- surroundings -------------------------------------------------------------------------

    @contextmanager
    def alone(self, action: str) -> Iterator[None]:
        """Keep away whoever works on an upgrade of this column on another machine.

        Where the journal lies beside the table, its lease does that, and where a server has no locks,
        nothing does.

        Raises:
            UpgradeLocked: somebody is at work there.
        """
        yield

    @property
    @abstractmethod
    def neighbourhood(self) -> Path:
        """Folder for what belongs to upgrades; beside the table where that is a folder, too."""

    def free_bytes(self) -> int | None:
        """Free space on the store's disk; None where it cannot be seen from here."""
        return shutil.disk_usage(existing(self.neighbourhood)).free

    def rehearse(self, batches: Iterator[FloatMatrix], staged: Staged) -> None:
        """Write vectors as fast as `write_part` would, but to where nobody sees them, and leave nothing."""
        beside = existing(self.neighbourhood)
        with (
            tempfile.TemporaryDirectory(prefix="crossfade-probe-", dir=beside) as folder,
            (Path(folder) / "vectors").open("wb") as file,
        ):
            for vectors in batches:
                file.write(np.ascontiguousarray(vectors).data)
            file.flush()
            os.fsync(file.fileno())

    def bytes_for(self, rows: int, dimension: int) -> int:
        """Space that new vectors of some rows take, without an index."""
        return int(rows * dimension * 4 * OVERHEAD)

    @property
    @abstractmethod
    def journal(self) -> Path:
        """File of the journal of this column's upgrades."""

    @abstractmethod
    def count_null(self, column: str) -> int:
        """Number of rows without a vector in `column`."""

    @abstractmethod
    def cache(self, name: str, space: Space) -> VectorCache:
        """A growing set of vectors by id beside the table, made when first written."""

    def columns_of(self, staged: Staged) -> tuple[str, str]:
        """Names that the old and the new vectors have now."""
        if self.switched(staged):
            return staged.previous, self.column
        return self.column, staged.name

    @abstractmethod
    def pending(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        """Parts not written yet, or whose old vectors were rewritten since, or whose new ones are gone."""


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


class VectorCache(ABC):
    """Vectors by id, kept beside a table."""

    @abstractmethod
    def get(self, ids: pa.Array) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        """Vectors (n, d) of `ids`, and which of them are known."""

    @abstractmethod
    def put(self, ids: pa.Array, vectors: FloatMatrix) -> None:
        """Keep further vectors; of an id that is known already the first vector stays."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of ids."""

    @abstractmethod
    def drop(self) -> None:
        """Delete everything."""
