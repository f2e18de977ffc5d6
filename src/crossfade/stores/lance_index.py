"""ANN indexes of a Lance dataset: described, rebuilt alike, shelved and put back.

An index must not stay on a column that the application no longer fills: optimising a table fails
when new rows hold nothing but nulls in an indexed column (Lance 14). So the index of the vectors
that are not in use is taken out of the manifest, its files are kept on a shelf beside the table,
and it is put back when its column is in use again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.extras import load
from crossfade.stores.indexing import codes_per_vector
from crossfade.stores.lance_parts import source_of
from crossfade.stores.records import IndexInfo

# Without this, asking for an index's statistics logs a warning about centroids on stderr.
os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")

TYPES = ("IVF_FLAT", "IVF_SQ", "IVF_PQ", "IVF_RQ", "IVF_HNSW_FLAT", "IVF_HNSW_SQ", "IVF_HNSW_PQ")
_PARAMETERS = {"num_sub_vectors": "num_sub_vectors", "nbits": "num_bits", "num_bits": "num_bits"}
_GRAPH_PARAMETERS = ("m", "ef_construction")


def describe_index(dataset: Any, column: str) -> IndexInfo | None:
    """The ANN index on `column`, or None."""
    for entry in dataset.describe_indices():
        if list(entry.field_names) == [column] and entry.index_type.upper().startswith("IVF"):
            return _info(dataset, entry.name)
    return None


def _info(dataset: Any, name: str) -> IndexInfo:
    statistics = dataset.stats.index_stats(name)
    first = statistics["indices"][0]
    inner = first.get("sub_index") or {}
    graph = inner.get("params") or {}
    parameters = {"num_partitions": int(first["num_partitions"])}
    parameters |= {ours: int(inner[theirs]) for theirs, ours in _PARAMETERS.items() if inner.get(theirs)}
    parameters |= {one: int(graph[one]) for one in _GRAPH_PARAMETERS if graph.get(one)}
    metric = str(first["metric_type"]).lower()
    return IndexInfo(name, statistics["index_type"], metric, parameters, int(statistics["num_indexed_rows"]))


def build_index(
    dataset: Any, column: str, name: str, like: IndexInfo, metric: str, dimensions: tuple[int, int]
) -> None:
    """Index `column` with the type and parameters of `like`, in `metric`.

    Args:
        dimensions: of the vectors that `like` indexes, and of those in `column`.
    """
    parameters = dict(like.parameters)
    if "num_sub_vectors" in parameters:
        parameters["num_sub_vectors"] = codes_per_vector(parameters["num_sub_vectors"], *dimensions)
    dataset.create_index(column, like.type, name=name, metric=metric, replace=True, **parameters)


class IndexShelf:
    """Where the indexes of one upgrade are kept while their column is not in use.

    Each has a JSON file with what is needed to put it back, written before it leaves the manifest,
    so that it is never lost, and its own files as hard links.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, dataset: Any, column: str, role: str) -> None:
        """Take the index on `column`, if there is one, out of the manifest and keep it as `role`."""
        info = describe_index(dataset, column)
        if info is None:
            return
        entry = next(one for one in dataset.describe_indices() if one.name == info.name)
        sources = _sources(dataset, column)
        segments = [_segment(one, sources) for one in entry.segments]
        for segment in segments:
            _link_files(_index_folder(dataset, segment["uuid"]), self._folder / segment["uuid"])
        kind = {"type": info.type, "metric": info.metric, "parameters": dict(info.parameters)}
        self._write(role, {"name": info.name, **kind, "rows": info.rows, "segments": segments})
        dataset.drop_index(info.name)

    def put_back(self, dataset: Any, column: str, role: str) -> None:
        """Put the index kept as `role` back on `column`; build it again if its files are gone.

        Rows written since are searched without it until the application optimises the table.
        """
        kept = self._read(role)
        if kept is None or describe_index(dataset, column) is not None:
            return
        sources = _sources(dataset, column)
        segments = [one for one in kept["segments"] if _still_covered(one, sources)]
        if segments and all(self._restore(dataset, one["uuid"]) for one in segments):
            _commit_index(dataset, column, kept["name"], segments, sources)
            return
        like = IndexInfo(kept["name"], kept["type"], kept["metric"], kept["parameters"], kept["rows"])
        dimension = dataset.schema.field(column).type.list_size
        build_index(dataset, column, like.name, like, like.metric, (dimension, dimension))

    def clear(self) -> None:
        """Delete everything that is kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _restore(self, dataset: Any, uuid: str) -> bool:
        target = _index_folder(dataset, uuid)
        return target.exists() or _link_files(self._folder / uuid, target)

    def _write(self, role: str, kept: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"{role}.json.new"
        draft.write_text(json.dumps(kept, indent=2))
        draft.replace(self._folder / f"{role}.json")

    def _read(self, role: str) -> dict[str, Any] | None:
        path = self._folder / f"{role}.json"
        kept: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return kept


def _sources(dataset: Any, column: str) -> dict[int, str]:
    """The file that holds the column, per fragment."""
    field = dataset.lance_schema.field(column).id()
    return {one.fragment_id: source_of(one, field) for one in dataset.get_fragments()}


def _segment(segment: Any, sources: Mapping[int, str]) -> dict[str, Any]:
    fragments = {str(one): sources[one] for one in sorted(map(int, segment.fragment_ids)) if one in sources}
    return {
        "uuid": str(segment.uuid),
        "version": int(segment.dataset_version_at_last_update),
        "index_version": int(segment.index_version),
        "fragments": fragments,
    }


def _still_covered(segment: Mapping[str, Any], sources: Mapping[int, str]) -> list[int]:
    """Fragments of the segment whose vectors are still those that were indexed."""
    return [int(one) for one, source in segment["fragments"].items() if sources.get(int(one)) == source]


def _commit_index(
    dataset: Any, column: str, name: str, segments: list[dict[str, Any]], sources: Mapping[int, str]
) -> None:
    lance, index = load("lance", "lance"), load("lance.dataset", "lance").Index
    field = dataset.lance_schema.field(column).id()
    new = [
        index(
            uuid=one["uuid"],
            name=name,
            fields=[field],
            dataset_version=one["version"],
            fragment_ids=_still_covered(one, sources),
            index_version=one["index_version"],
        )
        for one in segments
    ]
    operation = lance.LanceOperation.CreateIndex(new, [])
    lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)


def _index_folder(dataset: Any, uuid: str) -> Path:
    return Path(dataset.uri) / "_indices" / uuid


def _link_files(source: Path, target: Path) -> bool:
    """Hard links where the file system has them, else copies; False if there is nothing to keep."""
    if not source.is_dir():
        return False
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        copy = target / file.name
        if not copy.exists():
            try:
                os.link(file, copy)
            except OSError:
                shutil.copy2(file, copy)
    return True
