"""Tiny images, files of them, and recipes that train on the digits in about a second."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def write_images(path: Path, pictures: list[bytes], labels: np.ndarray) -> Path:
    table = pa.table({"image": pa.array([{"bytes": one} for one in pictures]), "label": labels})
    pq.write_table(table, path)
    return path


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
