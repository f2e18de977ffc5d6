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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import StoreError
from crossfade.spaces import Space
from crossfade.stores.address import Address
from crossfade.vectors import BATCH_ROWS, FloatMatrix

Lack = Literal["index", "null vectors", "steady batches", "apart", "content"]
"""A part of the contract that some stores cannot keep.

``index``: an ANN index. ``null vectors``: rows without a vector. ``steady batches``: when a row is deleted,
the batches after it in its part keep their rows. ``apart``: new vectors are written apart from the rows, so
that writing them leaves the table's version and content as they were. ``content``: a description changes when
rows are rewritten.
"""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store does, for people and for the table in the documentation.

    Attributes:
        beside: where new vectors are written: ``column``, ``table``, ``named vector``, ``collection``.
        switch: how readers are moved: ``rename``, ``alias``, ``transaction``.
        catches_up: how rows written by others during an upgrade are found.
        index: index types that are rebuilt like the old one.
        cannot: what the store cannot do, in words.
        lacks: the parts of the contract that this leaves out, one `Lack` each.
    """

    beside: str
    switch: str
    catches_up: str
    index: tuple[str, ...] = ()
    cannot: tuple[str, ...] = ()
    lacks: tuple[Lack, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An ANN index: its `type`, `metric` and `parameters` as the store calls them, and the rows it covers."""

    name: str
    type: str
    metric: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0

    def same_kind(self, other: IndexInfo | None) -> bool:
        """Whether both are of one type and metric with the same parameters."""
        if other is None:
            return False
        mine = (self.type, self.metric, dict(self.parameters))
        return mine == (other.type, other.metric, dict(other.parameters))

    def __str__(self) -> str:
        parameters = "".join(f", {name} {value}" for name, value in self.parameters.items())
        return f"{self.type} ({self.metric}{parameters})"


@dataclass(frozen=True, slots=True)
class Description:
    """What is in a store, as of one version.

    Attributes:
        uri: address without credentials.
        column: name of the column of vectors.
        rows, dimension, column_type: of that column.
        id_column: where ids come from; empty if none was found.
        payload: names of the other columns, in the table's order.
        index: ANN index on the column, if any.
        space: recorded space, if any.
        version: of the table, as the store counts.
        content: changes when rows are added, removed or rewritten.
        parts: number of parts in which the gallery is rewritten.
        writable: whether this account may write.
    """

    uri: str
    column: str
    rows: int
    dimension: int
    column_type: str
    id_column: str
    payload: tuple[str, ...] = ()
    index: IndexInfo | None = None
    space: Space | None = None
    version: str = ""
    content: str = ""
    parts: int = 1
    writable: bool = True

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; `from_dict` reads them back."""
        return {**asdict(self), "payload": list(self.payload)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """Read what `to_dict` wrote."""
        read = {**values, "payload": tuple(values["payload"])}
        read["index"] = IndexInfo(**values["index"]) if values["index"] else None
        read["space"] = Space.from_dict(values["space"]) if values["space"] else None
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Staged:
    """New vectors beside the old ones.

    Attributes:
        name: of the new vectors until the switch.
        previous: of the old vectors after the switch.
        old, new: the two spaces.
        upgrade: id of the upgrade that writes them; part of the names of its files and index.
        reads: further columns that the new vectors are made from.
    """

    name: str
    previous: str
    old: Space
    new: Space
    upgrade: str
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in a store that stands in the way of an upgrade: what was found, and what to do.

    `kind` is ``ids``, ``read-only``, ``dimensions``, ``version``, ...; without `blocks` it is a remark.
    """

    kind: str
    message: str
    remedy: str
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class Pause:
    """What a cutover asks of those who write: for how long, in seconds, and why."""

    seconds: float
    why: str

    def __str__(self) -> str:
        return f"about {self.seconds:.1f} s: {self.why}"


class PartGone(StoreError):
    """A part was merged into others between listing and writing it; the parts must be listed again."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that are written together. `source` changes when what they are made from is rewritten."""

    key: str
    rows: int
    source: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A part that has been written and is on disk.

    Attributes:
        part, source: the part, and what its old vectors were when it was read.
        rows, nulls: rows in it; rows that were left without a vector.
        checksum: of the bytes written.
        location: what the store needs to find them again; empty for a part whose vectors the
            application wrote itself, which is left as it is.
    """

    part: str
    source: str
    rows: int
    nulls: int
    checksum: str
    location: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a store: `ids` (n,), `vectors` (n, d) float32, NaN where `null` (n,), further columns.

    `kept` (n,), while new vectors are written: rows whose new vector an application wrote itself, and
    which keep it, whatever is produced for them.
    """

    ids: pa.Array
    vectors: FloatMatrix
    null: NDArray[np.bool_]
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    kept: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class Produced:
    """New vectors (n, d_new) for some rows; those not `valid` (n,) are stored as null."""

    vectors: FloatMatrix
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Hits:
    """Results of one query, best first.

    Attributes:
        ids: (k,) ids.
        scores: (k,) similarity; larger is better, also for l2 (there it is minus the squared distance).
        handles: (k,) the store's own row addresses for `Store.fetch`, valid until the next write.
        columns: further columns that were asked for.
    """

    ids: pa.Array
    scores: NDArray[np.float32]
    handles: NDArray[np.uint64]
    columns: Mapping[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


Produce = Callable[[Rows], Produced]
Write = Callable[[list[Part]], None]


OVERHEAD = 1.03
"""Files are this much larger than the vectors in them."""


class Store(ABC):
    """One column of vectors of one table."""

    capabilities: Capabilities
    knows_rows: bool = False
    """Whether a row whose new vector is missing or stale has none, so that the others of its part count."""
    strict_rounds: int = 5
    """How often a cutover catches up with writers before it asks for a switch that is not strict."""
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
