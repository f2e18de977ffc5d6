"""For the pages on stores without a server: the same items in each of them, and an adapter in ``lift``."""

from __future__ import annotations

from pathlib import Path

import faiss
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from shop_vectors import ROWS, make_vectors


def main() -> None:
    """A LanceDB table with an index, a Parquet file, a FAISS index with a table of ids beside it."""
    vectors = make_vectors()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {"id": pa.array(np.arange(ROWS)), "title": pa.array([f"item {row}" for row in range(ROWS)])}
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({**rows, "vector": column})
    made = lancedb.connect("db").create_table("items", table)
    made.create_index(metric="cosine", index_type="IVF_FLAT", num_partitions=8)
    pq.write_table(table, "items.parquet", compression="none", use_dictionary=["title"])
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    Path("shelf").mkdir()
    faiss.write_index(index, "shelf/items.faiss")
    pq.write_table(pa.table(rows), "shelf/items.parquet")


if __name__ == "__main__":
    main()
