"""Stage 1 of XBT from texts to a saved φ: caches, counts, what is refused, what is chosen."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_towers import MEANINGS, NEW, OLD, WORDINGS, Model, World, found, world

from crossfade.adapters import load_adapter
from crossfade.datasets.distinct import text_keys
from crossfade.datasets.texts import TextCounts, open_texts
from crossfade.encoders.base import Encoder
from crossfade.errors import (
    DimensionMismatch,
    IdMismatch,
    InvalidVectors,
    SpaceMismatch,
    TooFewPairs,
    UsageError,
)
from crossfade.spaces import Space
from crossfade.training import noise_choice
from crossfade.training.embed_texts import cached_text_vectors, embed_texts
from crossfade.training.noise_choice import choose_sigma, mean_reciprocal_rank
from crossfade.training.transformations import TransformationRecipe
from crossfade.training.xbt_text import modality_gap, train_xbt_text
from crossfade.vectors import ArrayPairs, FloatMatrix, Vectors, VectorSource, open_vectors

QUICK = {"hidden": 48, "batch_rows": 256, "epochs": 6}
RECIPE = TransformationRecipe("projection", QUICK)


class Tower(Encoder):
    """The text tower of a planted model; a text is `number: words`, cut after `context` words."""

    def __init__(self, model: Model, space: Space, context: int | None = None) -> None:
        self._model, self._space, self._context = model, space, context
        self.calls = 0
        if context is not None:
            self.truncated = 0

    @property
    def space(self) -> Space:
        return self._space

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        self.calls += 1
        if self._context is not None:
            self.truncated += sum(len(text.split()) > self._context for text in items)
        draws = [np.random.default_rng(zlib.crc32(text.encode())) for text in items]
        meant = np.stack([draw.standard_normal(MEANINGS + WORDINGS) for draw in draws])
        noise = np.random.default_rng([self._space.dimension, zlib.crc32(items[0].encode())])
        return self._model.texts(meant[:, :MEANINGS], meant[:, MEANINGS:], noise)


@cache
def planted() -> World:
    return world()


def towers(context: int | None = None) -> tuple[Tower, Tower]:
    """New and old: the very models of `planted()`."""
    random = np.random.default_rng(0)
    old = Model.draw(OLD.dimension, 1.0, 0.35, random)
    return Tower(Model.draw(NEW.dimension, 0.25, 0.1, random), NEW, context), Tower(old, OLD)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """1,500 distinct texts, 2 empty lines, 3 repeated ones; 100 of them long."""
    lines = [f"{row}: a thing" + " and more of it" * (row % 15 == 0) for row in range(1500)]
    path = tmp_path / "texts.txt"
    path.write_text(
        "\n".join([*lines[:700], "", " 5: a thing", *lines[700:], "  ", lines[4], lines[4]]) + "\n"
    )
    return path


def unpaired() -> Vectors:
    return Vectors(np.arange(len(planted().unpaired)), planted().unpaired, NEW, name="images")


def stored(pairs: ArrayPairs) -> tuple[Vectors, Vectors]:
    """Vectors of the planted texts under the new and the old model."""
    ids = np.arange(len(pairs))
    return Vectors(ids, pairs.X, NEW, name="new"), Vectors(ids, pairs.Y, OLD, name="old")


# --- from texts -------------------------------------------------------------------------------


def test_texts_become_a_map_that_finds_images(corpus: Path, tmp_path: Path) -> None:
    new, old = towers(context=4)
    stages: list[tuple[str, int, int]] = []
    done = train_xbt_text(
        new,
        old,
        open_texts(corpus),
        tmp_path / "phi",
        recipe=RECIPE,
        progress=lambda *stage: stages.append(stage),
    )
    adapter = load_adapter(tmp_path / "phi")
    assert (adapter.source, adapter.target, adapter.n_pairs) == (NEW, OLD, 1500)
    assert done.new is not None
    assert done.old is not None
    assert done.new.counts == done.old.counts == TextCounts(1505, 2, 3)
    assert (done.new.truncated, done.old.truncated) == (100, None)
    here = planted()
    images = adapter.transform(here.new_images)
    assert found(images, here.old_texts) > found(here.old_images, here.old_texts) + 0.1
    names = list(dict.fromkeys(stage for stage, _, _ in stages))
    assert names == ["embed texts (new)", "embed texts (old)", "train"]
    assert stages[-1][1] == stages[-1][2] == 6 * 1500
    report = done.to_dict()["texts"]["new"]
    assert (report["rows"], report["truncated"], report["duplicate"]) == (1500, 100, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"texts.txt", "phi", "phi.vectors"}


def test_vectors_are_embedded_once(corpus: Path, tmp_path: Path) -> None:
    new, old = towers(context=4)
    texts = open_texts(corpus)
    common: dict[str, Any] = {"recipe": RECIPE, "cache": tmp_path / "cache"}
    first = train_xbt_text(new, old, texts, tmp_path / "one", **common)
    calls = new.calls, old.calls
    second = train_xbt_text(new, old, open_texts(corpus), tmp_path / "two", **common)
    assert (new.calls, old.calls) == calls
    assert second.new == first.new
    for name, array in first.trained.adapter.arrays.items():
        assert array.tobytes() == second.trained.adapter.arrays[name].tobytes(), name
    with corpus.open("a") as file:
        file.write("one more text\n")
    third = train_xbt_text(new, old, open_texts(corpus), tmp_path / "three", **common)
    assert new.calls > calls[0]
    assert third.trained.adapter.n_pairs == 1501


def test_embedded_texts_have_the_hash_of_the_text_as_id(corpus: Path, tmp_path: Path) -> None:
    new, _ = towers()
    done = embed_texts(new, open_texts(corpus), tmp_path / "v.parquet")
    read = open_vectors(tmp_path / "v.parquet").read()
    assert (read.space, len(read), done.rows) == (NEW, 1500, 1500)
    assert read.ids[1].as_py() == int(text_keys(["1: a thing"])[0])
    assert len(set(read.ids.to_pylist())) == 1500
    np.testing.assert_array_equal(
        read.matrix, np.concatenate([new.encode(b) for b in open_texts(corpus).blocks(2048)])
    )


def test_an_interrupted_embedding_leaves_nothing_that_would_be_taken_for_whole(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, _ = towers()
    monkeypatch.setattr("crossfade.training.embed_texts.CHUNK", 400)
    stopped: list[int] = []

    def stop(done: int) -> None:
        stopped.append(done)
        if done > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_text_vectors(new, open_texts(corpus), tmp_path / "cache", progress=stop)
    assert stopped == [400, 800]
    assert list((tmp_path / "cache").iterdir()) == []
    done = cached_text_vectors(new, open_texts(corpus), tmp_path / "cache")
    done.path.with_suffix(".json").unlink()
    again = cached_text_vectors(new, open_texts(corpus), tmp_path / "cache")
    assert again == done


def test_a_stopped_stage_goes_on_and_ends_in_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    shifting = RECIPE.with_options(shifted=0.5)

    def train(out: str, log: Any = None) -> bytes:
        new, old = towers()
        train_xbt_text(
            new, old, open_texts(corpus), tmp_path / out, recipe=shifting, images=unpaired(), log=log
        )
        return (tmp_path / out / "model.safetensors").read_bytes()

    def stop(epoch: int, numbers: object) -> None:
        if epoch == 4:
            raise KeyboardInterrupt

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("phi", stop)
    assert not (tmp_path / "phi").exists()
    seen: list[int] = []
    assert train("phi", lambda epoch, numbers: seen.append(epoch)) == whole
    assert seen == [4, 5, 6]


def test_other_texts_do_not_continue_a_stopped_stage(corpus: Path, tmp_path: Path) -> None:
    def stop(epoch: int, numbers: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    def train(log: Any = None) -> None:
        new, old = towers()
        train_xbt_text(new, old, open_texts(corpus), tmp_path / "phi", recipe=RECIPE, log=log)

    with pytest.raises(KeyboardInterrupt):
        train(stop)
    corpus.write_text(corpus.read_text().replace("1499: a thing", "1499: another thing"))
    with pytest.raises(
        UsageError, match=r"holds a run with other settings \(texts: '[0-9a-f]+' → '[0-9a-f]+'\)"
    ):
        train()


# --- from vectors, with images ----------------------------------------------------------------


def test_ready_vectors_are_matched_by_id(tmp_path: Path) -> None:
    new, old = stored(planted().texts)
    order = np.random.default_rng(1).permutation(len(old))
    straight = train_xbt_text(new, old, None, tmp_path / "straight", recipe=RECIPE)
    mixed = train_xbt_text(new, old.take(order), None, tmp_path / "mixed", recipe=RECIPE)
    assert straight.new is None
    for name, array in straight.trained.adapter.arrays.items():
        assert array.tobytes() == mixed.trained.adapter.arrays[name].tobytes(), name


def test_images_shift_the_share_of_the_texts_that_is_asked_for(tmp_path: Path) -> None:
    new, old = stored(planted().texts)
    gap = planted().unpaired.mean(axis=0) - planted().texts.X.mean(axis=0)
    np.testing.assert_allclose(modality_gap(planted().texts, unpaired()), gap, atol=1e-6)
    longer = Vectors(unpaired().ids, 3 * planted().unpaired, NEW)  # only directions count in a cosine space
    np.testing.assert_allclose(modality_gap(planted().texts, longer), gap, atol=1e-6)
    half = RECIPE.with_options(shifted=0.5)
    shifted = train_xbt_text(new, old, None, tmp_path / "one", recipe=half, images=unpaired()).trained.adapter
    assert shifted.chosen["length of the modality gap"] == pytest.approx(float(np.linalg.norm(gap)))
    plain = train_xbt_text(new, old, None, tmp_path / "two", recipe=RECIPE).trained.adapter
    with pytest.raises(UsageError, match="with neither they change nothing"):
        train_xbt_text(new, old, None, tmp_path / "three", recipe=RECIPE, images=unpaired())
    assert not (tmp_path / "three").exists()
    assert shifted.arrays["skip"].tobytes() != plain.arrays["skip"].tobytes()


def test_sigma_auto_chooses_what_serves_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_choice, "CANDIDATES", (0.0, 0.5, 1.5, 30.0))
    new, old = stored(planted().texts)
    automatic = RECIPE.with_options(sigma="auto", depth=0)
    done = train_xbt_text(new, old, None, tmp_path / "phi", recipe=automatic, images=unpaired())
    adapter, choice = load_adapter(tmp_path / "phi"), done.choice
    assert choice is not None
    assert adapter.get_params()["sigma"] == choice.sigma == 1.5
    assert choice.scores[0.0] < choice.scores[0.5] < choice.scores[1.5] > choice.scores[30.0]
    assert adapter.held_out["reciprocal rank of moved texts, sigma 0.5"] == choice.scores[0.5]
    assert "sigma 0.5" in (tmp_path / "phi" / "README.md").read_text()


def test_sigma_is_judged_on_texts_that_training_did_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old vectors without any relation: a φ that was judged on its own texts would seem to find them."""
    monkeypatch.setattr(noise_choice, "CANDIDATES", (0.0,))
    random = np.random.default_rng(2)
    few = planted().texts.take(np.arange(200))
    unrelated = ArrayPairs(few.X, random.standard_normal(few.Y.shape), source=NEW, target=OLD)
    still = Vectors(np.arange(200), few.X, NEW)  # images that lie where texts are: displaced by nothing
    recipe = RECIPE.with_options(hidden=512, batch_rows=64, epochs=30)
    (score,) = choose_sigma(recipe, unrelated, still).scores.values()
    assert score < 0.25  # of 40 at random: 0.11


def test_mean_reciprocal_rank_equals_a_loop() -> None:
    random = np.random.default_rng(0)
    queries, gallery = (random.standard_normal((30, 4)).astype(np.float32) for _ in range(2))
    expected = []
    for row, query in enumerate(queries):
        cosines = gallery @ query / np.linalg.norm(gallery, axis=1)
        expected.append(1 / (1 + int((cosines > cosines[row]).sum())))
    assert mean_reciprocal_rank(queries, gallery) == pytest.approx(np.mean(expected))
    same = np.ones((5, 3), dtype=np.float32)
    assert mean_reciprocal_rank(same, same) == pytest.approx(1 / 3)  # the middle rank of five


# --- what is refused --------------------------------------------------------------------------


def refused(kind: type[Exception], message: str, out: Path, *parts: Any, **options: Any) -> None:
    with pytest.raises(kind, match=message):
        train_xbt_text(*parts, out, **options)
    assert not out.exists()
    assert not out.with_name(f"{out.name}.vectors").exists()


def test_mistakes_are_found_before_anything_is_embedded(corpus: Path, tmp_path: Path) -> None:
    new, old = towers()
    texts, out = open_texts(corpus), tmp_path / "phi"
    ready_new, ready_old = stored(planted().texts)
    refused(UsageError, r"embed into the same space, towers-new .*nothing to map", out, new, new, texts)
    refused(UsageError, "the new and the old encoder need texts", out, new, old, None)
    refused(UsageError, "the old encoder need texts", out, ready_new, old, None)
    refused(UsageError, "no texts are needed; leave --texts out", out, ready_new, ready_old, texts)
    automatic = TransformationRecipe("projection", {"sigma": "auto"})
    refused(UsageError, r"unpaired images .*\(--images\)", out, new, old, texts, recipe=automatic)
    wrong = TransformationRecipe("projection", {"sigma": -1.0})
    refused(UsageError, "sigma must be a number of at least 0", out, new, old, texts, recipe=wrong)
    refused(UsageError, "the recipe is for 'fct'", out, new, old, texts, recipe=TransformationRecipe("fct"))
    of_old = Vectors(np.arange(3), planted().old_images[:3], OLD, name="o.parquet")
    refused(
        DimensionMismatch, "images o.parquet: .*towers-new.*towers-old", out, new, old, texts, images=of_old
    )
    of_third = Vectors(np.arange(3), planted().new_images[:3], Space("third", NEW.dimension), name="t")
    refused(SpaceMismatch, "images t: .*towers-new.*third", out, new, old, texts, images=of_third)
    assert (new.calls, old.calls) == (0, 0)
    out.mkdir()
    with pytest.raises(UsageError, match=r"phi is there already; name another --out"):
        train_xbt_text(new, old, texts, out)


def test_vectors_of_other_texts_and_broken_images(tmp_path: Path) -> None:
    new, old = stored(planted().texts)
    renamed = Vectors(np.arange(len(old)) + 7, old.matrix, OLD, name="old")
    refused(IdMismatch, "7 of 3000 ids of new are not among", tmp_path / "phi", new, renamed, None)
    broken = planted().unpaired.copy()
    broken[3] = np.nan
    images = Vectors(np.arange(len(broken)), broken, NEW, name="images")
    half = TransformationRecipe("projection", {"shifted": 0.5})
    refused(InvalidVectors, "1 with NaN", tmp_path / "phi", new, old, None, images=images, recipe=half)


def test_too_few_texts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("\n".join(f"text {row % 20}" for row in range(60)))
    with pytest.raises(TooFewPairs, match="needs at least 64 pairs, got 20"):
        train_xbt_text(*towers(), open_texts(path), tmp_path / "phi", recipe=RECIPE)
    assert not (tmp_path / "phi").exists()


def test_sources_of_vectors_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reads a source whole."""
    new, old = stored(planted().texts)

    def whole(self: VectorSource, columns: tuple[str, ...] = ()) -> Vectors:
        raise AssertionError("read whole")

    monkeypatch.setattr(Vectors, "read", whole)
    monkeypatch.setattr(noise_choice, "CANDIDATES", (0.0, 1.0))
    recipe = RECIPE.with_options(sigma="auto", epochs=1, warm_up_epochs=0, depth=0)
    train_xbt_text(new, old, None, tmp_path / "phi", recipe=recipe, images=unpaired())
