"""For the page on Chroma: a server with a collection, and an adapter in ``lift``; or ``stop`` the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chromadb
from shop_vectors import ROWS, make_vectors

PORT = 8765
SECONDS = 60


def connect() -> chromadb.ClientAPI:
    """A client, once the server answers."""
    for _ in range(10 * SECONDS):
        try:
            return chromadb.HttpClient("127.0.0.1", PORT)
        except ValueError:
            time.sleep(0.1)
    raise SystemExit(f"no server on port {PORT} after {SECONDS} s")


def main() -> None:
    """Start and fill, or stop."""
    pid = Path("server.pid")
    if "stop" in sys.argv:
        os.kill(int(pid.read_text()), signal.SIGTERM)
        return
    with Path("server.log").open("wb") as log:
        options = ["--path", "chroma", "--host", "127.0.0.1", "--port", str(PORT)]
        server = subprocess.Popen(["chroma", "run", *options], stdout=log, stderr=log, start_new_session=True)
    pid.write_text(str(server.pid))
    settings = {"hnsw": {"space": "cosine", "max_neighbors": 8}}
    items = connect().create_collection("items", configuration=settings, embedding_function=None)
    numbers = range(ROWS)
    items.add(
        ids=[f"item-{one}" for one in numbers],
        embeddings=make_vectors(),
        metadatas=[{"price": one} for one in numbers],
        documents=[f"the item {one}" for one in numbers],
    )


if __name__ == "__main__":
    main()
