"""Qdrant: what both ways of upgrading have in common, a new collection and a second named vector."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.errors import NotSupported, StoreError, UsageError
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.stores.address import Address, redact
from crossfade.stores.collection import Collection
from crossfade.stores.collection_store import CollectionStore
from crossfade.stores.home import server_folder
from crossfade.stores.qdrant_collection import OTHER_VECTORS
from crossfade.stores.qdrant_server import QdrantServer
from crossfade.stores.qdrant_server import client_for as client_for
from crossfade.stores.records import Staged
from crossfade.stores.refused import Refused
from crossfade.vectors import FloatMatrix

INDEX_SECONDS = 3600
POLL_SECONDS = 0.5
THEN = "; from then on"
"""What follows this in a sentence is of the strategy, not of the store."""
DISTANCES = {"cosine": "Cosine", "dot": "Dot", "l2": "Euclid"}


class QdrantStore(CollectionStore):
    """Named or unnamed vectors of Qdrant, at ``qdrant://[KEY@]HOST:PORT#NAME[.VECTOR]``.

    ``qdrants://`` speaks TLS; ``qdrant://:memory:NAME`` is the client's local mode, within this process.

    Raises:
        StoreError: no server, collection or vector of that name.
        MissingExtra: qdrant-client is not installed.
    """

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        super().__init__()
        if id_column not in (None, "id"):
            raise UsageError(f"{address}: points are known by their id; leave ?id={id_column} out")
        self._address, self._called = address, address.table
        self.uri = str(Address(address.scheme, address.place, address.table, address.column))
        self._server = server_of(address)
        self._models: Any = load("qdrant_client.models", "qdrant")
        self._vector = self._choose(address.column)
        self.column = self._vector or "vector"
        if self._vector:  # also where the address left it out: there may be a second one soon
            self.uri = str(Address(address.scheme, address.place, address.table, self._vector))

    def _config(self) -> Any:
        """The collection's configuration now."""
        try:
            return self._server.get_collection(self._called).config
        except Refused as error:
            if not error.missing:
                raise
            raise StoreError(f"{self.uri}: no such collection or alias; check its name") from None

    def _choose(self, wanted: str) -> str:
        """Name of the vectors: the one asked for, else the only one."""
        names = names_of(self._config())
        wanted = "" if names == [""] and wanted in ("", "vector") else wanted
        if not wanted and len(names) == 1:
            wanted = names[0]
        if wanted in names:
            return wanted
        known = ", ".join(map(repr, names))
        raise UsageError(f"{self.uri}: no vector {wanted!r} in the collection; it has {known}")

    @property
    def neighbourhood(self) -> Path:
        """Folder of this machine: a server has none beside its collections."""
        return server_folder("qdrant", redact(f"x://{self._address.place}")[4:], self._called, self.column)

    def _payload(self, live: Collection) -> tuple[str, ...]:
        return tuple(one for one in super()._payload(live) if one != OTHER_VECTORS)

    def _require_clear(self, new: Space) -> None:
        """Refuse to begin what `inspect` finds obstacles to."""
        for found in self.obstacles(new):
            if found.blocks:
                raise NotSupported(f"{found.message}: {found.remedy}")

    def _clear_half_made(self, name: str) -> None:
        """A crash may have left new vectors that nothing is known of."""
        if self._open(name) is None:
            return
        if self._live().name == name:
            raise StoreError(
                f"{self.uri}: readers use {name!r}, which this upgrade made, but {self.neighbourhood} "
                "knows nothing of it; set CROSSFADE_HOME to the folder that the upgrade was begun with"
            )
        self._drop(name)

    def _settled(self, collection: Collection) -> None:
        deadline = time.monotonic() + INDEX_SECONDS
        indexed = getattr(collection, "collection", collection.name)
        while self._server.get_collection(indexed).status.value == "yellow":
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.uri}: the server is still indexing {collection.name!r} after "
                    f"{INDEX_SECONDS} s; nothing was switched: run crossfade cutover again later"
                )
            time.sleep(POLL_SECONDS)

    def in_words(self, sentence: str, staged: Staged) -> str:
        for begins, words in self._words(staged).items():
            if sentence.startswith(begins):
                _, then, more = sentence.partition(THEN)
                return sentence + words if words.startswith(",") else begins + words + then + more
        return sentence

    @abstractmethod
    def _words(self, staged: Staged) -> dict[str, str]:
        """What to say in place of sentences that begin so; with a comma, what to add to them."""

    def stored(self, vectors: FloatMatrix, staged: Staged) -> FloatMatrix:
        """Vectors that are compared by cosine are kept with unit length."""
        if staged.new.metric != "cosine":
            return vectors
        unit: FloatMatrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def server_of(address: Address) -> QdrantServer:
    """The server at an address."""
    what = str(Address(address.scheme, address.place, address.table, address.column))
    return QdrantServer(client_for(f"{address.scheme}://{address.place}"), what)


def target_of(server: QdrantServer, name: str) -> str:
    """Own name of the collection that a name means."""
    named = [one.collection_name for one in server.get_aliases().aliases if one.alias_name == name]
    return str(named[0]) if named else name


def names_of(config: Any) -> list[str]:
    """Names of a collection's dense vectors; the empty one where they have none."""
    found = config.params.vectors
    return list(found or {}) if isinstance(found, dict | None) else [""]


def why_no_further_vector(server: QdrantServer, config: Any, vector: str) -> str:
    """Why `vector` cannot be upgraded by a further named vector; empty if it can."""
    if not vector and "" in names_of(config):
        return "its vectors have no name, and once there is a named one, points without names are refused"
    return server.why_no_further_vector()


def datatype_of(parameters: Any) -> Any:
    """Of vectors like these: smaller numbers than those of half precision would not hold lifted vectors."""
    kind = parameters.datatype
    return kind if kind is not None and kind.value in ("float32", "float16") else None


def as_settings(kind: Any, settings: Any) -> Any:
    """Settings that a server reports, as those that it takes."""
    if settings is None:
        return None
    known = set(kind.model_fields)
    return kind(**{name: value for name, value in settings.model_dump().items() if name in known})
