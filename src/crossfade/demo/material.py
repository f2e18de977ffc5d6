"""What the demo works on: scenes, captions, and both models' vectors of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from crossfade.datasets.captions import Captions, captions_from_table
from crossfade.datasets.relevance import Relevance
from crossfade.datasets.scenes import generate, scenes_table
from crossfade.encoders.onnx import OnnxEncoder
from crossfade.evaluation import Judgements, RetrievalTask
from crossfade.spaces import Space
from crossfade.vectors import ArrayPairs, FloatMatrix, Vectors

GALLERY_SCENES = 5000
PAIR_SCENES = 1500
QUERIES = 1000
ASSETS = Path(__file__).parent / "assets"
Generation = Literal["old", "new"]


@dataclass(frozen=True)
class Model:
    """A small vision-language model: an encoder of pictures and one of texts, into one space."""

    image: OnnxEncoder
    text: OnnxEncoder

    @classmethod
    def load(cls, generation: Generation) -> Model:
        """One of the two models that ship with the package (recipes/demo trains them)."""
        folder = ASSETS / generation
        return cls(OnnxEncoder.load(folder, "image"), OnnxEncoder.load(folder, "text"))

    @property
    def space(self) -> Space:
        """The space of both encoders."""
        return self.image.space


@dataclass(frozen=True)
class Scenes:
    """A table of scenes (`id`, `image`, `captions`, `key`) and their distinct captions."""

    table: pa.Table
    captions: Captions

    @classmethod
    def make(cls, split: Literal["gallery", "pairs"], count: int) -> Scenes:
        """Scenes of one split; scenes of two splits never have the same meaning."""
        table = scenes_table(generate(split, count))
        captions = captions_from_table(table, image_column="id", caption_column="captions")
        return cls(table, captions)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def images(self) -> list[bytes]:
        """The pictures, as PNG."""
        return list(self.table["image"].to_pylist())

    @property
    def texts(self) -> list[str]:
        """The distinct captions."""
        return list(self.captions.texts.to_pylist())


@dataclass(frozen=True)
class Embedded:
    """Pictures and distinct captions of some scenes under one model."""

    images: Vectors
    texts: Vectors

    @classmethod
    def by(cls, model: Model, scenes: Scenes) -> Embedded:
        """Embed pictures and captions."""
        return cls(
            Vectors(scenes.table["id"], model.image.encode(scenes.images), model.space),
            Vectors(np.arange(len(scenes.texts)), model.text.encode(scenes.texts), model.space),
        )

    @property
    def both(self) -> FloatMatrix:
        """Pictures, then captions: one map serves both kinds."""
        return np.concatenate([self.images.matrix, self.texts.matrix])


def pairs_of(old: Embedded, new: Embedded) -> ArrayPairs:
    """Pictures and captions embedded by both models, as pairs old → new."""
    return ArrayPairs(old.both, new.both, source=old.images.space, target=new.images.space)


def tasks_of(scenes: Scenes, old: Embedded, new: Embedded) -> list[RetrievalTask]:
    """Find the picture for a caption, and the captions for a picture; `QUERIES` of each, at random."""
    captions = scenes.captions
    return [
        _task("text→image", captions.text_to_image, (old.texts, new.texts), (old.images, new.images)),
        _task("image→text", captions.image_to_text, (old.images, new.images), (old.texts, new.texts)),
    ]


def _task(
    name: str, relevance: Relevance, queries: tuple[Vectors, Vectors], gallery: tuple[Vectors, Vectors]
) -> RetrievalTask:
    count = min(QUERIES, relevance.n_queries)
    asked = np.sort(np.random.default_rng(0).choice(relevance.n_queries, count, replace=False))
    kept = np.isin(relevance.queries, asked)
    rows, items = np.searchsorted(asked, relevance.queries[kept]), relevance.items[kept]
    truth = Judgements(count, relevance.n_gallery, rows, items, captions=True)
    old, new = queries
    return RetrievalTask(name, old.take(asked), new.take(asked), *gallery, truth)


def gallery_table(scenes: Scenes, vectors: FloatMatrix, space: Space) -> pa.Table:
    """The gallery as a store holds it: id, caption, picture, vector; the space in its metadata."""
    from crossfade.vectors.metadata import record_space

    first = [captions[0] for captions in scenes.table["captions"].to_pylist()]
    columns: dict[str, Any] = {
        "id": scenes.table["id"].combine_chunks(),
        "caption": pa.array(first, pa.string()),
        "image": scenes.table["image"].combine_chunks(),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), space.dimension),
    }
    table = pa.table(columns)
    return table.replace_schema_metadata(record_space(table.schema, space).metadata)


def right_answers(scenes: Scenes, texts: Sequence[int]) -> list[set[str]]:
    """Ids of the scenes that each of these captions (positions among the distinct ones) describes."""
    relevance = scenes.captions.text_to_image
    ids = scenes.captions.image_ids.to_pylist()
    return [{ids[item] for item in relevance.items[relevance.queries == text]} for text in texts]
