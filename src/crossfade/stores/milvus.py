"""Milvus: a new collection behind the alias that the application uses.

A collection can be given a second field of vectors on late servers, but readers name the field that they
search, and fields cannot be renamed. An alias can be moved, at once for all readers.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.errors import NotSupported, StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores.address import Address, redact
from crossfade.stores.collection import Collection
from crossfade.stores.collection_store import CollectionStore
from crossfade.stores.home import safe_name, server_folder
from crossfade.stores.milvus_collection import MilvusCollection
from crossfade.stores.milvus_schema import TYPES, indexes, make_index, schema_like, settings_of, type_of
from crossfade.stores.milvus_server import MilvusServer, file_of
from crossfade.stores.records import Capabilities, IndexInfo, Obstacle, Staged
from crossfade.stores.refused import Refused

DEFAULT_PARTITION = "_default"
LIFETIME = "collection.ttl.seconds"


class Milvus(CollectionStore):
    """The vectors of a Milvus collection, ``milvus://[USER:PASSWORD@]HOST:PORT[/DATABASE]#ALIAS[.FIELD]``.

    ``milvuss://`` speaks TLS; ``milvus:///PATH/FILE.db#ALIAS`` is a file of Milvus Lite, opened here.

    Raises:
        StoreError: no server, collection or field of that name.
        MissingExtra: pymilvus, or for a file milvus-lite, is not installed.
    """

    capabilities = Capabilities(
        beside="collection",
        switch="alias (one call)",
        catches_up=(
            "all rows are read and compared by digest, before the switch and once more after it; before "
            "it the old collection's writers win, after it whatever is written to the new one stays"
        ),
        index=("HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8", "AUTOINDEX", "FLAT"),
        cannot=(
            "move readers that use the collection's own name: no alias can have that name",
            "tell what changed: finding out reads every row; what is written in the instant of the switch "
            "is brought over right after it, and until then such a row has its earlier vector, or none",
            "tell that a row was deleted whose last version was not brought over yet: it may come back, so "
            "let deletions wait for the cutover if that matters",
            "tell cheaply whether rows were rewritten since the plan was made; apply notices",
            "keep the batches of a part when a row in it is deleted: those after it are embedded again",
            "upgrade collections whose ids the server gives (auto_id), with named partitions, or with fields "
            "of binary, half-precision, int8 or struct type",
            "search exactly where the index approximates: that reads every row",
            "keep a row without a new vector where the field is not nullable: apply stops and names the rows",
            "keep rows that were added after the switch without an old vector: after a rollback they wait in "
            "the new collection, which is not deleted while there are any",
            "upgrade a nullable field on Milvus Lite, which gives zeros where it was given no vector",
            "carry over index parameters on Milvus Lite, which takes none from its client and names none",
        ),
        lacks=("null vectors", "steady batches", "content"),
    )

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        super().__init__()
        self._address, self._alias = address, address.table
        self.uri = str(Address(address.scheme, address.place, address.table, address.column))
        self._server = MilvusServer(address.scheme, address.place)
        self._field = self.column = self._choose(address.column)
        identity = self._live().id_name
        if id_column not in (None, "id", identity):
            raise UsageError(f"{self.uri}: rows are known by {identity!r}, their primary key; leave ?id= out")

    def _choose(self, wanted: str) -> str:
        """Name of the field: the one asked for, else the only one of its type."""
        if not self._server.call("has_collection", self._alias):
            raise StoreError(f"{self.uri}: no such collection or alias; check its name")
        fields = {one["name"]: type_of(one) for one in self._described(self._alias)["fields"]}
        vectors = [name for name, kind in fields.items() if kind == "FLOAT_VECTOR"]
        if wanted in vectors or (not wanted and len(vectors) == 1):
            return wanted or vectors[0]
        known = ", ".join(map(repr, vectors)) or "none"
        raise UsageError(
            f"{self.uri}: no field {wanted!r} of type FLOAT_VECTOR in the collection; it has {known}"
        )

    def _described(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._server.call("describe_collection", name)
        return found

    @property
    def neighbourhood(self) -> Path:
        """Beside a file of Milvus Lite; a server has no such place, so in a folder of this machine."""
        file = file_of(self._address.place)
        if file is None:
            return server_folder("milvus", redact(f"x://{self._address.place}")[4:], self._alias, self.column)
        names = (safe_name(one) for one in ("milvus", file.name, self._alias, self.column))
        return file.absolute().parent.joinpath(".crossfade", *names)

    # --- collections --------------------------------------------------------------------------

    def _target(self) -> str:
        """Own name of the collection that the application's name means."""
        found = str(self._described(self._alias)["collection_name"])
        if found != self._alias:
            return found
        try:  # a collection's own name, unless the server answers with the name that it was asked for
            return str(self._server.call("describe_alias", self._alias)["collection_name"])
        except Refused as error:
            if not any(said in str(error) for said in ("not found", "not exist")):
                raise
        return found

    def _live(self) -> Collection:
        return MilvusCollection(self._server, self._target(), self._field)

    def _open(self, name: str) -> Collection | None:
        exists = bool(name) and self._server.call("has_collection", name)
        return MilvusCollection(self._server, name, self._field) if exists else None

    def _new_name(self, staged: Staged) -> str:
        return f"{self._alias}__crossfade_{staged.upgrade}"

    def _create(self, like: Collection, staged: Staged) -> Collection:
        assert isinstance(like, MilvusCollection)
        for found in self.obstacles():
            if found.blocks:
                raise NotSupported(f"{found.message}: {found.remedy}")
        name = self._new_name(staged)
        self._clear_half_made(name)
        schema = schema_like(like.described, self._field, staged.new.dimension)
        self._server.call("create_collection", name, schema=schema, **settings_of(like.described))
        for index in indexes(self._server, like.name):
            if index.field == self._field:
                index = index.for_vectors(staged.new.metric, like.dimension, staged.new.dimension)
            make_index(self._server, name, index)
        self._server.call("load_collection", name)
        return MilvusCollection(self._server, name, self._field)

    def _clear_half_made(self, name: str) -> None:
        """A crash may have left a new collection that nothing is known of."""
        if not self._server.call("has_collection", name):
            return
        if self._target() == name:
            raise StoreError(
                f"{self.uri}: readers use {name!r}, the collection of this upgrade, but {self.neighbourhood} "
                "knows nothing of it; set CROSSFADE_HOME to the folder that the upgrade was begun with"
            )
        self._drop(name)

    def obstacles(self, new: Space | None = None) -> list[Obstacle]:
        found = self._described(self._alias)
        name, fields = self._target(), found["fields"]
        obstacles = []
        if name == self._alias:
            obstacles.append(
                Obstacle(
                    "alias",
                    f"{self.uri}: {name!r} is a collection, not an alias, and no alias can take its name",
                    "make an alias for it, let the application use that, and address the alias",
                )
            )
        if found.get("auto_id") or any(one.get("auto_id") for one in fields):
            text = f"{self.uri}: the server gives the ids of {name!r} (auto_id), and would give other ones"
            obstacles.append(Obstacle("ids", text, "copy the rows into a collection whose ids you give"))
        return [*obstacles, *self._further_obstacles(found)]

    def _further_obstacles(self, found: dict[str, Any]) -> list[Obstacle]:
        name, fields = self._target(), found["fields"]
        obstacles = []
        untried = {one["name"]: type_of(one) for one in fields if type_of(one) not in TYPES}
        mine = next(one for one in fields if one["name"] == self._field)
        if self._server.is_lite and mine.get("nullable"):
            text = f"{self.uri}: {self._field!r} is nullable, and Milvus Lite gives zeros for no vector"
            obstacles.append(
                Obstacle("null vectors", text, "copy the rows into a field that is not nullable")
            )
        if untried or found.get("struct_array_fields") or found.get("struct_fields"):
            kinds = ", ".join(f"{one!r} ({kind})" for one, kind in untried.items()) or "structs"
            text = f"{self.uri}: {name!r} has fields that are not known to be copied whole: {kinds}"
            obstacles.append(Obstacle("fields", text, "address a collection without them"))
        keyed = any(one.get("is_partition_key") for one in fields)
        named = [one for one in self._server.call("list_partitions", name) if one != DEFAULT_PARTITION]
        if named and not keyed:
            text = f"{self.uri}: {name!r} has partitions, and rows would lose theirs: {', '.join(named[:5])}"
            obstacles.append(Obstacle("partitions", text, "use a partition key instead of named partitions"))
        if LIFETIME in found.get("properties", {}):
            seconds = found["properties"][LIFETIME]
            text = f"{self.uri}: rows of {name!r} live for {seconds} s, from when they are written"
            remedy = "after the switch they live as long once more; shorten the property if that matters"
            obstacles.append(Obstacle("lifetime", text, remedy, blocks=False))
        return obstacles

    def _payload(self, live: Collection) -> tuple[str, ...]:
        """From the schema, where rows have no further names."""
        assert isinstance(live, MilvusCollection)
        return super()._payload(live) if live.described.get("enable_dynamic_field") else live.payload

    def _writable(self) -> bool:
        """Whether the account may move aliases: asked by dropping one that there is not."""
        try:
            self._server.call("drop_alias", f"crossfade_{secrets.token_hex(8)}")
        except Refused as error:
            return not error.denied
        return True

    # --- index and switch ---------------------------------------------------------------------

    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        """Wait until the server has indexed the new collection, which was made like the old one."""
        old, new = self._old(staged), self._begun(staged)
        assert isinstance(old, MilvusCollection)
        assert isinstance(new, MilvusCollection)
        assert old.field_index is not None
        wanted = old.field_index.for_vectors(staged.new.metric, old.dimension, new.dimension)
        self._server.call("flush", new.name)
        if not wanted.info().same_kind(new.index()):  # the old one was given another since
            self._server.call("release_collection", new.name)
            self._server.call("drop_index", new.name, wanted.name)
            make_index(self._server, new.name, wanted)
            self._server.call("load_collection", new.name)
        new.settle()

    def _move(self, staged: Staged, facts: Mapping[str, str], *, back: bool) -> None:
        self._server.call("alter_alias", facts["old"] if back else facts["new"], self._alias)

    def switched(self, staged: Staged) -> bool:
        facts = self._facts()
        return bool(facts) and self._target() == facts["new"] == self._new_name(staged)

    def _drop(self, name: str) -> None:
        self._server.call("drop_collection", name)

    def _settled(self, collection: Collection) -> None:
        assert isinstance(collection, MilvusCollection)
        collection.settle()
