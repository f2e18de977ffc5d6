"""A dual encoder from scratch: it learns, resumes in the same bits, and is opened by what it is made for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_words import ColourWords
from safetensors.torch import load_file

from crossfade.encoders import open_encoder
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.errors import DataError, UsageError
from crossfade.training.checkpoint import NAME
from crossfade.training.clip import TrainedClip, train_clip
from crossfade.training.clip_recipe import ClipRecipe
from crossfade.training.reading import read_yaml

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[2] / "recipes").glob("*/*.yaml")
    if read_yaml(path).get("method") == "clip"
)
TOWER = {"width": 32, "layers": 2, "heads": 2}


def _recipe(**changes: Any) -> ClipRecipe:
    values: dict[str, Any] = {
        "name": "tiny-clip",
        "architecture": {
            "vision": TOWER,
            "text": TOWER,
            "dimension": 16,
            "image_size": 16,
            "patch_size": 8,
            "context_length": 8,
        },
        "tokenizer": {"vocabulary": 300},
        "augmentation": {"crop": "padded", "padding": 1, "flip": 0.5},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.01},
        "schedule": {"epochs": 3, "warm_up_epochs": 0.5},
        "batch": 40,
        "precision": "float32",
    }
    for name, value in changes.items():
        merged = isinstance(value, dict) and isinstance(values.get(name), dict)
        values[name] = {**values[name], **value} if merged else value
    return ClipRecipe.from_dict(values)


@pytest.fixture(scope="module")
def images() -> ColourWords:
    return ColourWords()


@pytest.fixture(scope="module")
def trained(images: ColourWords, tmp_path_factory: pytest.TempPathFactory) -> TrainedClip:
    recipe = _recipe(schedule={"epochs": 100, "warm_up_epochs": 5}, precision="bf16")
    return train_clip(recipe, images, tmp_path_factory.mktemp("clip") / "model", device="cpu")


class StoppedError(Exception):
    pass


def _stop_after(pairs: int):
    def advance(done: int, total: int) -> None:
        if done >= pairs:
            raise StoppedError

    return advance


def _weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def test_it_finds_pictures_it_has_not_seen_by_words_it_has(trained: TrainedClip) -> None:
    """30 pairs of colors: by chance one in 30 is found."""
    fresh = ColourWords(copies=1, seed=9)
    image, text = (open_encoder(f"hf:{trained.directory}#{tower}") for tower in ("image", "text"))
    assert image.space == text.space == trained.space
    pictures = image.encode(fresh.pictures)
    for wording in (0, 1):
        scores = text.encode([captions[wording] for captions in fresh.captions]) @ pictures.T
        assert (scores.argmax(1) == np.arange(30)).mean() > 0.7
        assert (scores.argmax(0) == np.arange(30)).mean() > 0.7
    first, last = trained.epochs[0], trained.epochs[-1]
    assert last["loss"] < first["loss"] / 3
    assert last["found"] > 0.8 > 0.3 > first["found"]
    assert (trained.images, trained.captions, trained.truncated) == (120, 240, 0)


def test_the_folder_is_what_transformers_reads(trained: TrainedClip, images: ColourWords) -> None:
    from transformers import AutoModel, AutoTokenizer

    names = {path.name for path in trained.directory.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
    } <= names
    assert NAME not in names
    model = AutoModel.from_pretrained(trained.directory, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.directory)
    captions = [captions[0] for captions in images.captions[:7]]
    with torch.no_grad():
        features = model.get_text_features(**tokenizer(captions, padding=True, return_tensors="pt"))
    vectors = features.pooler_output / features.pooler_output.norm(dim=1, keepdim=True)
    ours = open_encoder(f"hf:{trained.directory}#text").encode(captions)
    np.testing.assert_allclose(vectors.numpy(), ours, atol=1e-5)
    assert model.config.text_config.max_position_embeddings == 8
    assert model.logit_scale.exp() <= 100.01


def test_saving_again_gives_the_same_model(trained: TrainedClip, tmp_path: Path) -> None:
    dual = HuggingFaceDual.load(trained.directory)
    assert dual.save(tmp_path / "again") == trained.space
    for name in ("model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained.directory / name).read_bytes()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_ends_in_the_same_bits(accumulate: int, images: ColourWords, tmp_path: Path) -> None:
    recipe = _recipe(
        accumulate=accumulate,
        architecture={"text": {**TOWER, "attention_dropout": 0.2}},
        schedule={"checkpoint_steps": 2, "epochs": 3},
    )
    whole = train_clip(recipe, images, tmp_path / "whole", device="cpu")
    for steps in (3, 6):
        with pytest.raises(StoppedError):
            train_clip(
                recipe, images, tmp_path / "parts", device="cpu", progress=_stop_after(steps * recipe.batch)
            )
        assert (tmp_path / "parts" / NAME).exists()
    resumed = train_clip(recipe, images, tmp_path / "parts", device="cpu")
    first, second = _weights(whole.directory), _weights(resumed.directory)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.space == resumed.space
    assert [entry["loss"] for entry in whole.epochs] == [entry["loss"] for entry in resumed.epochs]
    again = train_clip(recipe, images, tmp_path / "parts", device="cpu", progress=_stop_after(0))
    assert again == resumed


def test_another_recipe_or_other_captions_are_refused(images: ColourWords, tmp_path: Path) -> None:
    recipe = _recipe(schedule={"max_steps": 2})
    train_clip(recipe, images, tmp_path / "model", device="cpu")
    other = _recipe(schedule={"max_steps": 2}, data={"share": 0.5})
    with pytest.raises(UsageError, match=r"recipe.data.share: 1.0 → 0.5; data.images: 120 → 60; .*--out"):
        train_clip(other, images, tmp_path / "model", device="cpu")
    changed = ColourWords()
    changed.captions[0] = ["something else"]
    with pytest.raises(UsageError, match=r"data.captions: 240 → 239; data.digest: "):
        train_clip(recipe, changed, tmp_path / "model", device="cpu")


def test_a_share_is_a_part_of_a_larger_one() -> None:
    shares = [_recipe(data={"share": share}).data.rows(1000) for share in (0.25, 0.6)]
    assert [len(rows) for rows in shares] == [250, 600]
    assert set(shares[0]) < set(shares[1])
    assert not np.array_equal(shares[0], np.arange(250))
    assert len(_recipe(data={"images": 7}).data.rows(1000)) == 7
    with pytest.raises(DataError, match="1001 of 1000 images are asked for"):
        _recipe(data={"images": 1001}).data.rows(1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 41, "accumulate": 2}, r"recipe.batch \(41\) must be a multiple"),
        ({"data": {"share": 1.5}}, r"data.share \(1.5\)"),
        ({"architecture": {"image_size": 20}}, "patches of 8 pixels do not fill pictures of 20"),
        ({"architecture": {"text": {"width": 30, "heads": 4}}}, "the heads divide the width"),
        ({"tokenizer": {"vocabularly": 3}}, "did you mean 'vocabulary'"),
        ({"temperature": 0.0}, "between 0.01 and 1"),
    ],
)
def test_a_wrong_recipe_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _recipe(**changes)


def test_what_the_optimizer_leaves_out_is_adamw() -> None:
    recipe = _recipe(optimizer={"learning_rate": 0.5})
    assert (recipe.optimizer.name, recipe.optimizer.betas) == ("adamw", (0.9, 0.98))
    assert ClipRecipe.from_dict(recipe.to_dict()) == recipe


def test_too_few_pairs_for_a_batch_write_nothing(tmp_path: Path) -> None:
    few = ColourWords(copies=1)
    with pytest.raises(DataError, match="30 images are fewer than a batch of 40"):
        train_clip(_recipe(), few, tmp_path / "model", device="cpu")
    assert not (tmp_path / "model" / "config.json").exists()


def test_a_caption_of_two_pictures_is_no_negative() -> None:
    """Left out of both directions: the loss is that of a loop which skips these pairs."""
    from crossfade.training.losses.info_nce import info_nce

    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(5, 4, generator=generator)) for _ in range(2))
    belongs = torch.eye(5, dtype=torch.bool)
    belongs[0, 3] = belongs[3, 0] = belongs[2, 1] = True
    total = 0.0
    for one in range(5):
        row = [images[one] @ texts[j] / 0.1 for j in range(5) if j == one or not belongs[one, j]]
        column = [images[i] @ texts[one] / 0.1 for i in range(5) if i == one or not belongs[i, one]]
        right = images[one] @ texts[one] / 0.1
        total += float(torch.logsumexp(torch.stack(row), 0) + torch.logsumexp(torch.stack(column), 0))
        total -= 2 * float(right)
    assert float(info_nce(images, texts, 0.1, belongs)) == pytest.approx(total / 10, rel=1e-5)


def test_equal_captions_alone_leave_nothing_to_learn(images: ColourWords, tmp_path: Path) -> None:
    same = ColourWords(copies=2)
    same.captions = [["one title for all"] for _ in same.captions]
    done = train_clip(_recipe(schedule={"max_steps": 1, "epochs": 1}), same, tmp_path / "model", device="cpu")
    assert done.epochs[-1]["loss"] == pytest.approx(0, abs=1e-6)


def test_the_tokenizer_reads_what_it_has_never_seen() -> None:
    from crossfade.training.tokenizer import train_tokenizer

    texts = ["A red shirt", "a blue shirt", "red shoes"] * 3
    tokenizer, again = (train_tokenizer(texts, vocabulary=300, context_length=12) for _ in range(2))
    assert tokenizer.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert tokenizer(" Red\n\tSHIRT ")["input_ids"] == tokenizer("red shirt")["input_ids"]
    assert len(tokenizer("red shirt")["input_ids"]) == 4  # two words, beginning and end
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == tokenizer.pad_token_id
    strange = tokenizer("süß 靴 🥾")["input_ids"]
    assert tokenizer.decode(strange, skip_special_tokens=True).strip() == "süß 靴 🥾"
    assert tokenizer("red " * 50, truncation=True, max_length=12)["input_ids"][-1] == tokenizer.eos_token_id
    with pytest.raises(UsageError, match="a vocabulary of at least 258"):
        train_tokenizer(texts, vocabulary=257, context_length=12)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_runs(path: Path, images: ColourWords, tmp_path: Path) -> None:
    data = images.write(tmp_path / "train.parquet")
    settings = ["schedule.epochs=2", "schedule.max_steps=2", "batch=16"]
    done = train_clip(ClipRecipe.read(path, settings), data, tmp_path / "model", device="cpu")
    assert done.space.model == path.stem
    assert np.isfinite(done.epochs[-1]["loss"])


def test_the_command_trains_and_says_how_to_go_on(
    images: ColourWords, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from crossfade.cli.train_clip import clip

    data = images.write(tmp_path / "train.parquet")
    settings = ["schedule.epochs=2", "schedule.max_steps=2", "batch=16", "architecture.context_length=4"]
    for json_wanted in (False, True):
        clip(RECIPES[0], str(data), tmp_path / "model", settings=settings, device="cpu", json=json_wanted)
    said = capsys.readouterr().out
    text, _, values = said.partition("{")
    assert "120 images with 240 captions" in text
    assert "240 captions longer than the context" in text
    assert f"hf:{tmp_path / 'model'}#text" in text.replace("\n", "")
    assert json.loads("{" + values)["skipped"] == "nothing"


SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from colour_words import ColourWords
from crossfade.training.clip import train_clip
from crossfade.training.clip_recipe import ClipRecipe
train_clip(ClipRecipe.from_dict(json.loads(sys.argv[2])), ColourWords(), sys.argv[3], device="cpu")
"""


def test_two_processes_end_where_one_does(images: ColourWords, tmp_path: Path) -> None:
    # Not Adam: it makes a step of the rounding errors where the gradient is zero (the bias of the keys).
    optimizer = {"name": "sgd", "learning_rate": 0.1}
    recipe = _recipe(accumulate=2, schedule={"max_steps": 4}, optimizer=optimizer)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(script), str(Path(__file__).parent), json.dumps(recipe.to_dict()), str(tmp_path / "two")]
    done = subprocess.run(command + arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    train_clip(recipe, images, tmp_path / "one", device="cpu")
    first, second = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-5, rtol=1e-3)
