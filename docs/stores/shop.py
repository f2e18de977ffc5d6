"""For the pages on stores without a server: the same items in each of them, and an adapter in ``lift``."""

from __future__ import annotations

from pathlib import Path

import faiss
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.adapters import make_adapter
from crossfade.spaces import Space

OLD, NEW = Space("old-model", 64), Space("new-model", 96)
ROWS = 2000


def main() -> None:
    """A LanceDB table with an index, a Parquet file, a FAISS index with a table of ids beside it."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((ROWS + 2000, 64), dtype=np.float32)
    made = vectors @ generator.standard_normal((64, 96), dtype=np.float32)
    adapter = make_adapter("ridge").fit(vectors[ROWS:], made[ROWS:], source=OLD, target=NEW)
    adapter.save_pretrained(Path("lift"))
    stored = vectors[:ROWS] / np.linalg.norm(vectors[:ROWS], axis=1, keepdims=True)
    rows = {"id": pa.array(np.arange(ROWS)), "title": pa.array([f"item {row}" for row in range(ROWS)])}
    column = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), 64)
    table = pa.table({**rows, "vector": column})
    made_table = lancedb.connect("db").create_table("items", table)
    made_table.create_index(metric="cosine", index_type="IVF_FLAT", num_partitions=8)
    pq.write_table(table, "items.parquet", compression="none", use_dictionary=["title"])
    index = faiss.IndexHNSWFlat(64, 16, faiss.METRIC_INNER_PRODUCT)
    index.add(stored)
    Path("shelf").mkdir()
    faiss.write_index(index, "shelf/items.faiss")
    pq.write_table(pa.table(rows), "shelf/items.parquet")


if __name__ == "__main__":
    main()
