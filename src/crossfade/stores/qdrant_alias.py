"""Qdrant: a new collection behind the alias that the application uses.

An alias can be moved, at once for all readers. What uses a collection by its own name is upgraded by a
second named vector instead (`qdrant_vectors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossfade.spaces import Space
from crossfade.stores.collection import Collection
from crossfade.stores.qdrant import (
    DISTANCES,
    QdrantStore,
    as_settings,
    datatype_of,
    target_of,
    why_no_further_vector,
)
from crossfade.stores.qdrant_collection import QdrantCollection
from crossfade.stores.records import Capabilities, Obstacle, Staged


class QdrantAlias(QdrantStore):
    """The vectors of a Qdrant collection behind an alias, ``qdrant://[KEY@]HOST:PORT#ALIAS[.VECTOR]``."""

    capabilities = Capabilities(
        beside="collection",
        switch="alias (one call)",
        catches_up=(
            "all points are read and compared by digest, before the switch and once more after it; before "
            "it the old collection's writers win, after it whatever is written to the new one stays"
        ),
        cannot=(
            "move readers that use the collection's own name, which no alias can have: that name in the "
            "address asks for a second named vector",
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

    def _target(self) -> str:
        return target_of(self._server, self._called)

    def _live(self) -> Collection:
        return QdrantCollection(self._server, self._target(), self._vector)

    def _open(self, name: str) -> Collection | None:
        exists = bool(name) and self._server.collection_exists(name)
        return QdrantCollection(self._server, name, self._vector) if exists else None

    def _new_name(self, staged: Staged) -> str:
        return f"{self._called}__crossfade_{staged.upgrade}"

    def _create(self, like: Collection, staged: Staged) -> Collection:
        assert isinstance(like, QdrantCollection)
        self._require_clear(staged.new)
        name, params = self._new_name(staged), like.config.params
        self._clear_half_made(name)
        self._server.create_collection(
            name,
            vectors_config=self._vectors_like(like, staged),
            sparse_vectors_config=params.sparse_vectors,
            shard_number=params.shard_number,
            replication_factor=params.replication_factor,
            write_consistency_factor=params.write_consistency_factor,
            on_disk_payload=params.on_disk_payload,
            hnsw_config=as_settings(self._models.HnswConfigDiff, like.config.hnsw_config),
            optimizers_config=as_settings(self._models.OptimizersConfigDiff, like.config.optimizer_config),
            quantization_config=like.config.quantization_config,
        )
        for field, schema in self._server.get_collection(like.name).payload_schema.items():
            self._server.create_payload_index(name, field, schema.params or schema.data_type)
        return QdrantCollection(self._server, name, self._vector)

    def _vectors_like(self, like: QdrantCollection, staged: Staged) -> Any:
        """The old collection's vectors, the upgraded ones with the new dimension and metric."""
        distance = self._models.Distance(DISTANCES[staged.new.metric])
        changed = {
            "size": staged.new.dimension,
            "distance": distance,
            "datatype": datatype_of(like.parameters),
        }
        new = like.parameters.model_copy(update=changed)
        found = like.config.params.vectors
        return {**found, self._vector: new} if isinstance(found, dict) else new

    def obstacles(self, new: Space | None = None) -> list[Obstacle]:
        if self._target() != self._called:
            return []
        why = why_no_further_vector(self._server, self._config(), self._vector)
        what = f"{self._called!r} is a collection, not an alias, and no alias can take its name"
        remedy = "make an alias for it, let the application use that, and address the alias"
        return [Obstacle("alias", f"{self.uri}: {what}; {why}", remedy)]

    def _move(self, staged: Staged, facts: Mapping[str, str], *, back: bool) -> None:
        models, to = self._models, facts["old"] if back else facts["new"]
        drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._called))
        make = models.CreateAlias(collection_name=to, alias_name=self._called)
        self._server.update_collection_aliases([drop, models.CreateAliasOperation(create_alias=make)])

    def _words(self, staged: Staged) -> dict[str, str]:
        facts = self._facts()
        old, new = facts.get("old") or self._target(), self._new_name(staged)
        return {
            "cutover: ": "catches up with points that others wrote meanwhile, then lets the alias "
            f"{self._called!r} mean the collection {new!r} in place of {old!r}, in one call",
            "retire --confirm: ": f"deletes the collection {old!r}",
            "crossfade rollback, ": "at any time before retire: one call gives the alias back; the new "
            "collection is kept for going forward again",
            "deletes the old vectors": f", with the collection {old!r}",
            "deletes the new vectors": f", with the collection {new!r}",
        }

    def switched(self, staged: Staged) -> bool:
        facts = self._facts()
        return bool(facts) and self._target() == facts["new"] == self._new_name(staged)

    def _drop(self, name: str) -> None:
        self._server.delete_collection(name)
