from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_duals import KINDS, save_tiny_dual, tiny_captions, tiny_pictures

from crossfade.adapters.procrustes import Procrustes
from crossfade.encoders import open_encoder
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.encoders.tuned import TunedDual
from crossfade.encoders.tuned_network import TunedNetwork
from crossfade.encoders.tuning import LowRank, Prompts, Tuning
from crossfade.errors import (
    DimensionMismatch,
    EncoderError,
    NotSupported,
    SpaceMismatch,
    UnknownSpace,
    UnreadableFile,
    UsageError,
    WrongDirection,
)
from crossfade.spaces import Space

OLD = Space("old", 16, normalized=True)
PICTURES, TEXTS = tiny_pictures(5), tiny_captions(7)
NO_LOW_RANK, NO_PROMPTS = LowRank(image=False, text=False), Prompts(0, 0)


def projection(source: Space, target: Space = OLD) -> Procrustes:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, source.dimension)).astype(np.float32)
    Y = X[:, : target.dimension] + 0.1 * rng.standard_normal((100, target.dimension)).astype(np.float32)
    return Procrustes().fit(X, Y, source=source, target=target)


def disturb(parts: TunedNetwork, seed: int = 1) -> None:
    """As if it had been trained: every tuned number is another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parts.tuned().values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def tuned_dual(folder: Path, tuning: Tuning | None = None, *, disturbed: bool = True) -> TunedDual:
    base = HuggingFaceDual.load(folder, device="cpu")
    parts = TunedNetwork(base.network, tuning or Tuning())
    if disturbed:
        disturb(parts)
    return TunedDual(base, parts, projection(base.space), location=folder)


def embedded(dual) -> tuple[np.ndarray, np.ndarray]:
    return dual.image.encode(PICTURES), dual.text.encode(TEXTS)


def same(first, second) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def weights(model: torch.nn.Module) -> dict[str, str]:
    """A hash of every base weight, by its name without PEFT's additions."""
    return {
        name.replace(".base_layer", ""): hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()
        for name, value in model.state_dict().items()
        if "lora_" not in name
    }


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dual(tmp_path_factory.mktemp("models") / f"tiny-{request.param}", request.param)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dual(tmp_path_factory.mktemp("clip") / "tiny")


def test_switched_off_it_is_the_new_model_to_the_bit(folder: Path, tmp_path: Path) -> None:
    own = embedded(HuggingFaceDual.load(folder, device="cpu"))
    dual = tuned_dual(folder, disturbed=False)
    assert same(embedded(dual.off()), own)
    disturb(dual.parts)
    before = embedded(dual)
    assert same(embedded(dual.off()), own)
    assert dual.off().space == HuggingFaceDual.load(folder, device="cpu").space
    assert same(embedded(dual), before)  # off ends with the call
    dual.save(tmp_path / "xbt")
    loaded = TunedDual.load(tmp_path / "xbt", device="cpu")
    assert same(embedded(loaded.off()), own)
    assert same(embedded(loaded), before)
    base = HuggingFaceDual.load(folder, device="cpu")
    for tuned, plain in zip(before, own, strict=True):
        assert np.abs(tuned - projection(base.space).transform(plain)).max() > 0.01


def test_it_embeds_into_the_old_space_through_phi(clip: Path, tmp_path: Path) -> None:
    dual = tuned_dual(clip)
    images, texts = embedded(dual)
    assert dual.space == OLD
    assert images.shape == (5, 16)
    new = dual._base.embed_pictures(PICTURES)
    np.testing.assert_array_equal(images, dual.projection.transform(new))
    dual.save(tmp_path / "xbt")
    for tower, items, wanted in (("image", PICTURES, images), ("text", TEXTS, texts)):
        encoder = open_encoder(f"xbt:{tmp_path / 'xbt'}#{tower}")
        assert encoder.space == OLD
        np.testing.assert_array_equal(encoder.encode(items), wanted)


def test_pixels_and_tokens_embed_alike(clip: Path) -> None:
    dual = tuned_dual(clip)
    pixels = HuggingFaceDual.load(clip, device="cpu").decode(PICTURES)
    images, texts = embedded(dual)
    np.testing.assert_array_equal(dual.encode_pictures(pixels), images)
    np.testing.assert_array_equal(dual.encode_tokens(dual.tokenize(TEXTS)), texts)
    off = dual.off()
    np.testing.assert_array_equal(off.encode_pictures(pixels), embedded(off)[0])


def test_the_base_weights_stay_what_they_are(folder: Path, tmp_path: Path) -> None:
    base = HuggingFaceDual.load(folder, device="cpu")
    before = weights(base.network.model)
    dual = tuned_dual(folder)
    dual.image.encode(PICTURES)
    dual.merge()
    dual.save(tmp_path / "xbt")
    assert weights(dual.parts.network.model) == before
    written = load_file(tmp_path / "xbt" / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in written)
    assert not list((tmp_path / "xbt").rglob("*.bin")) + list((tmp_path / "xbt").rglob("*.pt"))


@pytest.mark.parametrize(
    ("tuning", "changes"),
    [
        (Tuning(LowRank(text=False), NO_PROMPTS), (True, False)),
        (Tuning(LowRank(image=False), NO_PROMPTS), (False, True)),
        (Tuning(NO_LOW_RANK, Prompts(image=3, text=0)), (True, False)),
        (Tuning(NO_LOW_RANK, Prompts(image=0, text=3)), (False, True)),
        (Tuning(LowRank(), NO_PROMPTS), (True, True)),
    ],
)
def test_each_part_can_be_left_out_per_tower(
    folder: Path, tmp_path: Path, tuning: Tuning, changes: tuple[bool, bool]
) -> None:
    dual = tuned_dual(folder, tuning)
    own = [dual.projection.transform(vectors) for vectors in embedded(dual.off())]
    found = embedded(dual)
    assert tuple(not np.array_equal(a, b) for a, b in zip(found, own, strict=True)) == changes
    towers = {"vision_model" if "vision" in name else "text_model" for name in dual.parts.tuned()}
    if tuning.low_rank.towers:
        assert len(towers) == sum(changes)
    dual.save(tmp_path / "xbt")
    assert same(embedded(TunedDual.load(tmp_path / "xbt", device="cpu")), found)
    assert (tmp_path / "xbt" / "adapter").exists() == bool(tuning.low_rank.towers)


def test_low_rank_updates_are_on_every_projection_of_attention(folder: Path) -> None:
    parts = tuned_dual(folder).parts
    places = {name.partition(".lora_")[0] for name in parts.tuned() if "lora_" in name}
    assert len(places) == 2 * 2 * 4  # towers, layers, projections; not SigLIP's pooling
    assert not [place for place in places if ".head." in place]
    trained = {name for name, value in parts.named_parameters() if value.requires_grad}
    assert trained == set(parts.tuned())


def test_merged_is_the_same_encoder(folder: Path, tmp_path: Path) -> None:
    dual = tuned_dual(folder)
    found = embedded(dual)
    merged = dual.merge()
    for a, b in zip(embedded(merged), found, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert not [name for name in merged.parts.state_dict() if "lora_" in name]
    assert same(embedded(dual), found)
    with pytest.raises(NotSupported, match="merged"):
        merged.off()
    merged.save(tmp_path / "merged")
    shutil.move(tmp_path / "merged", tmp_path / "elsewhere")
    loaded = TunedDual.load(tmp_path / "elsewhere", device="cpu")
    assert same(embedded(loaded), embedded(merged))
    assert loaded.space == OLD
    assert loaded.base_space == dual.base_space
    with pytest.raises(NotSupported, match="merged"):
        loaded.off()


def test_a_fresh_low_rank_update_adds_nothing(clip: Path) -> None:
    dual = tuned_dual(clip, Tuning(LowRank(), NO_PROMPTS), disturbed=False)
    own = [dual.projection.transform(vectors) for vectors in embedded(dual.off())]
    assert same(embedded(dual), own)


def test_the_seed_decides_the_start(clip: Path) -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        base = HuggingFaceDual.load(clip, device="cpu")
        parts = TunedNetwork(base.network, Tuning(), seed=seed).tuned()
        return {name: value.detach().clone() for name, value in parts.items()}

    state = torch.random.get_rng_state()
    first, again, other = start(1), start(1), start(2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_phi_of_another_pair_is_refused_with_both_spaces(clip: Path) -> None:
    base = HuggingFaceDual.load(clip, device="cpu")
    parts = TunedNetwork(base.network, Tuning())
    other = Space("somebody-else", 24, normalized=True, revision="abc")
    with pytest.raises(SpaceMismatch, match=rf"somebody-else@abc.*got {base.space.model}@"):
        TunedDual(base, parts, projection(other), location=clip)
    with pytest.raises(DimensionMismatch, match="expected 32"):
        TunedDual(base, parts, projection(Space("wide", 32)), location=clip)
    with pytest.raises(WrongDirection, match="other direction"):
        TunedDual(base, parts, projection(Space("x", 30), base.space), location=clip)
    plain = np.random.default_rng(0).standard_normal((100, 24)).astype(np.float32)
    unnamed = Procrustes().fit(plain, plain)
    with pytest.raises(UnknownSpace, match="plain arrays"):
        TunedDual(base, parts, unnamed, location=clip)


def test_another_base_is_refused(clip: Path, tmp_path: Path) -> None:
    dual = tuned_dual(clip)
    dual.save(tmp_path / "xbt")
    other = save_tiny_dual(tmp_path / "tiny", seed=5)
    with pytest.raises((SpaceMismatch, EncoderError), match="tiny"):
        TunedDual.load(tmp_path / "xbt", base=other)
    config = tmp_path / "xbt" / "config.json"
    values = json.loads(config.read_text())
    values["base"] |= {"location": "/gone/model", "relative": "../gone"}
    config.write_text(json.dumps(values))
    with pytest.raises(UnreadableFile, match="neither at /gone/model nor at"):
        TunedDual.load(tmp_path / "xbt")
    assert same(embedded(TunedDual.load(tmp_path / "xbt", base=clip, device="cpu")), embedded(dual))


def test_base_and_tuned_parts_may_move_together(tmp_path: Path) -> None:
    dual = tuned_dual(save_tiny_dual(tmp_path / "here" / "new"))
    dual.save(tmp_path / "here" / "xbt")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert same(embedded(TunedDual.load(tmp_path / "there" / "xbt", device="cpu")), embedded(dual))


def test_damaged_folders_are_named(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="crossfade train xbt has finished"):
        TunedDual.load(tmp_path)
    dual = tuned_dual(clip)
    folder = tmp_path / "xbt"
    dual.save(folder)
    adapter, prompts = folder / "adapter" / "adapter_model.safetensors", folder / "prompts.safetensors"
    whole = adapter.read_bytes(), prompts.read_bytes()
    adapter.write_bytes(whole[0][:100])
    with pytest.raises(UnreadableFile, match="not an adapter of this model"):
        TunedDual.load(folder)
    adapter.unlink()
    with pytest.raises(UnreadableFile, match=r"adapter_model\.safetensors is missing"):
        TunedDual.load(folder)
    adapter.write_bytes(whole[0])
    prompts.unlink()
    with pytest.raises(UnreadableFile, match="prompts"):
        TunedDual.load(folder)
    save_file({"image": torch.zeros(1, 2)}, prompts)
    with pytest.raises(UsageError, match="holds prompts"):
        TunedDual.load(folder)
    prompts.write_bytes(whole[1])
    config = folder / "config.json"
    config.write_text(json.dumps({"format": "something"}))
    with pytest.raises(UnreadableFile, match="'something'"):
        TunedDual.load(folder)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"low_rank\.image=false"):
        LowRank(rank=0)
    with pytest.raises(UsageError, match="dropout"):
        LowRank(dropout=1.0)


def test_layers_of_other_names_are_asked_for(clip: Path) -> None:
    base = HuggingFaceDual.load(clip, device="cpu")
    with pytest.raises(NotSupported, match=r"no layers named query; .* among: .*q_proj"):
        TunedNetwork(base.network, Tuning(LowRank(modules=("query",))))
