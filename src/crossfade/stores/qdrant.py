"""Qdrant: a new collection behind the alias that the application uses.

A collection can be given a second named vector, but readers name the vector that they search, and
names of vectors cannot be exchanged. An alias can be moved, at once for all readers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from crossfade.errors import NotSupported, StoreError, UsageError
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.stores.address import Address, redact
from crossfade.stores.base import Capabilities, Obstacle, Staged
from crossfade.stores.collection import Collection
from crossfade.stores.collection_store import CollectionStore
from crossfade.stores.home import server_folder
from crossfade.stores.qdrant_collection import QdrantCollection
from crossfade.vectors import FloatMatrix

MEMORY = ":memory:"
INDEX_SECONDS = 3600
POLL_SECONDS = 0.5
DISTANCES = {"cosine": "Cosine", "dot": "Dot", "l2": "Euclid"}


class Qdrant(CollectionStore):
    """The vectors of a Qdrant collection, ``qdrant://[KEY@]HOST:PORT#ALIAS[.VECTOR]``.

    ``qdrants://`` speaks TLS; ``qdrant://:memory:NAME`` is the client's local mode, within this process.

    Raises:
        StoreError: no server, collection or vector of that name.
        MissingExtra: qdrant-client is not installed.
    """

    capabilities = Capabilities(
        beside="collection",
        switch="alias (one call)",
        catches_up=(
            "all points are read and compared by digest, before the switch and once more after it; before "
            "it the old collection's writers win, after it whatever is written to the new one stays"
        ),
        cannot=(
            "move readers that use the collection's own name: no alias can have that name",
            "tell what changed: finding out reads every point; what is written in the instant of the switch "
            "is brought over right after it, and until then such a point has its earlier vector, or none",
            "tell that a point was deleted whose last version was not brought over yet: it may come back, so "
            "let deletions wait for the cutover if that matters",
            "be indexed in a step of its own: the new collection gets the old one's settings and is switched "
            "to when the server has indexed it",
            "tell cheaply whether points were rewritten since the plan was made; apply notices",
            "keep the batches of a part when a row in it is deleted: those after it are embedded again",
            "give back vectors as they were where it compares by cosine: it keeps them with unit length",
        ),
        lacks=("index", "steady batches", "content"),
    )

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        super().__init__()
        if id_column not in (None, "id"):
            raise UsageError(f"{address}: points are known by their id; leave ?id={id_column} out")
        self._address = address
        self._client = client_for(f"{address.scheme}://{address.place}")
        self._foreseen = _Foreseen(self._client, self._errors)
        self._models: Any = load("qdrant_client.models", "qdrant")
        self._alias = address.table
        self.uri = str(Address(address.scheme, address.place, address.table, address.column))
        with self._errors():
            self._vector = self._choose(address.column)
        self.column = self._vector or "vector"

    def _choose(self, wanted: str) -> str:
        """Name of the vectors: the one asked for, else the only one."""
        try:
            found = self._client.get_collection(self._alias).config.params.vectors
        except Exception as error:
            if not _is_missing(error):
                raise
            raise StoreError(f"{self.uri}: no such collection or alias; check its name") from None
        names = list(found) if isinstance(found, dict) else [""]
        wanted = "" if names == [""] and wanted in ("", "vector") else wanted
        if wanted in names:
            return wanted
        if not wanted and len(names) == 1:
            return names[0]
        known = ", ".join(map(repr, names))
        raise UsageError(f"{self.uri}: no vector {wanted!r} in the collection; it has {known}")

    @property
    def neighbourhood(self) -> Path:
        """Folder of this machine: a server has none beside its collections."""
        return server_folder("qdrant", redact(f"x://{self._address.place}")[4:], self._alias, self.column)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (StoreError, UsageError):
            raise
        except Exception as error:
            if not type(error).__module__.startswith(("qdrant_client", "httpx", "grpc")):
                raise
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise StoreError(f"{self.uri}: the server refused or did not answer: {redact(line)}") from None

    # --- collections --------------------------------------------------------------------------

    def _target(self) -> str:
        """Own name of the collection that the application's name means."""
        aliases = self._client.get_aliases().aliases
        named = [one.collection_name for one in aliases if one.alias_name == self._alias]
        return str(named[0]) if named else self._alias

    def _live(self) -> Collection:
        with self._errors():
            return QdrantCollection(self._foreseen, self._target(), self._vector)

    def _open(self, name: str) -> Collection | None:
        with self._errors():
            exists = bool(name) and self._client.collection_exists(name)
            return QdrantCollection(self._foreseen, name, self._vector) if exists else None

    def _new_name(self, staged: Staged) -> str:
        return f"{self._alias}__crossfade_{staged.upgrade}"

    def _create(self, like: Collection, staged: Staged) -> Collection:
        assert isinstance(like, QdrantCollection)
        for found in self.obstacles():
            raise NotSupported(f"{found.message}: {found.remedy}")
        name, params = self._new_name(staged), like.config.params
        self._clear_half_made(name)
        with self._errors():
            self._client.create_collection(
                name,
                vectors_config=self._vectors_like(like, staged),
                sparse_vectors_config=params.sparse_vectors,
                shard_number=params.shard_number,
                replication_factor=params.replication_factor,
                write_consistency_factor=params.write_consistency_factor,
                on_disk_payload=params.on_disk_payload,
                hnsw_config=_as(self._models.HnswConfigDiff, like.config.hnsw_config),
                optimizers_config=_as(self._models.OptimizersConfigDiff, like.config.optimizer_config),
                quantization_config=like.config.quantization_config,
            )
            for field, schema in self._client.get_collection(like.name).payload_schema.items():
                self._client.create_payload_index(name, field, schema.params or schema.data_type)
        return QdrantCollection(self._foreseen, name, self._vector)

    def _clear_half_made(self, name: str) -> None:
        """A crash may have left a new collection that nothing is known of."""
        if self._open(name) is None:
            return
        if self._target() == name:
            raise StoreError(
                f"{self.uri}: readers use {name!r}, the collection of this upgrade, but {self.neighbourhood} "
                "knows nothing of it; set CROSSFADE_HOME to the folder that the upgrade was begun with"
            )
        self._drop(name)

    def _vectors_like(self, like: QdrantCollection, staged: Staged) -> Any:
        """The old collection's vectors, the upgraded ones with the new dimension and metric."""
        distance = self._models.Distance(DISTANCES[staged.new.metric])
        new = like.parameters.model_copy(update={"size": staged.new.dimension, "distance": distance})
        found = like.config.params.vectors
        return {**found, self._vector: new} if isinstance(found, dict) else new

    def obstacles(self, new: Space | None = None) -> list[Obstacle]:
        if self._target() != self._alias:
            return []
        text = f"{self.uri}: {self._alias!r} is a collection, not an alias, and no alias can take its name"
        remedy = "make an alias for it, let the application use that, and address the alias"
        return [Obstacle("alias", text, remedy)]

    def _move(self, staged: Staged, facts: Mapping[str, str], *, back: bool) -> None:
        models, to = self._models, facts["old"] if back else facts["new"]
        drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._alias))
        make = models.CreateAlias(collection_name=to, alias_name=self._alias)
        with self._errors():
            self._client.update_collection_aliases([drop, models.CreateAliasOperation(create_alias=make)])

    def switched(self, staged: Staged) -> bool:
        facts = self._facts()
        with self._errors():
            return bool(facts) and self._target() == facts["new"] == self._new_name(staged)

    def _drop(self, name: str) -> None:
        with self._errors():
            self._client.delete_collection(name)

    def _settled(self, collection: Collection) -> None:
        deadline = time.monotonic() + INDEX_SECONDS
        while self._client.get_collection(collection.name).status.value == "yellow":
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.uri}: the server is still indexing {collection.name!r} after "
                    f"{INDEX_SECONDS} s; nothing was switched: run crossfade cutover again later"
                )
            time.sleep(POLL_SECONDS)

    def stored(self, vectors: FloatMatrix, staged: Staged) -> FloatMatrix:
        """A collection that compares by cosine keeps vectors with unit length."""
        if staged.new.metric != "cosine":
            return vectors
        unit: FloatMatrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class _Foreseen:
    """A client whose every call raises our errors."""

    def __init__(self, client: Any, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._client, self._errors = client, errors

    def __getattr__(self, name: str) -> Any:
        honest = getattr(self._client, name)

        def call(*values: Any, **options: Any) -> Any:
            with self._errors():
                return honest(*values, **options)

        return call


def client_for(place: str) -> Any:
    """The client of a server; local mode is one per name and process, as a server would be."""
    scheme, _, rest = place.partition("://")
    return _client(scheme, rest)


@lru_cache(maxsize=16)
def _client(scheme: str, rest: str) -> Any:
    make = load("qdrant_client", "qdrant").QdrantClient
    if rest.startswith(MEMORY):
        return make(MEMORY)
    key, _, host = rest.rpartition("@")
    match = re.fullmatch(r"(?P<name>[^:/]+)(?::(?P<port>\d+))?/?", host)
    if match is None:
        raise UsageError(f"{redact(f'{scheme}://{rest}')!r}: write qdrant://[KEY@]HOST:PORT#ALIAS.VECTOR")
    return make(
        host=match["name"],
        port=int(match["port"] or 6333),
        https=scheme == "qdrants",
        api_key=unquote(key.removeprefix(":")) or None,
        timeout=60,
        check_compatibility=False,
    )


def _as(kind: Any, settings: Any) -> Any:
    """Settings that a server reports, as those that it takes."""
    if settings is None:
        return None
    known = set(kind.model_fields)
    return kind(**{name: value for name, value in settings.model_dump().items() if name in known})


def _is_missing(error: Exception) -> bool:
    return "not found" in str(error).lower() or "doesn't exist" in str(error).lower()
