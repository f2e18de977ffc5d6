"""What goes between a store and its upgrade: what was found, what is to be done, what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.errors import StoreError
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

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
