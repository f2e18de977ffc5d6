from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def write_images(path: Path, pictures: list[bytes], labels: np.ndarray) -> Path:
    table = pa.table({"image": pa.array([{"bytes": one} for one in pictures]), "label": labels})
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Handwritten digits, 8 x 8: 1,200 to train on and 597 to search."""
    folder = tmp_path_factory.mktemp("digits")
    data = load_digits()
    pictures = [png(image * 15.9) for image in data.images]
    order = np.random.default_rng(0).permutation(len(pictures))
    parts = {"train": order[:1200], "test": order[1200:]}
    return {
        name: write_images(folder / f"{name}.parquet", [pictures[row] for row in rows], data.target[rows])
        for name, rows in parts.items()
    }


TINY_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}


def recipe_values(**changes: Any) -> dict[str, Any]:
    """A recipe that trains on the digits in about a second, with sections replaced key by key."""
    values: dict[str, Any] = {
        "name": "digits",
        "method": "classification",
        "architecture": {
            "backbone": "resnet",
            "config": TINY_RESNET,
            "stem": "small",
            "dimension": 16,
            "picture_size": 8,
            "input_size": 8,
        },
        "augmentation": {"crop": "padded", "padding": 1, "flip": 0.0},
        "optimizer": {"learning_rate": 0.1, "weight_decay": 5e-4},
        "schedule": {"epochs": 2, "warm_up_epochs": 0.5},
        "batch": 64,
    }
    for name, value in changes.items():
        merged = isinstance(value, dict) and isinstance(values.get(name), dict)
        values[name] = {**values[name], **value} if merged else value
    return values
