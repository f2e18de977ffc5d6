"""Figures on real vectors, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from adapter_kit import unit

from crossfade.adapters import Adapter, fit_auto
from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.ridge import Ridge
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs

DATA = Path(os.environ.get("CROSSFADE_DATA", "/nonexistent"))
EMBEDDINGS = DATA / "tiny-imagenet-100" / "embeddings"

pytestmark = pytest.mark.skipif(
    not EMBEDDINGS.is_dir(), reason="needs the real vectors: set CROSSFADE_DATA to the folder of data sets"
)


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(EMBEDDINGS / f"{name}.parquet")
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    return vectors, np.unique(table["label"].to_numpy(), return_inverse=True)[1]


def mean_average_precision(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> float:
    scores = queries @ gallery.T
    np.fill_diagonal(scores, -np.inf)
    order = np.argsort(-scores, axis=1)[:, :-1]
    relevant = labels[order] == labels[:, None]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return float(100 * ((precision * relevant).sum(axis=1) / relevant.sum(axis=1)).mean())


class Photographs:
    """MobileNet v1 0.25 to v2: 3,000 pairs to fit on, the other 2,000 photographs to search."""

    def __init__(self) -> None:
        old, self.labels = read("mobilenet_v1_0.25_128")
        new, _ = read("mobilenet_v2_1.0_224")
        rows = np.random.default_rng(0).permutation(len(old))
        source, target = Space("mobilenet-v1", old.shape[1]), Space("mobilenet-v2", new.shape[1])
        self.pairs = ArrayPairs(old[rows[:3000]], new[rows[:3000]], source=source, target=target)
        rest = np.sort(rows[3000:])
        self.old, self.new, self.labels = old[rest], new[rest], self.labels[rest]
        self.status_quo = mean_average_precision(unit(self.old), unit(self.old), self.labels)

    def lifted(self, adapter: Adapter) -> float:
        """mAP of new/h(old)."""
        return mean_average_precision(unit(self.new), adapter.transform(self.old), self.labels)


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    return Photographs()


def test_closed_forms_reach_the_figures_known_for_them(photographs: Photographs) -> None:
    assert photographs.status_quo == pytest.approx(12.4, abs=0.3)
    assert photographs.lifted(Procrustes().fit_pairs(photographs.pairs)) > 14.5
    assert photographs.lifted(Ridge().fit_pairs(photographs.pairs)) > 15.8


def test_automatic_choice_is_clearly_better_than_the_old_model(photographs: Photographs) -> None:
    chosen = fit_auto(photographs.pairs, methods=["procrustes", "low-rank", "ridge"]).adapter
    assert photographs.lifted(chosen) > photographs.status_quo + 2
