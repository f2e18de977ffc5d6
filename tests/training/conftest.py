from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tiny_training import png, write_images

sys.path.insert(0, str(Path(__file__).parents[1] / "encoders"))  # tiny_duals


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
