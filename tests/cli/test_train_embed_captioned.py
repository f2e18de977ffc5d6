"""``crossfade train embed-captioned``: from captioned images to files that evaluate reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import Run

from crossfade.datasets.scenes import generate, scenes_table
from crossfade.demo.material import ASSETS
from crossfade.encoders import open_encoder
from crossfade.vectors import open_vectors

SCENES = 60


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captioned") / "scenes.parquet"
    pq.write_table(scenes_table(generate("gallery", SCENES)), path)
    return path


def towers(model: str) -> tuple[str, ...]:
    return "--image", f"onnx:{ASSETS / model}#image", "--text", f"onnx:{ASSETS / model}#text"


def test_both_models_and_what_evaluate_makes_of_them(scenes: Path, tmp_path: Path, run: Run) -> None:
    for model in ("old", "new"):
        given = ("--data", scenes, "--caption-column", "captions", "--out", tmp_path / model)
        done = run("train", "embed-captioned", *towers(model), *given)
        assert done.code == 0, done.err
        assert f"{SCENES} images in {tmp_path / model / 'images.parquet'}" in done.out
    table = pq.read_table(scenes)
    captions = pq.read_table(tmp_path / "new" / "captions.parquet")
    assert captions["caption"].to_pylist() == table["captions"].combine_chunks().flatten().to_pylist()
    assert captions["image"].to_pylist() == np.repeat(table["id"].to_pylist(), 2).tolist()
    text = open_encoder(f"onnx:{ASSETS / 'new'}#text")
    vectors = open_vectors(tmp_path / "new" / "captions.parquet").read()
    assert vectors.space == text.space
    np.testing.assert_allclose(
        vectors.matrix[:8], text.encode(captions["caption"].to_pylist()[:8]), rtol=1e-5, atol=1e-6
    )
    sides = [
        (f"--{model}{end}", tmp_path / model / name)
        for model in ("old", "new")
        for end, name in (("", "images.parquet"), ("-queries", "captions.parquet"))
    ]
    options = [one for pair in sides for one in pair]
    out = ("--pairs", 20, "--method", "procrustes", "--out", tmp_path / "report")
    done = run("evaluate", *options, "--captions", "image,caption", *out)
    assert done.code == 0, done.err
    tasks = json.loads((tmp_path / "report" / "report.json").read_text())["evaluation"]["tasks"]
    assert [task["name"] for task in tasks] == ["text→image", "image→text"]
    assert {"old/old", "new/new"} <= {row["key"] for row in tasks[0]["rows"]}


def test_unreadable_images_leave_with_their_captions(scenes: Path, tmp_path: Path, run: Run) -> None:
    table = pq.read_table(scenes).slice(0, 5)
    images = table["image"].to_pylist()
    images[2] = images[2][:40]
    broken = tmp_path / "broken.parquet"
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", [images]), broken)
    given = ("--data", broken, "--caption-column", "captions", "--out", tmp_path / "vectors")
    done = run("train", "embed-captioned", *towers("old"), *given)
    assert done.code == 2
    assert "images cannot be read" in done.error_lines[0]
    assert not list((tmp_path / "vectors").iterdir())
    done = run("train", "embed-captioned", *towers("old"), *given, "--on-corrupt", "skip", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["images"]["rows"], report["captions"]["rows"]) == (4, 8)
    assert report["corrupt"] == [table["id"][2].as_py()]
    left = pq.read_table(tmp_path / "vectors" / "captions.parquet")
    assert left["id"].to_pylist() == [0, 1, 2, 3, 6, 7, 8, 9]


def test_what_is_there_and_towers_of_two_models(scenes: Path, tmp_path: Path, run: Run) -> None:
    given = ("--data", scenes, "--caption-column", "captions", "--out", tmp_path)
    mixed = (*towers("old")[:2], *towers("new")[2:])
    done = run("train", "embed-captioned", *mixed, *given)
    assert done.code == 2
    assert "the text encoder" in done.error_lines[0]
    (tmp_path / "captions.parquet").write_bytes(b"kept")
    done = run("train", "embed-captioned", *towers("old"), *given)
    assert "captions.parquet is there already; name another --out, or give --overwrite" in done.error_lines[0]
    assert (tmp_path / "captions.parquet").read_bytes() == b"kept"
