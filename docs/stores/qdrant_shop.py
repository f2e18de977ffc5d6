"""For the page on Qdrant: commands on a collection in the client's local mode, so in one process."""

from __future__ import annotations

import contextlib
import io
import shlex
from pathlib import Path

from qdrant_client import models
from shop_vectors import ROWS, make_vectors

from crossfade.cli import main as crossfade
from crossfade.stores.qdrant import client_for

PLACE = "qdrant://:memory:shop"
STORE = f"{PLACE}#items.vector"
SHOWN = (
    f"crossfade inspect '{STORE}' --space old-model",
    f"crossfade plan '{STORE}' --old-space old-model --strategy gallery --adapter lift "
    "--out lift.json > plan.log",
    "crossfade apply lift.json",
    "crossfade verify lift.json",
    "crossfade cutover lift.json",
    f"crossfade inspect '{STORE}'",
    "crossfade rollback lift.json > back.log",
    "crossfade cutover lift.json > again.log",
    "crossfade retire lift.json --confirm",
)


def make_collection() -> None:
    """1,000 points behind the alias ``items``."""
    client = client_for(PLACE)
    size = models.VectorParams(size=64, distance=models.Distance.COSINE)
    client.create_collection("items v1", vectors_config={"vector": size})
    made = models.CreateAlias(collection_name="items v1", alias_name="items")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    points = [
        models.PointStruct(id=number, vector={"vector": vector}, payload={"title": f"item {number}"})
        for number, vector in zip(range(ROWS), make_vectors().tolist(), strict=True)
    ]
    client.upsert("items", points)


def run(line: str) -> None:
    """Run a command, and show what it prints unless that goes to a file; a failure stops everything."""
    print(f"$ {line}", flush=True)
    command, _, file = line.partition(" > ")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            crossfade(shlex.split(command)[1:])
        except SystemExit as end:
            if end.code:
                raise
    if file:
        Path(file).write_text(said.getvalue(), encoding="utf-8")
    else:
        print(said.getvalue(), flush=True)


def main() -> None:
    """Fill, then run everything."""
    make_collection()
    for line in SHOWN:
        run(line)


if __name__ == "__main__":
    main()
