"""For the page on Qdrant: commands on a collection in the client's local mode, so in one process.

python qdrant_shop.py alias|vectors
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from pathlib import Path

from qdrant_client import models
from shop_vectors import ROWS, make_vectors

from crossfade.cli import main as crossfade
from crossfade.stores.qdrant import client_for

PLACE = "qdrant://:memory:shop"
ALIAS, OWN = f"{PLACE}#items.vector", f"{PLACE}#articles.vector"
SHOWN = {
    "alias": (
        f"crossfade inspect '{ALIAS}' --space old-model",
        f"crossfade plan '{ALIAS}' --old-space old-model --strategy gallery --adapter lift "
        "--out lift.json > plan.log",
        "crossfade apply lift.json",
        "crossfade verify lift.json",
        "crossfade cutover lift.json",
        f"crossfade inspect '{ALIAS}'",
        "crossfade rollback lift.json > back.log",
        "crossfade cutover lift.json > again.log",
        "crossfade retire lift.json --confirm",
    ),
    "vectors": (
        f"crossfade inspect '{OWN}' --space old-model",
        f"crossfade plan '{OWN}' --old-space old-model --strategy gallery --adapter lift --out lift.json",
        "crossfade apply lift.json > apply.log",
        "crossfade verify lift.json > verify.log",
        "crossfade cutover lift.json",
        "crossfade retire lift.json --confirm > retire.log",
        f"crossfade inspect '{OWN}'",
    ),
}


def make_collections() -> None:
    """1,000 points behind the alias ``items``, and as many in ``articles``, which has none."""
    client = client_for(PLACE)
    size = models.VectorParams(size=64, distance=models.Distance.COSINE)
    points = [
        models.PointStruct(id=number, vector={"vector": vector}, payload={"title": f"item {number}"})
        for number, vector in zip(range(ROWS), make_vectors().tolist(), strict=True)
    ]
    for name in ("items v1", "articles"):
        client.create_collection(name, vectors_config={"vector": size})
        client.upsert(name, points)
    made = models.CreateAlias(collection_name="items v1", alias_name="items")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])


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


def main(way: str) -> None:
    """Fill, then run everything of one way."""
    make_collections()
    for line in SHOWN[way]:
        run(line)


if __name__ == "__main__":
    main(sys.argv[1])
