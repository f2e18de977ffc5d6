from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossfade.encoders import open_encoder
from crossfade.encoders.architecture import Architecture
from crossfade.encoders.backbones import build_backbone
from crossfade.encoders.network import EmbeddingNetwork, center_view
from crossfade.encoders.pictures import decode_picture
from crossfade.encoders.trained import TrainedEncoder, read_notes, save_trained
from crossfade.errors import (
    DataError,
    DimensionMismatch,
    MissingExtra,
    NotSupported,
    SpaceMismatch,
    UnreadableFile,
    UsageError,
)
from crossfade.spaces import Space

TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 4,
}
BACKBONES = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 24], "depths": [1, 1], "layer_type": "basic"},
    "convnext": {"patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 24], "depths": [1, 1]},
    "vit": TRANSFORMER,
    "dinov2": {key: value for key, value in TRANSFORMER.items() if key != "intermediate_size"},
}
WIDTHS = {"resnet": 24, "convnext": 24, "vit": 16, "dinov2": 16}


def _architecture(backbone: str = "resnet", **changes: object) -> Architecture:
    values = {"picture_size": 16, "input_size": 8, "dimension": 12, "config": BACKBONES.get(backbone, {})}
    return Architecture(backbone=backbone, **{**values, **changes})  # type: ignore[arg-type]


def _pictures(count: int = 3, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _saved(folder: Path, **changes: object) -> EmbeddingNetwork:
    torch.manual_seed(0)
    network = EmbeddingNetwork(_architecture(**changes)).eval()
    save_trained(network, folder, name="tiny", metric="l2", notes={"classes": ["a", "b"]})
    return network


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_embeds_and_comes_back_from_its_folder(backbone: str, tmp_path: Path) -> None:
    network = _saved(tmp_path, backbone=backbone, config=BACKBONES[backbone])
    assert network.backbone.width == WIDTHS[backbone]
    encoder = TrainedEncoder.load(tmp_path, device="cpu")
    pictures = _pictures()
    expected = network.embed(torch.from_numpy(pictures)).numpy()
    assert expected.shape == (3, 12)
    np.testing.assert_array_equal(encoder.encode_pictures(pictures), expected)
    np.testing.assert_array_equal(encoder.encode([_png(one) for one in pictures]), expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_weight_of_a_backbone_learns(backbone: str) -> None:
    network = EmbeddingNetwork(_architecture(backbone))
    network(torch.rand(4, 3, 8, 8)).square().sum().backward()
    idle = [name for name, one in network.named_parameters() if one.grad is None]
    assert [name for name in idle if "mask_token" not in name] == []


def test_the_space_has_name_metric_and_a_hash_of_the_content(tmp_path: Path) -> None:
    network = _saved(tmp_path / "a")
    space = TrainedEncoder.load(tmp_path / "a").space
    assert (space.model, space.dimension, space.metric, space.normalized) == ("tiny", 12, "l2", False)
    same = save_trained(network, tmp_path / "b", name="tiny", metric="l2")
    assert same == space
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    other = save_trained(network, tmp_path / "c", name="tiny", metric="l2")
    with pytest.raises(SpaceMismatch, match="same dimension but another space"):
        space.require_same(other, "gallery")
    assert read_notes(tmp_path / "a")["classes"] == ["a", "b"]


def test_normalized_embeddings_have_unit_length(tmp_path: Path) -> None:
    _saved(tmp_path, normalized=True)
    encoder = TrainedEncoder.load(tmp_path)
    assert encoder.space.normalized
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_pictures(_pictures()), axis=1), 1, rtol=1e-6)


def test_open_encoder_knows_trained_models(tmp_path: Path) -> None:
    _saved(tmp_path)
    encoder = open_encoder(f"trained:{tmp_path}")
    assert isinstance(encoder, TrainedEncoder)
    assert encoder.encode([]).shape == (0, 12)
    with pytest.raises(SpaceMismatch):
        open_encoder(f"trained:{tmp_path}", space=Space("other", 12))


def test_batches_do_not_change_the_vectors(tmp_path: Path) -> None:
    _saved(tmp_path)
    pictures = _pictures(7)
    whole = TrainedEncoder.load(tmp_path).encode_pictures(pictures)
    np.testing.assert_allclose(
        TrainedEncoder.load(tmp_path, batch=2).encode_pictures(pictures), whole, atol=1e-6
    )


@pytest.mark.parametrize("damage", ["no config", "no weights", "cut weights", "other weights", "old format"])
def test_a_damaged_folder_is_an_error(damage: str, tmp_path: Path) -> None:
    _saved(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    if damage == "no config":
        config.unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "old format":
        config.write_text(json.dumps({**json.loads(config.read_text()), "format": 0}))
    else:
        values = json.loads(config.read_text())
        values["architecture"]["config"]["hidden_sizes"] = [8, 32]
        config.write_text(json.dumps(values))
    with pytest.raises(UnreadableFile, match=str(tmp_path)):
        TrainedEncoder.load(tmp_path)


def test_a_broken_picture_is_named_by_its_place(tmp_path: Path) -> None:
    _saved(tmp_path)
    good = _png(_pictures(1)[0])
    with pytest.raises(DataError, match="item 2 is not a readable picture"):
        TrainedEncoder.load(tmp_path, batch=2).encode([good, good, good[:60]])
    with pytest.raises(DataError, match="item 0 is str, expected the bytes of a picture"):
        TrainedEncoder.load(tmp_path).encode(["picture.png"])


def test_a_wide_picture_is_cut_to_its_middle() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    decoded = decode_picture(_png(wide), 10)
    assert decoded.shape == (10, 10, 3)
    assert (decoded == 200).all()
    palette = io.BytesIO()
    Image.fromarray(wide).convert("P").save(palette, "GIF")
    assert decode_picture(palette.getvalue(), 5).shape == (5, 5, 3)


def test_a_large_jpeg_is_close_to_the_exact_result() -> None:
    gradient = np.linspace(0, 255, 512).astype(np.uint8)
    large = np.stack([np.tile(gradient, (512, 1))] * 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "JPEG", quality=95)
    exact = np.asarray(Image.fromarray(large).resize((16, 16), Image.Resampling.BICUBIC))
    assert np.abs(decode_picture(buffer.getvalue(), 16).astype(int) - exact).max() <= 4


def test_the_center_view_is_the_middle_share() -> None:
    pictures = torch.from_numpy(_pictures(1, 16))
    view = center_view(pictures, Architecture(picture_size=16, input_size=8, crop=0.5))
    torch.testing.assert_close(view, pictures[:, 4:12, 4:12].permute(0, 3, 1, 2).float() / 255)


def test_a_small_stem_keeps_the_resolution() -> None:
    pixels = torch.rand(1, 3, 8, 8)
    small = build_backbone(_architecture(stem="small")).network.embedder(pixels)
    standard = build_backbone(_architecture()).network.embedder(pixels)
    assert small.shape == (1, 8, 8, 8)
    assert standard.shape == (1, 8, 2, 2)
    with pytest.raises(NotSupported, match="stem 'small' is for backbone 'resnet', got 'vit'"):
        build_backbone(_architecture("vit", stem="small"))


def test_features_as_embedding_need_their_own_width() -> None:
    network = EmbeddingNetwork(_architecture(head="features", dimension=24))
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 24)
    with pytest.raises(
        DimensionMismatch, match=r"backbone's 24 features, architecture.dimension is 12; set it to 24"
    ):
        EmbeddingNetwork(_architecture(head="features"))


@pytest.mark.parametrize(
    ("backbone", "config", "message"),
    [
        ("resnt", {}, "backbone 'resnt' is no model type of transformers"),
        (
            "resnet",
            {"hidden_size": [8]},
            "backbone 'resnet' has no option 'hidden_size'; did you mean 'hidden_sizes'",
        ),
    ],
)
def test_an_unknown_backbone_or_option_is_refused(backbone: str, config: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_backbone(_architecture(backbone, config=config))


def test_local_weights_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = build_backbone(_architecture()).eval()
    original.network.save_pretrained(tmp_path)
    torch.manual_seed(2)
    loaded = build_backbone(_architecture(), weights=tmp_path).eval()
    pixels = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded(pixels), original(pixels))
    with pytest.raises(UnreadableFile, match="no folder of weights"):
        build_backbone(_architecture(), weights=tmp_path / "absent")


def test_timm_is_used_when_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = _architecture("timm:tiny", config={"depth": 2})
    monkeypatch.setattr("crossfade.encoders.backbones.installed", lambda module: False)
    with pytest.raises(MissingExtra, match="pip install timm"):
        build_backbone(architecture)

    def create_model(name: str, *, pretrained: bool, num_classes: int, depth: int) -> torch.nn.Module:
        assert (name, pretrained, num_classes, depth) == ("tiny", False, 0, 2)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
        network.num_features = 5  # type: ignore[assignment]
        return network

    monkeypatch.setattr("crossfade.encoders.backbones.installed", lambda module: True)
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    assert EmbeddingNetwork(architecture)(torch.rand(2, 3, 8, 8)).shape == (2, 12)
