"""XBT whole, on generated scenes: two tiny dual encoders, φ from texts, few pairs; who finds what.

Rows are named query model / gallery model; both models are trained here in seconds, on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_duals import NEW, OLD, SIDE, reciprocal_ranks, scenes_of, train_dual, write_scenes

from crossfade.adapters import load_adapter
from crossfade.datasets.scenes import scenes_table
from crossfade.datasets.texts import open_texts
from crossfade.encoders import open_encoder
from crossfade.encoders.dual import DualEncoder
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.encoders.tuned import TunedDual
from crossfade.training.transformations import TransformationRecipe
from crossfade.training.xbt import train_xbt
from crossfade.training.xbt_recipe import XbtRecipe
from crossfade.training.xbt_text import train_xbt_text
from crossfade.vectors import FloatMatrix, Vectors

PROJECTION = TransformationRecipe("projection", {"hidden": 256, "batch_rows": 256, "epochs": 16})
TUNING = XbtRecipe.from_dict({"batch": 90, "schedule": {"epochs": 6}, "optimizer": {"learning_rate": 5e-4}})
MARGIN = 1.1  # times old/old
CHANCE = 0.018  # mean reciprocal rank of a random order of the gallery's 366 items


@dataclass(frozen=True)
class Embedded:
    """A gallery's pictures and one caption of each, row for row."""

    images: FloatMatrix
    texts: FloatMatrix

    def finds(self, other: Embedded) -> np.ndarray:
        """Mean reciprocal rank of these as queries in the other's gallery: image→text, text→image."""
        ranks = reciprocal_ranks(self.images, other.texts), reciprocal_ranks(self.texts, other.images)
        return np.array([rank.mean() for rank in ranks])


class World:
    """Both models, their texts, the pairs and a gallery of scenes that none of them has seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scenes = scenes_of("train", copies=4)
        self.old, self.new = (train_dual(size, folder / name, scenes) for name, size in _MODELS.items())
        gallery = scenes_of("gallery", "validation")
        self._pictures = scenes_table(gallery, SIDE)["image"].to_pylist()
        self._captions = [scene.captions[0] for scene in gallery]
        self.pairs = write_scenes(scenes_of("pairs", copies=4), folder / "pairs.parquet")
        texts = {text for scene in scenes_of("train", copies=4, seed=7) for text in scene.captions}
        (folder / "texts.txt").write_text("\n".join(sorted(texts)))

    def embed(self, dual: DualEncoder) -> Embedded:
        return Embedded(dual.image.encode(self._pictures), dual.text.encode(self._captions))

    def text_vectors(self, dual: HuggingFaceDual) -> Vectors:
        texts = (self.folder / "texts.txt").read_text().splitlines()
        return Vectors(np.arange(len(texts)), dual.text.encode(texts), dual.space)

    def tuned(self, name: str) -> TunedDual:
        """Stage 2 on the φ in `name`."""
        trained = train_xbt(
            TUNING,
            self.folder / "new",
            self.folder / name,
            self.pairs,
            self.folder / f"{name}-xbt",
            cache=self.folder / "cache",
            device="cpu",
        )
        return TunedDual.load(trained.directory, device="cpu")


_MODELS = {"old": OLD, "new": NEW}


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("scenes"))


@pytest.mark.slow
def test_the_new_model_finds_more_in_the_old_gallery_than_the_old_one(world: World) -> None:
    texts = open_texts(world.folder / "texts.txt")
    old_text, new_text = (open_encoder(f"hf:{world.folder / name}#text") for name in _MODELS)
    done = train_xbt_text(new_text, old_text, texts, world.folder / "phi", recipe=PROJECTION, device="cpu")
    old, new = world.embed(world.old), world.embed(world.new)
    tuned = world.tuned("phi")
    assert tuned.space == world.old.space
    status_quo, backfill = old.finds(old), new.finds(new)
    xbt = world.embed(tuned).finds(old)
    assert (backfill > MARGIN * status_quo).all()
    assert (xbt > MARGIN * status_quo).all(), (xbt, status_quo)
    phi = load_adapter(done.trained.directory)
    alone = Embedded(phi.transform(new.images), phi.transform(new.texts)).finds(old)
    assert (xbt > 0.85 * alone).all(), (xbt, alone)  # models this small gain nothing more from stage 2
    own = world.embed(tuned.off())
    assert own.images.tobytes() == new.images.tobytes()
    assert own.texts.tobytes() == new.texts.tobytes()


@pytest.mark.slow
def test_texts_paired_with_others_vectors_destroy_it(world: World) -> None:
    new, old = (world.text_vectors(dual) for dual in (world.new, world.old))
    order = np.random.default_rng(0).permutation(len(old.matrix))
    shuffled = Vectors(np.arange(len(order)), old.matrix[order], old.space)
    train_xbt_text(new, shuffled, None, world.folder / "wrong", recipe=PROJECTION, device="cpu")
    gallery = world.embed(world.old)
    found = world.embed(world.tuned("wrong")).finds(gallery)
    assert (found < 0.5 * gallery.finds(gallery)).all(), found
    assert (found < 2 * CHANCE).all(), found
