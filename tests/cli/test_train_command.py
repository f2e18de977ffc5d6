from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossfade.cli import main
from crossfade.vectors import open_vectors

RECIPE = """
name: tiny
method: {method}
architecture:
  backbone: resnet
  config: {{embedding_size: 8, hidden_sizes: [8, 8], depths: [1, 1], layer_type: basic}}
  stem: small
  dimension: 6
  picture_size: 8
  input_size: 8
augmentation: {{crop: padded, padding: 1}}
schedule: {{epochs: 1, warm_up_epochs: 0}}
batch: 8
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(24):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue()})
    table = pa.table({"image": pictures, "label": [row % 4 for row in range(24)]})
    pq.write_table(table, tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def _recipe(folder: Path, method: str) -> str:
    path = folder / f"{method}.yaml"
    path.write_text(RECIPE.format(method=method))
    return str(path)


def _run(*arguments: object) -> int:
    try:
        main([str(one) for one in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert _run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_old_new_bct_and_vectors(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = _recipe(tmp_path, "classification")
    common = ("--data", data, "--device", "cpu")
    half = ("--set", "data.classes=first half", "--set", "name=tiny-old")
    old = _json(capsys, "train", "old", "--recipe", free, *common, *half, "--out", tmp_path / "old")
    assert (old["classes"], old["images"], old["space"]["model"]) == (2, 12, "tiny-old")
    new = _json(capsys, "train", "new", "--recipe", free, *common, "--out", tmp_path / "new")
    assert new["classes"] == 4
    bct = _json(
        capsys, "train", "bct", "--recipe", _recipe(tmp_path, "bct"), *common,
        "--old", tmp_path / "old", "--out", tmp_path / "bct",
    )  # fmt: skip
    assert "influence" in bct["epochs"][-1]
    vectors = tmp_path / "bct.parquet"
    done = _json(
        capsys, "train", "embed", "--encoder", f"trained:{tmp_path / 'bct'}", "--data", data, "--out", vectors
    )
    assert (done["rows"], done["space"]) == (24, bct["space"])
    assert open_vectors(str(vectors)).space.to_dict() == bct["space"]


def test_side_information_is_trained_or_taken(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = _recipe(tmp_path, "simclr"), tmp_path / "side"
    side = _json(
        capsys, "train", "side-info", "--recipe", recipe, "--data", data, "--device", "cpu", "--out", out
    )
    taken = _json(
        capsys,
        "train",
        "side-info",
        "--encoder",
        f"trained:{out}",
        "--data",
        data,
        "--out",
        tmp_path / "s.parquet",
    )
    assert taken["space"] == side["space"]
    assert _run("train", "side-info", "--data", data, "--out", out) == 2
    assert "--recipe FILE) or another encoder's (--encoder SPEC); give one" in capsys.readouterr().err


def test_a_person_reads_what_to_do_next(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    assert (
        _run("train", "new", "--recipe", _recipe(tmp_path, "classification"), "--data", data, "--out", out)
        == 0
    )
    printed = capsys.readouterr().out
    assert "24 images of 4 classes" in printed
    assert "crossfade train embed --encoder trained:" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("old", "--set", "shedule.epochs=1"), "recipe has no key 'shedule'; did you mean 'schedule'?"),
        (("bct",), "is a recipe for 'classification'; this command trains bct"),
        (("new", "--data", "absent"), "absent: no such file or folder"),
        (("new", "--set", "data.label_column=kind"), "no column 'kind'; it has image, label"),
        (("new", "--device", "tpu"), "a device is auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(tmp_path, "classification")
    command, *rest = arguments
    code = _run("train", command, "--recipe", recipe, "--data", data, "--out", tmp_path / "m", *rest)
    assert code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("crossfade: ")
    assert message in last


def test_tensorboard_gets_every_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, int]] = []

    class SummaryWriter:
        def __init__(self, directory: str) -> None:
            assert directory == str(tmp_path / "m" / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert np.isfinite(value)
            written.append((name, step))

    library = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", library)
    monkeypatch.setattr("crossfade.extras.installed", lambda module: True)
    arguments = ("--recipe", _recipe(tmp_path, "classification"), "--data", data, "--out", tmp_path / "m")
    assert _run("train", "new", *arguments, "--tensorboard") == 0
    names = ("loss", "accuracy", "learning rate")
    assert sorted(written) == sorted((name, step) for name in names for step in (1, 2, 3))


def test_tensorboard_that_is_missing_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("crossfade.extras.installed", lambda module: False)
    arguments = ("--recipe", _recipe(tmp_path, "classification"), "--data", data, "--out", tmp_path / "m")
    assert _run("train", "new", *arguments, "--tensorboard") == 2
    assert "run: pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
