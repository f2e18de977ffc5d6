"""Qdrant: a second named vector beside the first, in the same collection.

Readers name the vector that they search, and names cannot be exchanged. So the cutover records, in the
collection's metadata, which vector Crossfade's own searches use from now on, and whoever reads and writes
with other clients changes the name there, at a time of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from crossfade.errors import StoreError
from crossfade.spaces import Space
from crossfade.stores.address import Address
from crossfade.stores.base import Store
from crossfade.stores.collection import Collection
from crossfade.stores.collection_parts import seconds_to_read
from crossfade.stores.collection_store import PASSES
from crossfade.stores.durable import write_json
from crossfade.stores.qdrant import (
    DISTANCES,
    QdrantStore,
    as_settings,
    datatype_of,
    names_of,
    server_of,
    target_of,
    why_no_further_vector,
)
from crossfade.stores.qdrant_collection import SPACES
from crossfade.stores.qdrant_vector import NamedVector, VectorPair
from crossfade.stores.qdrant_vector_writing import VectorWriter
from crossfade.stores.records import Capabilities, Obstacle, Part, Pause, Receipt, Staged
from crossfade.stores.refused import Refused
from crossfade.vectors import FloatMatrix
from crossfade.vectors.ids import first_few

SERVING = "crossfade.serving"
"""Before the name of a vector: key of the collection's metadata that says which one serves in its place."""
UPGRADE = re.compile(r"__[0-9a-f]{8}$")
"""What an upgrade before appended to the name."""


class QdrantVectors(QdrantStore):
    """The named vectors of a Qdrant collection, ``qdrant://[KEY@]HOST:PORT#COLLECTION[.VECTOR]``.

    The address keeps its meaning: after a cutover, and after the old vectors are deleted, the old name in
    it leads to the vectors that serve.
    """

    capabilities = Capabilities(
        beside="named vector",
        switch="record (one call); other clients name the new vector themselves",
        catches_up=(
            "all points are read with both vectors and compared by digest, before the switch and after it; "
            "before it the old vector counts, after it whatever is written under the new name stays, and a "
            "point that comes with the old vector alone is brought over by the cutover, or by another one"
        ),
        cannot=(
            "move readers: they name the vector that they search, and names cannot be exchanged, so after "
            "the cutover they change using= themselves; only searches through Crossfade move at once",
            "add a named vector on servers and clients before 1.18, or beside vectors without a name: there "
            "an alias is asked for, and a new collection made behind it",
            "keep the new vector of a point that is written whole with the old one alone: the server drops "
            "it; it is found and written again by the cutover, and retire stops while there are such points",
            "tell what changed: finding out reads every point with both vectors",
            "be indexed in a step of its own: the new vector gets the old one's settings, and the switch "
            "waits until the server has indexed it",
            "tell cheaply whether points were rewritten since the plan was made; apply notices",
            "keep the batches of a part when a row in it is deleted: those after it are embedded again",
            "give back vectors as they were where it compares by cosine: it keeps them with unit length",
        ),
        lacks=("index", "steady batches", "content"),
    )

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        super().__init__(address, id_column=id_column)
        self._rounds = 0

    @classmethod
    def serves(cls, address: Address) -> bool:
        """Whether the address names a collection itself, on a server that adds vectors to it."""
        server = server_of(address)
        if target_of(server, address.table) != address.table:
            return False
        try:
            config = server.get_collection(address.table).config
        except Refused as error:
            if error.missing:
                return False
            raise
        return not why_no_further_vector(server, config, address.column)

    # --- vectors ------------------------------------------------------------------------------

    def _choose(self, wanted: str) -> str:
        """Also a name whose vectors were deleted when those that serve in their place stayed."""
        config = self._config()
        return wanted if _serving(config, wanted) in names_of(config) else super()._choose(wanted)

    def _live(self) -> NamedVector:
        return self._one(_serving(self._config(), self._vector))

    def _open(self, name: str) -> NamedVector | None:
        return self._one(name) if name in names_of(self._config()) else None

    def _one(self, name: str) -> NamedVector:
        return NamedVector(self._server, self._called, name)

    def _new_name(self, staged: Staged) -> str:
        return f"{UPGRADE.sub('', self._vector)}__{staged.upgrade}"

    def _create(self, like: Collection, staged: Staged) -> Collection:
        assert isinstance(like, NamedVector)
        self._require_clear(staged.new)
        name, models = self._new_name(staged), self._models
        self._clear_half_made(name)
        dense = models.DenseVectorConfig(
            size=staged.new.dimension,
            distance=models.Distance(DISTANCES[staged.new.metric]),
            datatype=datatype_of(like.parameters),
        )
        made = models.DenseVectorNameConfig(dense=dense)
        self._server.create_vector_name(self._called, name, made, wait=True)
        settings = as_settings(models.VectorParamsDiff, like.parameters)
        if settings.model_dump(exclude_none=True):
            self._server.update_collection(self._called, vectors_config={name: settings})
        return self._one(name)

    def _drop(self, name: str) -> None:
        self._server.delete_vector_name(self._called, name, wait=True)
        changed, metadata = dict[str, Any](), self._config().metadata or {}
        if name in (spaces := metadata.get(SPACES) or {}):
            changed[SPACES] = {one: space for one, space in spaces.items() if one != name} or None
        record = metadata.get(self._key)
        if record and record["vector"] != name:
            changed[self._key] = {**record, "alone": True}
        if changed:
            self._server.update_collection(self._called, metadata=changed)

    def obstacles(self, new: Space | None = None) -> list[Obstacle]:
        live, found = self._live().name, []
        for key, record in (self._config().metadata or {}).items():
            if (
                key.startswith(SERVING)
                and record
                and record["vector"] == self._vector
                and not record["alone"]
            ):
                other = key.removeprefix(f"{SERVING}.")
                text = f"{self.uri}: {self._vector!r} is the new vector of the upgrade of {other!r}"
                remedy = f"address {other!r} until that is retired"
                found.append(Obstacle("upgrade", text, remedy))
        text = (
            f"{self.uri}: readers name the vector that they search, {live!r}, and names cannot be exchanged"
        )
        remedy = (
            "an upgrade adds a vector of another name (the plan says which), and after the cutover readers "
            "and writers change to it themselves; an alias in the address moves readers at once"
        )
        return [*found, Obstacle("using", text, remedy, blocks=False)]

    # --- parts --------------------------------------------------------------------------------

    def _compared(self) -> VectorPair | None:
        """Both vectors of the points, while there are both."""
        facts, names = self._facts(), names_of(self._config())
        if not facts or not {facts["old"], facts["new"]} <= set(names):
            return None
        return VectorPair(self._server, self._called, facts["old"], facts["new"])

    def _writer(self, staged: Staged) -> VectorWriter:
        old, new = self._old(staged), self._begun(staged)
        pair = self._compared()
        assert isinstance(new, NamedVector)
        assert pair is not None
        switched, used = self.switched(staged), "used" in self._facts()
        return VectorWriter(old, new, self._ledger(staged), staged, self.uri, switched, pair, used)

    def _remove_deleted(self, staged: Staged) -> None:
        """Forget points that are gone; they had both vectors."""
        present = {one for members in self._members.values() for one in members.ids}
        self._ledger(staged).remove([one for one in self._ledger(staged).ids() if one not in present])

    def check_part(self, receipt: Receipt) -> str | None:
        if receipt.location and self._open(receipt.location["collection"]) is None:
            return f"vector {receipt.location['collection']!r} is gone"
        return super().check_part(receipt)

    # --- the switch ---------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"{SERVING}.{self._vector}"

    def _move(self, staged: Staged, facts: Mapping[str, str], *, back: bool) -> None:
        record: dict[str, Any] | None = {"vector": facts["new"], "alone": False}
        if back:
            own = facts["old"] == self._vector
            record = None if own else {"vector": facts["old"], "alone": True}
        else:
            write_json(self._facts_file, {**facts, "used": "yes"})
        self._server.update_collection(self._called, metadata={self._key: record})

    def switched(self, staged: Staged) -> bool:
        facts = self._facts()
        return bool(facts) and self._live().name == facts["new"] == self._new_name(staged)

    def switch(self, staged: Staged, receipts: Mapping[str, Receipt], *, strict: bool = True) -> list[Part]:
        """`Store.switch`; writers that keep to the old name after it are caught up with a few times only."""
        after = self.switched(staged)
        missing = super().switch(staged, receipts, strict=strict)
        self._rounds = self._rounds + 1 if after else 0
        return missing if self._rounds < self.strict_rounds else []

    def _give_back(self, staged: Staged) -> None:
        """Payloads and deletions are those of the same points, but what is whose is to be known later."""
        self._writer(staged).give_back()

    def drop_old(self, staged: Staged) -> None:
        if (facts := self._facts()) and self._open(facts["new"]) is None:
            raise StoreError(
                f"{self.uri}: vector {facts['new']!r} is gone, and {facts['old']!r} was to be deleted: "
                "nothing was; run crossfade rollback, then crossfade apply to write it again"
            )
        if self._compared() is not None and (left := self._writer(staged).left_behind()):
            old, new = self._old(staged).name, self._new_name(staged)
            raise StoreError(
                f"{self.uri}: {len(left)} points were written with vector {old!r} alone since the cutover "
                f"({first_few(left)}), and it was to be deleted; let writers write {new!r}, then run "
                "crossfade rollback and crossfade cutover, which brings these points over"
            )
        super().drop_old(staged)

    # --- in words -----------------------------------------------------------------------------

    def pause(self, staged: Staged, rows_per_second: float) -> Pause | None:
        seconds = PASSES * seconds_to_read(self._compared() or self._live())
        return Pause(seconds, f"nobody has to wait; {self._advice(staged)}")

    def rehearse(self, batches: Iterator[FloatMatrix], staged: Staged) -> None:
        """In a file: a vector on trial would be one of the application's own points."""
        Store.rehearse(self, batches, staged)

    def remarks(self, staged: Staged) -> list[str]:
        return [self._advice(staged)]

    def _old_name(self) -> str:
        return self._facts().get("old") or self._live().name

    def _advice(self, staged: Staged) -> str:
        old, new = self._old_name(), self._new_name(staged)
        return (
            f"after the cutover searches through Crossfade use vector {new!r}, and applications change to "
            f"that name themselves (using={new!r} in place of {old!r}; writers give both until all "
            f"readers have changed); retire deletes {old!r}, and what still names it fails then"
        )

    def _words(self, staged: Staged) -> dict[str, str]:
        old, new = self._old_name(), self._new_name(staged)
        fails = f"{old!r}, and what still names it fails then"
        return {
            "cutover: ": "catches up with points that others wrote meanwhile, then records in one call that "
            f"vector {new!r} serves in place of {old!r}; applications change the name themselves",
            "retire --confirm: ": f"deletes {fails}",
            "crossfade rollback, ": f"at any time before retire: one call records that {old!r} serves again, "
            f"and applications change back themselves; {new!r} is kept for going forward again",
            "deletes the old vectors": f", {fails}",
            "deletes the new vectors": f", {new!r}",
        }


def _serving(config: Any, name: str) -> str:
    """The vector that serves under a name: itself, unless another is recorded in its place."""
    record, names = (config.metadata or {}).get(f"{SERVING}.{name}"), names_of(config)
    if not record or (record["alone"] and name in names):
        return name
    serves = _serving(config, str(record["vector"]))
    return serves if serves in names else name
