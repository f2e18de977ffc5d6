"""For the pages on thresholds and on drift: pictures and captions under both of the demo's models.

Writes ``fit``, ``items`` (pictures), ``queries``, ``recent`` (captions) and ``pictures``, each as
``_old.parquet`` and ``_new.parquet``, and the pictures' old vectors to the table ``scenes`` in ``db``.
"""

from __future__ import annotations

import lancedb
import numpy as np

from crossfade.demo.material import Embedded, Model, Scenes, gallery_table, pairs_of
from crossfade.spaces import Space
from crossfade.vectors import Vectors
from crossfade.vectors.open import open_writer

SCENES = 2000
QUERIES = 1500


def main() -> None:
    """Embed and write."""
    models = [Model.load("old"), Model.load("new")]
    sample, gallery = Scenes.make("pairs", 1500), Scenes.make("gallery", SCENES)
    fitted = [Embedded.by(model, sample) for model in models]
    pairs = pairs_of(*fitted)
    for name, matrix, space in (("old", pairs.X, pairs.source), ("new", pairs.Y, pairs.target)):
        assert space is not None
        write(f"fit_{name}", matrix, space)
    order = np.random.default_rng(0).permutation(len(gallery.texts))
    for name, model in zip(("old", "new"), models, strict=True):
        made = Embedded.by(model, gallery)
        images, texts = made.images.matrix, made.texts.matrix[order]
        write(f"items_{name}", images[: SCENES // 2], model.space)
        write(f"pictures_{name}", images[SCENES // 2 :], model.space)
        write(f"queries_{name}", texts[:QUERIES], model.space)
        write(f"recent_{name}", texts[QUERIES : QUERIES + 800], model.space)
        if name == "old":
            lancedb.connect("db").create_table("scenes", gallery_table(gallery, images, model.space))


def write(name: str, matrix: np.ndarray, space: Space) -> None:
    """Vectors with running numbers as ids."""
    vectors = Vectors(np.arange(len(matrix)), matrix, space)
    with open_writer(f"{name}.parquet", space) as writer:
        for batch in vectors.batches():
            writer.write(batch)


if __name__ == "__main__":
    main()
