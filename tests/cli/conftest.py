"""Vectors of two models that differ by a planted rotation, in files and in a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from crossfade.cli import main
from crossfade.spaces import Space
from crossfade.vectors import Vectors
from crossfade.vectors.base import VectorBatch
from crossfade.vectors.metadata import record_space
from crossfade.vectors.writing import ParquetVectorWriter

OLD, NEW = Space("old-model", 12), Space("new-model", 16)
ROWS = 400


@dataclass(frozen=True)
class Finished:
    """What a command did: exit code, output, error output."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        """Lines on stderr that are an error."""
        return [line for line in self.err.splitlines() if line.startswith("crossfade: ")]


Run = Callable[..., Finished]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Finished:
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return call


def write(path: Path, vectors: Vectors) -> Path:
    """Vectors with their labels as a Parquet file."""
    with ParquetVectorWriter(path, vectors.space) as writer:
        writer.write(VectorBatch(vectors.ids, vectors.matrix, vectors.columns))
    return path


@dataclass(frozen=True)
class Models:
    """The same labelled items under both models; the new one separates the classes better."""

    old: Vectors
    new: Vectors


@pytest.fixture
def models() -> Models:
    random = np.random.default_rng(7)
    labels = np.arange(ROWS) % 10
    clean = random.normal(size=(10, 16))[labels] + 0.5 * random.normal(size=(ROWS, 16))
    rotation = np.linalg.qr(random.normal(size=(16, 16)))[0]
    blurred = (clean + 0.9 * random.normal(size=clean.shape)) @ rotation[:, :12]
    ids, columns = [f"item {row}" for row in range(ROWS)], {"label": labels}
    return Models(Vectors(ids, blurred, OLD, columns), Vectors(ids, clean, NEW, columns))


@pytest.fixture
def files(models: Models, tmp_path: Path) -> tuple[Path, Path]:
    """old.parquet and new.parquet."""
    return write(tmp_path / "old.parquet", models.old), write(tmp_path / "new.parquet", models.new)


@pytest.fixture
def store(models: Models, tmp_path: Path) -> str:
    """The old vectors in a LanceDB table of several fragments."""
    lancedb = pytest.importorskip("lancedb")
    table = pa.table(
        {
            "id": models.old.ids,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(models.old.matrix.ravel()), OLD.dimension),
        }
    )
    table = table.replace_schema_metadata(record_space(table.schema, OLD).metadata)
    database = lancedb.connect(str(tmp_path / "db"))
    created = database.create_table("items", table[:100])
    for start in range(100, ROWS, 100):
        created.add(table[start : start + 100])
    return f"lancedb://{tmp_path / 'db'}#items.vector"
