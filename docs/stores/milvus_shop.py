"""For the page on Milvus: a file ``shop.db`` of Milvus Lite with a collection, and an adapter in ``lift``."""

from __future__ import annotations

from pymilvus import DataType, MilvusClient
from shop_vectors import ROWS, make_vectors


def main() -> None:
    """Fill the file."""
    client = MilvusClient("./shop.db")
    fields = client.create_schema(auto_id=False)
    fields.add_field("id", DataType.INT64, is_primary=True)
    fields.add_field("title", DataType.VARCHAR, max_length=100)
    fields.add_field("vector", DataType.FLOAT_VECTOR, dim=64)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 8, "efConstruction": 64})
    client.create_collection("items_v1", schema=fields, index_params=index)
    client.create_alias("items_v1", "items")
    vectors = make_vectors().tolist()
    client.insert("items", [{"id": n, "title": f"item {n}", "vector": vectors[n]} for n in range(ROWS)])


if __name__ == "__main__":
    main()
