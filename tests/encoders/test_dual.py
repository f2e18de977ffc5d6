"""Dual encoders of transformers against transformers itself, in the layouts that are published."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from small_duals import (
    CLIP_PICTURES,
    CONTEXT,
    PATCHES,
    SMALL,
    TEXTS,
    TOWER,
    bert_vocabulary,
    byte_pairs,
    picture,
    save_model,
    unit,
    write_clip,
    write_json,
    write_siglip,
)

from crossfade.encoders import open_encoder
from crossfade.encoders.dual_network import DualNetwork, Tokens
from crossfade.encoders.hub import WANTED
from crossfade.encoders.hugging_face import HuggingFaceDual, read_dual_notes
from crossfade.encoders.picture_settings import PictureSettings
from crossfade.errors import (
    CrossfadeError,
    DataError,
    EncoderError,
    MissingExtra,
    NotSupported,
    UnreadableFile,
    UsageError,
)
from crossfade.spaces import Space

PICTURES = [picture((40, 30), 1), picture((16, 16), 2), picture((21, 60), 3)]
LONG = "a red circle left of a blue square left of a large blue circle"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for name, small in SMALL.items():
        small.write(root / name)
    return {name: root / name for name in SMALL}


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A CLIP to be damaged."""
    return Path(shutil.copytree(folders["clip"], tmp_path / "clip"))


@pytest.fixture(scope="module")
def clip(folders: dict[str, Path]) -> HuggingFaceDual:
    return HuggingFaceDual.load(folders["clip"])


# --- what it computes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_as_transformers_computes(folders: dict[str, Path], name: str) -> None:
    small, folder = SMALL[name], folders[name]
    dual = HuggingFaceDual.load(folder, batch=2)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    assert (dual.network.dimension, dual.network.image_size) == (small.dimension, small.side)
    assert dual.network.context_length == dual.context_length == CONTEXT
    with torch.no_grad():
        images = unit(model.get_image_features(pixel_values=_pixels(name, folder)).pooler_output)
        texts = unit(model.get_text_features(**_tokens(dual, name)).pooler_output)
    np.testing.assert_allclose(dual.image.encode(PICTURES), images, atol=2e-5)
    np.testing.assert_allclose(dual.text.encode(TEXTS), texts, atol=2e-5)
    assert np.abs(texts[0] - texts[1]).max() > 0.01
    assert dual.image.space == dual.text.space == dual.space
    assert (dual.space.model, dual.space.metric, dual.space.normalized) == (folder.name, "cosine", True)


def _pixels(name: str, folder: Path) -> torch.Tensor:
    module, _, kind = SMALL[name].processor.rpartition(".")
    values = json.loads(next(folder.glob("*process*.json")).read_text())
    processor = getattr(importlib.import_module(f"transformers.models.{module}"), kind)(
        **values.get("image_processor", values)
    )
    opened = [Image.open(io.BytesIO(content)) for content in PICTURES]
    pixels: torch.Tensor = processor(opened, return_tensors="pt")["pixel_values"]
    return pixels


def _tokens(dual: HuggingFaceDual, name: str) -> Any:
    if SMALL[name].padding == "longest":
        return dual.tokenizer(TEXTS, padding=True, return_tensors="pt")
    read = dual.tokenizer(TEXTS, padding="max_length", max_length=CONTEXT, return_tensors="pt")
    return {"input_ids": read["input_ids"]}


@pytest.mark.parametrize("name", SMALL)
def test_saved_and_loaded(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    dual = HuggingFaceDual.load(folders[name])
    space = dual.save(tmp_path / "saved", name="mine/copy", notes={"recipe": {"epochs": 3}})
    again = HuggingFaceDual.load(tmp_path / "saved")

    assert again.space == space == Space("mine/copy", space.dimension, "cosine", True, dual.space.revision)
    assert again.settings == dual.settings
    assert read_dual_notes(tmp_path / "saved")["recipe"] == {"epochs": 3}
    np.testing.assert_array_equal(again.text.encode(TEXTS), dual.text.encode(TEXTS))
    np.testing.assert_array_equal(again.image.encode(PICTURES), dual.image.encode(PICTURES))
    assert sorted(path.name for path in (tmp_path / "saved").iterdir() if path.name.startswith(".")) == []


def test_what_is_saved_opens_in_transformers(clip: HuggingFaceDual, tmp_path: Path) -> None:
    clip.save(tmp_path)
    model = transformers.CLIPModel.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        features = model.get_text_features(**tokenizer(TEXTS, padding=True, return_tensors="pt"))
    np.testing.assert_allclose(unit(features.pooler_output), clip.text.encode(TEXTS), atol=1e-6)


def test_saving_over_another_model(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", seed=1)
    write_clip(tmp_path / "b", seed=2)
    write_json(tmp_path / "a" / "model.safetensors.index.json", {"weight_map": {"x": "gone.safetensors"}})
    (tmp_path / "a" / "notes.txt").write_text("mine")
    other = HuggingFaceDual.load(tmp_path / "b")
    space = other.save(tmp_path / "a")
    assert HuggingFaceDual.load(tmp_path / "a").space == space == other.space
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_the_revision_is_the_hash_of_the_weights(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert HuggingFaceDual.load(folder).space.revision == digest[:12]
    write_clip(folder, seed=5)
    assert HuggingFaceDual.load(folder).space.revision != digest[:12]


def test_weights_in_several_files(folder: Path, clip: HuggingFaceDual) -> None:
    clip.network.model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    dual = HuggingFaceDual.load(folder)
    np.testing.assert_array_equal(dual.text.encode(TEXTS), clip.text.encode(TEXTS))
    assert dual.space.revision == hashlib.sha256(b"".join(p.read_bytes() for p in shards)).hexdigest()[:12]
    shards[1].unlink()
    with pytest.raises(UnreadableFile, match=rf"has no {shards[1].name}; only safetensors are read"):
        HuggingFaceDual.load(folder)


def test_half_precision_is_not_kept(folder: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(folder).half()
    model.save_pretrained(folder)
    dual = HuggingFaceDual.load(folder)
    assert {value.dtype for value in dual.network.parameters()} == {torch.float32}
    assert dual.text.encode(TEXTS).dtype == np.float32


def test_nothing_and_not_a_picture(clip: HuggingFaceDual) -> None:
    assert clip.text.encode([]).shape == clip.image.encode([]).shape == (0, 12)
    with pytest.raises(DataError, match="item 65 is not a readable picture"):
        clip.image.encode([PICTURES[1]] * 65 + [b"no picture"])
    with pytest.raises(UsageError, match="item 1 is bytes"):
        clip.text.encode(["a", b"b"])
    with pytest.raises(DataError, match=r"takes pictures \(n, 16, 16, 3\) uint8, got \(1, 8, 8, 3\) uint8"):
        clip.encode_pictures(np.zeros((1, 8, 8, 3), np.uint8))


def test_decoded_pictures_and_tokens_give_the_same(clip: HuggingFaceDual) -> None:
    pixels = clip.decode(PICTURES)
    assert (pixels.shape, pixels.dtype) == ((3, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(clip.encode_pictures(pixels), clip.image.encode(PICTURES))
    np.testing.assert_array_equal(clip.encode_tokens(clip.tokenize(TEXTS)), clip.text.encode(TEXTS))


def test_the_network_as_training_uses_it(clip: HuggingFaceDual) -> None:
    pixels = torch.from_numpy(clip.decode(PICTURES)).permute(0, 3, 1, 2).float() / 255
    images, texts = clip.network(pixels, clip.tokenize(TEXTS[:3]))
    assert images.requires_grad
    np.testing.assert_allclose(unit(images.detach()), clip.image.encode(PICTURES), atol=1e-6)
    np.testing.assert_allclose(unit(texts.detach()), clip.text.encode(TEXTS[:3]), atol=1e-6)


# --- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_long_texts_are_cut_and_counted(folders: dict[str, Path], name: str) -> None:
    dual = HuggingFaceDual.load(folders[name])
    tokens = dual.tokenize([*TEXTS, LONG, LONG])
    assert tokens.input_ids.shape == tokens.attention_mask.shape == (6, CONTEXT)
    assert (tokens.truncated, dual.tokenize(TEXTS).truncated) == (2, 0)
    end = dual.tokenizer.eos_token_id or dual.tokenizer.sep_token_id
    assert tokens.input_ids[-1, -1] == end  # CLIP reads its vector there
    dual.text.encode([LONG, "blue"])
    dual.text.encode([LONG])
    assert dual.text.truncated == 2
    beginning, other = " ".join(LONG.split()[:-1]), f"{LONG} red"
    assert dual.tokenize([beginning]).truncated == 1
    np.testing.assert_array_equal(dual.text.encode([LONG]), dual.text.encode([other]))


def test_exactly_the_context_is_not_cut(clip: HuggingFaceDual) -> None:
    fitting = " ".join(["red"] * (CONTEXT - 2))
    assert clip.tokenize([fitting]).truncated == 0
    assert clip.tokenize([f"{fitting} red"]).truncated == 1


def test_a_tokenizer_without_the_rust_library(clip: HuggingFaceDual) -> None:
    class Slow:
        """Answers like those of transformers that are written in Python: no encodings."""

        def __init__(self, fast: Any) -> None:
            self.fast = fast

        def __getattr__(self, name: str) -> Any:
            return getattr(self.fast, name)

        def __len__(self) -> int:
            return len(self.fast)

        def __call__(self, texts: list[str], **options: Any) -> Any:
            return transformers.BatchEncoding(dict(self.fast(texts, **options)))

    slow = HuggingFaceDual(clip.network, Slow(clip.tokenizer), clip.settings, clip.space)
    assert slow.tokenize([LONG, "red", LONG]).truncated == 2


def test_rows_of_tokens(clip: HuggingFaceDual) -> None:
    tokens = clip.tokenize([*TEXTS, LONG])
    short = tokens.rows(torch.tensor([1, 0]))
    assert short.input_ids.shape == (2, 5)
    assert (len(short), short.truncated) == (2, 0)
    np.testing.assert_allclose(clip.encode_tokens(short), clip.encode_tokens(tokens)[[1, 0]], atol=1e-6)
    assert tokens.rows(slice(0, 0)).input_ids.shape == (0, CONTEXT)
    assert tokens.to("cpu").truncated == 1


def test_the_order_of_texts_is_kept(clip: HuggingFaceDual) -> None:
    texts = [" ".join(["red", "blue", "circle"][: n % 3 + 1] * (n % 2 + 1)) for n in range(20)]
    together = HuggingFaceDual(clip.network, clip.tokenizer, clip.settings, clip.space, batch=3)
    alone = np.concatenate([clip.text.encode([text]) for text in texts])
    np.testing.assert_allclose(together.text.encode(texts), alone, atol=1e-6)


def test_sigmoid_models_see_their_padding(folders: dict[str, Path]) -> None:
    dual = HuggingFaceDual.load(folders["siglip"])
    tokens = dual.tokenize(["blue"])
    assert tokens.input_ids.shape == (1, CONTEXT)
    assert tokens.attention_mask.all()
    masked = Tokens(tokens.input_ids, (torch.arange(CONTEXT) < 2).long()[None])
    assert np.abs(dual.encode_tokens(masked) - dual.text.encode(["blue"])).max() > 0.01
    assert dual.tokenizer.convert_ids_to_tokens(dual.tokenize(["RED!"]).input_ids[0])[:2] == ["▁red", "</s>"]


def test_siglip_2_reads_lower_case(tmp_path: Path) -> None:
    """Its files name Gemma's tokenizer, which has both cases; it was trained on one."""
    write_siglip(tmp_path)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "R", "B", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    gemma = transformers.GemmaTokenizer(vocab={token: n for n, token in enumerate(tokens)}, merges=[])
    gemma.model_max_length = CONTEXT
    gemma.save_pretrained(tmp_path)
    named = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path / "tokenizer_config.json", {**named, "tokenizer_class": "GemmaTokenizer"})
    dual = HuggingFaceDual.load(tmp_path)
    ids = dual.tokenize(["Red", "red"]).input_ids
    assert ids[0].tolist() == ids[1].tolist()
    assert {tokens.index("r"), tokens.index("e")} <= set(ids[0].tolist())


def test_siglip_as_sentencepiece_needs_that_library(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(folders["siglip"], tmp_path / "copy"))
    (copy / "tokenizer.json").rename(copy / "spiece.model")
    monkeypatch.setattr("crossfade.encoders.tokenizing.installed", lambda name: name != "sentencepiece")
    with pytest.raises(MissingExtra, match="sentencepiece model; run: pip install sentencepiece protobuf"):
        HuggingFaceDual.load(copy)


def test_positions_of_roberta_start_behind_its_padding(tmp_path: Path) -> None:
    size = bert_vocabulary(tmp_path)
    text = {**TOWER, "model_type": "roberta", "vocab_size": size, "max_position_embeddings": CONTEXT + 2}
    text |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = {"text_config": text, "vision_config": {**PATCHES, "model_type": "vit"}, "projection_dim": 12}
    save_model("vision-text-dual-encoder", config, tmp_path)
    write_json(tmp_path / "preprocessor_config.json", CLIP_PICTURES)
    dual = HuggingFaceDual.load(tmp_path)
    assert dual.context_length == CONTEXT
    assert dual.text.encode([LONG]).shape == (1, 12)


# --- files that are not a usable model --------------------------------------------------------


def _without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without_tokenizer(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink()


def _cut_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _change(name: str, **values: Any) -> Any:
    def change(folder: Path) -> None:
        write_json(folder / name, {**json.loads((folder / name).read_text()), **values})

    return change


def _lose_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _of_another_model(folder: Path) -> None:
    words, merges = byte_pairs(["entirely", "different", "wording", "unrelated"])
    write_json(folder / "vocab.json", words)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def _other_end(folder: Path) -> None:
    write_clip(folder, legacy=False)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 7
    write_json(folder / "config.json", config)


def _language_model(folder: Path) -> None:
    save_model("bert", {**TOWER, "vocab_size": 30}, folder)


def _naflex(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "siglip2"})


FAULTS = {
    "no config": (_without("config.json"), UnreadableFile, r"has no config\.json; give the folder"),
    "no weights": (_without("model.safetensors"), UnreadableFile, "only safetensors are read, never pickled"),
    "pickled weights": (_pickled, UnreadableFile, r"has no model\.safetensors; only safetensors are read"),
    "no tokenizer": (_without_tokenizer, UnreadableFile, r"has no tokenizer \(tokenizer\.json, vocab\.json"),
    "no settings": (_without("preprocessor_config.json"), UnreadableFile, "how its pictures are prepared"),
    "half the weights": (_cut_weights, UnreadableFile, "not the weights that config.json describes"),
    "one weight less": (_lose_a_weight, UnreadableFile, r"lacks 1 of the weights .* text_projection\.weight"),
    "another size": (
        _change("config.json", projection_dim=13),
        UnreadableFile,
        "not the weights that config",
    ),
    "another tokenizer": (_of_another_model, UnreadableFile, r"has \d+ tokens, the model 77; it is another"),
    "another end": (_other_end, UnreadableFile, "ends a text by token 76, the model looks for 7"),
    "no dual encoder": (_language_model, NotSupported, "BertModel is no dual encoder: it has no get_image"),
    "pictures of any shape": (_naflex, NotSupported, r"Siglip2Model takes pictures of any shape \(NaFlex\)"),
    "unknown model": (
        _change("config.json", model_type="telepathy"),
        NotSupported,
        "not a model that transf",
    ),
    "other pictures": (
        _change("preprocessor_config.json", crop_size=24, size=24),
        UnreadableFile,
        "makes pictures of 24 pixels, the model takes 16",
    ),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), CrossfadeError, "config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_sentence_for_each_fault(folder: Path, fault: str) -> None:
    damage, error, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(error, match=message) as caught:
        HuggingFaceDual.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_batch(tmp_path: Path, clip: HuggingFaceDual) -> None:
    with pytest.raises(UnreadableFile, match=r"nowhere: no such folder; give the folder of a Hugging Face"):
        HuggingFaceDual.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="batch must be at least 1, got 0"):
        HuggingFaceDual(clip.network, clip.tokenizer, clip.settings, clip.space, batch=0)


def test_the_revision_of_a_folder_is_checked(folder: Path) -> None:
    revision = HuggingFaceDual.load(folder).space.revision
    assert HuggingFaceDual.load(folder, revision=revision[:7]).space.revision == revision
    with pytest.raises(EncoderError, match=rf"its revision is {revision}, asked for beef"):
        HuggingFaceDual.load(folder, revision="beef")


def test_missing_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"'torch' is not installed; run: pip install 'crossfade\[hf\]'"):
        HuggingFaceDual.load(folder)


# --- the Hub ----------------------------------------------------------------------------------

COMMIT = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"


@pytest.fixture
def snapshot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The Hub's client, answering from a cache; remembers what it was asked for."""
    cache = folder.parent / "models--org--small-clip" / "snapshots" / COMMIT
    cache.parent.mkdir(parents=True)
    folder.rename(cache)
    asked: list[dict[str, Any]] = []

    def answer(name: str, **options: Any) -> str:
        asked.append({"name": name, **options})
        if name != "org/small-clip" or options["revision"] == "none":
            raise RuntimeError("404 and\nmuch more")
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    return asked


def test_the_commit_is_recorded(snapshot: list[dict[str, Any]]) -> None:
    dual = HuggingFaceDual.load("org/small-clip", revision="refs/pr/2")
    assert dual.space == Space("org/small-clip", 12, normalized=True, revision=COMMIT)
    assert snapshot == [{"name": "org/small-clip", "revision": "refs/pr/2", "allow_patterns": list(WANTED)}]
    assert not any(pattern.endswith((".bin", ".py", ".pt", ".h5", "*")) for pattern in WANTED)


def test_a_folder_of_the_hubs_cache_is_that_model(snapshot: list[dict[str, Any]], tmp_path: Path) -> None:
    found = next(tmp_path.glob("models--*/snapshots/*"))
    assert HuggingFaceDual.load(found).space == HuggingFaceDual.load("org/small-clip").space


@pytest.mark.parametrize("spec", ["org/other", "org/small-clip@none"])
def test_what_the_hub_does_not_give(snapshot: list[dict[str, Any]], spec: str) -> None:
    with pytest.raises(
        EncoderError, match=rf"{spec}: neither a folder nor .* \(RuntimeError\); check"
    ) as caught:
        open_encoder(f"hf:{spec}#text")
    assert "\n" not in str(caught.value)


# --- specifications ---------------------------------------------------------------------------


def test_specification(folders: dict[str, Path]) -> None:
    image, text = (open_encoder(f"hf:{folders['clip']}#{tower}") for tower in ("image", "text"))
    assert image.space == text.space
    assert image.encode(PICTURES).shape == (3, 12)
    assert text.encode(TEXTS).shape == (4, 12)
    assert image.dual is text.dual  # type: ignore[attr-defined]  # one model in memory for both


def test_specification_with_revision(snapshot: list[dict[str, Any]]) -> None:
    assert open_encoder("hf:org/small-clip@refs/pr/2#image").space.revision == COMMIT
    assert snapshot[-1]["revision"] == "refs/pr/2"


def test_an_at_in_the_name_of_a_folder(folder: Path) -> None:
    other = folder.rename(folder.with_name("clip@home"))
    assert open_encoder(f"hf:{other}#text").space.model == "clip@home"


def test_a_changed_folder_is_read_again(folder: Path) -> None:
    before = open_encoder(f"hf:{folder}#text")
    write_clip(folder, seed=9)
    assert open_encoder(f"hf:{folder}#text").space.revision != before.space.revision


@pytest.mark.parametrize("spec", ["hf:somewhere", "hf:somewhere#sound", "hf:#text"])
def test_the_tower_must_be_named(spec: str) -> None:
    with pytest.raises(UsageError, match="write hf:NAME_OR_DIR#image or hf:NAME_OR_DIR#text"):
        open_encoder(spec)


# --- the published configurations -------------------------------------------------------------

B32 = {
    "architectures": ["CLIPModel"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 512,
    "text_config": {
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 512,
        "intermediate_size": 2048,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
        "pad_token_id": 1,
        "vocab_size": 49408,
    },
    "vision_config": {
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "image_size": 224,
        "intermediate_size": 3072,
        "model_type": "clip_vision_model",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "patch_size": 32,
    },
}


def _resized(dimension: int, text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    return {
        **B32,
        "projection_dim": dimension,
        "text_config": {**B32["text_config"], **text},  # type: ignore[dict-item]
        "vision_config": {**B32["vision_config"], **vision},  # type: ignore[dict-item]
    }


L14 = _resized(
    768,
    {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
)
H14 = _resized(
    1024,
    {
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    },
    {
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
    },
)


def _network(config: dict[str, Any]) -> DualNetwork:
    model = transformers.CLIPModel(transformers.CLIPConfig(**config))
    return DualNetwork(model, PictureSettings()).eval()


@pytest.mark.parametrize(
    ("config", "dimension", "patches", "millions"),
    [(L14, 768, 256, 428), (H14, 1024, 256, 986)],
    ids=["clip-vit-large-patch14", "CLIP-ViT-H-14"],
)
def test_large_configurations(config: dict[str, Any], dimension: int, patches: int, millions: int) -> None:
    with torch.device("meta"):
        network = _network(config)
        images = network.image_features(torch.zeros(2, 3, 224, 224))
        texts = network.model.text_model.embeddings(torch.zeros(3, 77, dtype=torch.int64))
    assert (network.dimension, network.image_size, network.context_length) == (dimension, 224, 77)
    assert (images.shape, texts.shape) == ((2, dimension), (3, 77, config["text_config"]["hidden_size"]))
    assert network.model.text_projection.out_features == dimension
    assert round(sum(value.numel() for value in network.parameters()) / 1e6) == millions
    model = network.model
    embedded = model.vision_model.embeddings(torch.zeros(1, 3, 224, 224, device="meta"))
    assert embedded.shape == (1, patches + 1, config["vision_config"]["hidden_size"])
    layers = [model.vision_model.encoder.layers, model.text_model.encoder.layers]
    assert [len(layer) for layer in layers] == [
        config[tower]["num_hidden_layers"] for tower in ("vision_config", "text_config")
    ]
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        assert all(hasattr(layer[-1].self_attn, name) for layer in layers)
    assert isinstance(model.text_model.embeddings.token_embedding, torch.nn.Embedding)


def test_clip_vit_base_patch32_for_real(clip: HuggingFaceDual) -> None:
    """The whole of it, but for the values of its weights."""
    with torch.device("meta"):
        network = _network(B32)
    network.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for values in network.parameters():
            values.uniform_(-0.03, 0.03)
        for module in network.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
    for embeddings in (network.model.text_model.embeddings, network.model.vision_model.embeddings):
        embeddings.position_ids.copy_(torch.arange(embeddings.position_ids.shape[1])[None])
    network.mean.copy_(torch.tensor(PictureSettings().mean).view(1, 3, 1, 1))
    network.std.copy_(torch.tensor(PictureSettings().std).view(1, 3, 1, 1))

    tokenizer = clip.tokenizer
    dual = HuggingFaceDual(network, tokenizer, PictureSettings(), Space("b32", 512, normalized=True))
    assert sum(value.numel() for value in network.parameters()) == 151_277_313
    images, texts = dual.image.encode(PICTURES[:2]), dual.text.encode(TEXTS[:2])
    assert images.shape == texts.shape == (2, 512)
    assert max(images[0] @ images[1], texts[0] @ texts[1]) < 1 - 1e-4
