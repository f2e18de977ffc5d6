"""What a Milvus collection is made of, and another one like it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossfade.extras import load
from crossfade.spaces import Metric
from crossfade.stores.indexing import codes_per_vector
from crossfade.stores.milvus_server import MilvusServer
from crossfade.stores.records import IndexInfo

SPACES = "crossfade.spaces"
METRICS: dict[str, Metric] = {"COSINE": "cosine", "IP": "dot", "L2": "l2"}
NAMES = {metric: name for name, metric in METRICS.items()}
EXACT = ("FLAT", "BRUTE_FORCE")
"""Types of index that compare with every row."""
TYPES = (
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FLOAT",
    "DOUBLE",
    "VARCHAR",
    "JSON",
    "ARRAY",
    "FLOAT_VECTOR",
    "SPARSE_FLOAT_VECTOR",
)
"""Types of fields that are known to come back from the server as it takes them."""
LONGEST = 65_535
"""Bytes of a VARCHAR at most."""
_REPORTED = {
    *("index_type", "metric_type", "field_name", "index_name", "params", "search_params", "dim"),
    *("total_rows", "indexed_rows", "pending_index_rows", "state"),
}


@dataclass(frozen=True, slots=True)
class FieldIndex:
    """The index of a field as the server describes it."""

    field: str
    name: str
    type: str
    metric: str
    parameters: dict[str, Any]
    rows: int
    pending: int

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> FieldIndex:
        """What ``describe_index`` returned."""
        nested = found.get("params") or {}
        flat = {name: value for name, value in found.items() if name not in _REPORTED}
        return cls(
            field=str(found["field_name"]),
            name=str(found["index_name"]),
            type=str(found["index_type"]),
            metric=str(found.get("metric_type", "")),
            parameters={**flat, **nested},
            rows=int(found.get("indexed_rows") or 0),
            pending=int(found.get("pending_index_rows") or 0),
        )

    def info(self) -> IndexInfo:
        """For people, and to compare with another."""
        numbers = {name: int(value) for name, value in self.parameters.items() if str(value).isdigit()}
        metric = METRICS.get(self.metric, self.metric)
        return IndexInfo(self.name, self.type, metric, dict(sorted(numbers.items())), self.rows)

    def for_vectors(self, metric: Metric, before: int, now: int) -> FieldIndex:
        """The index of vectors of `now` dimensions that is like this one of vectors of `before`."""
        parameters = dict(self.parameters)
        if "m" in parameters:
            parameters["m"] = codes_per_vector(int(parameters["m"]), before, now)
        return FieldIndex(self.field, self.name, self.type, NAMES[metric], parameters, 0, 0)


def indexes(server: MilvusServer, collection: str) -> list[FieldIndex]:
    """The indexes of a collection's fields."""
    names = server.call("list_indexes", collection)
    found = [server.call("describe_index", collection, one) for one in names]
    return [FieldIndex.read(one) for one in found if one]


def make_index(server: MilvusServer, collection: str, index: FieldIndex) -> None:
    """Index a field."""
    wanted = load("pymilvus", "milvus").MilvusClient.prepare_index_params()
    options = {"metric_type": index.metric} if index.metric not in ("", "NONE") else {}
    wanted.add_index(
        index.field, index_type=index.type, index_name=index.name, params=index.parameters, **options
    )
    server.call("create_index", collection, wanted, sync=False)


def type_of(field: Mapping[str, Any]) -> str:
    """Name of a field's type."""
    return str(load("pymilvus", "milvus").DataType(field["type"]).name)


def schema_like(found: Mapping[str, Any], field: str, dimension: int) -> Any:
    """The schema of a collection that was described, with another dimension of one field."""
    raw = copy.deepcopy(dict(found))
    for one in raw["fields"]:
        if one["name"] == field:
            one["params"]["dim"] = dimension
        elif type_of(one) == "ARRAY" and one.get("element_type"):
            text = load("pymilvus", "milvus").DataType.VARCHAR
            if one["element_type"] == text:  # Milvus Lite does not say how long the texts in an array may be
                one["params"].setdefault("max_length", LONGEST)
    return load("pymilvus", "milvus").CollectionSchema.construct_from_dict(raw)


def settings_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a collection that was described, beside its schema."""
    keyed = any(one.get("is_partition_key") for one in found["fields"])
    properties = {name: value for name, value in found.get("properties", {}).items() if name != SPACES}
    return {
        "num_shards": found.get("num_shards", 1),
        "consistency_level": found.get("consistency_level", 2),
        **({"num_partitions": found["num_partitions"]} if keyed else {}),
        **({"properties": properties} if properties else {}),
    }
