"""Chroma: a new collection that takes the old one's name.

Chroma has no aliases, but collections can be renamed. So the switch is two renames, with an instant between
them in which there is no collection of that name. Whatever interrupts it there, the old collection gets its
name back when the store is next opened. An application that makes the collection when it finds none may do
so in that instant; its collection is then renamed, and never deleted while it holds anything.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.errors import StoreError, UsageError
from crossfade.spaces import Space
from crossfade.stores.address import Address, redact
from crossfade.stores.chroma_collection import DOCUMENT, LEGACY, NAMES, SPACE, URI, ChromaCollection
from crossfade.stores.chroma_server import ChromaServer
from crossfade.stores.collection import Collection
from crossfade.stores.collection_parts import seconds_to_read
from crossfade.stores.collection_store import PASSES, CollectionStore
from crossfade.stores.collection_writing import PointWriter
from crossfade.stores.home import safe_name, server_folder
from crossfade.stores.records import Capabilities, Obstacle, Pause, Staged
from crossfade.stores.refused import Refused
from crossfade.vectors.ids import first_few

ATTEMPTS = 5
"""How often the name is taken again from collections that others make in the instant without one."""


class Chroma(CollectionStore):
    """The vectors of a Chroma collection, ``chroma://[TOKEN@]HOST:PORT[/TENANT/DATABASE]#COLLECTION``.

    ``chromas://`` speaks TLS; ``chroma:///FOLDER#COLLECTION`` is a folder of this machine, opened here.

    Raises:
        StoreError: no server or collection of that name.
        MissingExtra: chromadb-client, or for a folder chromadb, is not installed.
    """

    capabilities = Capabilities(
        beside="collection",
        switch="two renames (an instant without the name)",
        catches_up=(
            "all records are read and compared by digest, before the switch and once more after it; before "
            "it the old collection's writers win, after it whatever is written to the new one stays"
        ),
        cannot=(
            "switch without an instant in which there is no collection of that name: there are no aliases, "
            "and two renames lie a call apart (inspect says how long a call takes)",
            "move clients that hold the collection object: it has the collection's UUID, so they go on with "
            "the old vectors until they get it again by name; retire stops when they have written there",
            "tell what changed: finding out reads every record; what is written in the instant of the switch "
            "is brought over right after it, and until then such a record has its earlier vector, or none",
            "tell that a record was deleted whose last version was not brought over yet: it may come back, "
            "so let deletions wait for the cutover if that matters",
            "be indexed in a step of its own: the server indexes the new collection while it is written, "
            "with the old one's settings",
            "keep a record without a vector: apply stops at a row that gets none, and a row that was added "
            "after the switch waits in the new collection after a rollback, which is not deleted meanwhile",
            "tell cheaply whether records were rewritten since the plan was made; apply notices",
            "keep the batches of a part when a row in it is deleted: those after it are embedded again",
            "search exactly: that reads every record",
            "keep an embedding function that the collection names: it is the old model's",
        ),
        lacks=("index", "null vectors", "steady batches", "content"),
    )

    def __init__(self, address: Address, *, id_column: str | None = None) -> None:
        super().__init__()
        if id_column not in (None, "id"):
            raise UsageError(f"{address}: records are known by their id; leave ?id={id_column} out")
        if address.column not in ("", "vector"):
            raise UsageError(
                f"{address}: a collection has one vector per record; leave .{address.column} out"
            )
        self._address, self._name, self.column = address, address.table, "vector"
        self.uri = str(Address(address.scheme, address.place, address.table, ""))
        self._server = ChromaServer(address.scheme, address.place)
        self._mend()
        self._live()

    @property
    def neighbourhood(self) -> Path:
        """Beside a folder of Chroma's; a server has no such place, so in a folder of this machine."""
        folder = self._server.folder
        if folder is None:
            return server_folder("chroma", redact(f"x://{self._address.place}")[4:], self._name, self.column)
        names = (safe_name(one) for one in ("chroma", folder.absolute().name, self._name, self.column))
        return folder.absolute().parent.joinpath(".crossfade", *names)

    @property
    def _spaces(self) -> Path:
        return self.neighbourhood / "spaces.json"

    # --- collections --------------------------------------------------------------------------

    def _collection(self, name: str) -> ChromaCollection | None:
        found = self._server.find(name)
        return None if found is None else ChromaCollection(self._server, found, self._spaces)

    def _live(self) -> ChromaCollection:
        found = self._collection(self._name)
        if found is None:
            raise StoreError(f"{self.uri}: no such collection; check its name, tenant and database")
        return found

    def _open(self, name: str) -> ChromaCollection | None:
        """By its UUID, under one of the names that it may have."""
        facts = self._facts()
        upgrade = facts.get("upgrade", "")
        aside = self._new_called(upgrade) if name == facts.get("new") else self._old_called(upgrade)
        for called in (aside, self._name):
            found = self._server.find(called) if name else None
            if found is not None and str(found.id) == name:
                return ChromaCollection(self._server, found, self._spaces)
        return None

    def _new_called(self, upgrade: str) -> str:
        return f"{self._name}__crossfade_{upgrade}"

    def _old_called(self, upgrade: str) -> str:
        return f"{self._name}__previous_{upgrade}"

    def _new_name(self, staged: Staged) -> str:
        return self._new_called(staged.upgrade)

    def _create(self, like: Collection, staged: Staged) -> Collection:
        assert isinstance(like, ChromaCollection)
        name, metric = self._new_name(staged), NAMES[staged.new.metric]
        if self._server.find(name) is not None:  # a crash left it half made
            self._server.ask(self._server.client.delete_collection, name)
        index = {
            kind: {**_given(like.configuration[kind]), "space": metric}
            for kind in ("hnsw", "spann")
            if like.configuration.get(kind)
        }
        legacy = {LEGACY: metric} if LEGACY in like.metadata else {}
        made = self._server.ask(
            self._server.client.create_collection,
            name,
            metadata={**like.metadata, **legacy, SPACE: json.dumps(staged.new.to_dict())},
            configuration=index,
            embedding_function=None,
        )
        return ChromaCollection(self._server, made, self._spaces)

    def _drop(self, name: str) -> None:
        found = self._open(name)
        if found is not None:
            self._server.ask(self._server.client.delete_collection, found.called)

    def _writable(self) -> bool:
        """Whether this account may write: asked by deleting a collection that there is not."""
        if self._server.folder is not None:
            return os.access(self._server.folder, os.W_OK)
        try:
            self._server.ask(self._server.client.delete_collection, f"crossfade-{secrets.token_hex(8)}")
        except Refused as error:
            return not error.denied
        return True

    def _payload(self, live: Collection) -> tuple[str, ...]:
        """Chroma gives the names of a record's metadata in another order each time."""
        return tuple(sorted(super()._payload(live), key=lambda name: (name in (DOCUMENT, URI), name)))

    # --- the switch ---------------------------------------------------------------------------

    def _move(self, staged: Staged, facts: Mapping[str, str], *, back: bool) -> None:
        leaving, coming = (facts["new"], facts["old"]) if back else (facts["old"], facts["new"])
        aside = self._new_name(staged) if back else self._old_called(staged.upgrade)
        found = self._open(coming)
        if found is None:
            raise StoreError(f"{self.uri}: the collection that was to be used is gone; nothing was switched")
        self._take_name(found, leaving, aside)

    def _take_name(self, coming: ChromaCollection, leaving: str, aside: str) -> None:
        """Give a collection the name that readers use; the one called `leaving` is then called `aside`."""
        for attempt in range(ATTEMPTS):
            holder = self._server.find(self._name)
            if holder is not None and str(holder.id) == coming.name:
                return
            if holder is not None:
                stray = f"{self._name}__stray_{secrets.token_hex(4)}"
                self._server.ask(holder.modify, name=aside if str(holder.id) == leaving else stray)
            try:
                return coming.rename(self._name)
            except Refused:
                if attempt == ATTEMPTS - 1 or self._server.find(self._name) is None:
                    raise

    def _mend(self) -> None:
        """Undo a switch that was interrupted between its renames."""
        facts = self._facts()
        if not facts:
            return
        holder, old = self._server.find(self._name), self._server.find(self._old_called(facts["upgrade"]))
        known = (facts["old"], facts["new"])
        if (
            (holder is None or str(holder.id) not in known)
            and old is not None
            and str(old.id) == facts["old"]
        ):
            self._take_name(ChromaCollection(self._server, old, self._spaces), "", "")

    def pause(self, staged: Staged, rows_per_second: float) -> Pause | None:
        between = self._seconds_of_a_call()
        return Pause(
            PASSES * seconds_to_read(self._live()) + between,
            f"for {1000 * between:.0f} ms of it, between two renames, there is no collection of that name: "
            "readers and writers that find none must try again; a record that was written and deleted around "
            "the switch may come back: let deletions wait to rule that out",
        )

    def _seconds_of_a_call(self) -> float:
        """What lies between the two renames, as the server answers now."""
        started = time.perf_counter()
        self._live()
        return time.perf_counter() - started

    def switched(self, staged: Staged) -> bool:
        facts, holder = self._facts(), self._server.find(self._name)
        return bool(facts) and holder is not None and str(holder.id) == facts["new"]

    def drop_old(self, staged: Staged) -> None:
        facts = self._facts()
        old, new = (self._open(facts.get(one, "")) for one in ("old", "new"))
        if old is not None and new is not None:
            writer = PointWriter(old, new, self._ledger(staged), staged, self.uri, switched=True)
            if left := writer.left_behind():
                raise StoreError(
                    f"{self.uri}: {len(left)} records were written to the old collection after the switch "
                    f"({first_few(left)}), by clients that hold it; let them get it again by its name, "
                    "then run crossfade rollback and crossfade cutover, which brings these records over"
                )
        for name in self._strays():
            if self._server.ask(self._server.find(name).count) == 0:
                self._server.ask(self._server.client.delete_collection, name)
        super().drop_old(staged)

    def _strays(self) -> list[str]:
        """Collections that others made in the instant of a switch."""
        return [one for one in self._server.names() if one.startswith(f"{self._name}__stray_")]

    def obstacles(self, new: Space | None = None) -> list[Obstacle]:
        live, pause = self._live(), 1000 * self._seconds_of_a_call()
        text = f"{self.uri}: the switch is two renames; for about {pause:.0f} ms no collection is called so"
        found = [Obstacle("pause", text, "let readers that find none try again", blocks=False)]
        text = f"{self.uri}: clients that hold the collection object do not see the switch"
        found.append(Obstacle("held", text, "let them get it by its name after the cutover", blocks=False))
        named = live.configuration.get("embedding_function") or {}
        if named.get("type") == "known":
            text = f"{self.uri}: the collection names an embedding function, {named.get('name')!r}"
            remedy = "the new one names none: after the cutover give get_collection that of the new model"
            found.append(Obstacle("embedding function", text, remedy, blocks=False))
        for name in self._strays():
            text = f"{self.uri}: {name!r} was made by an application in the instant of a switch"
            found.append(
                Obstacle("stray", text, "add what it holds to the collection, then delete it", False)
            )
        return found


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
