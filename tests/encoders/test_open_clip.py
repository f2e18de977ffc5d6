"""open_clip's encoders, with a stand-in of the same API (the library needs torchvision)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from small_duals import picture

from crossfade.encoders import open_encoder
from crossfade.encoders.open_clip import OpenClipDual
from crossfade.errors import DataError, EncoderError, MissingExtra, UsageError
from crossfade.spaces import Space

CONTEXT, SIDE = 6, 4


class Model(torch.nn.Module):
    """Linear towers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.visual = torch.nn.Parameter(torch.randn(3 * SIDE * SIDE, 5, generator=generator))
        self.words = torch.nn.Parameter(torch.randn(100, 5, generator=generator))

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[1:] == (3, SIDE, SIDE)
        return pixels.flatten(1) @ self.visual

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.shape[1] == CONTEXT
        return self.words[tokens].sum(dim=1)


class SimpleTokenizer:
    """Letters between 98 and 99, filled up by 0, as open_clip's own tokenizer."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 97 + 1 for letter in text]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        result = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
        for row, text in enumerate(texts):
            ids = [98, *self.encode(text), 99][:CONTEXT]
            ids[-1] = 99
            result[row, : len(ids)] = torch.tensor(ids)
        return result


class WrappedTokenizer(SimpleTokenizer):
    """As open_clip wraps a tokenizer of transformers."""

    encode = None  # type: ignore[assignment]

    def __init__(self) -> None:
        simple = SimpleTokenizer()
        self._call = simple
        self.tokenizer = lambda text: {"input_ids": [98, *simple.encode(text), 99]}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return self._call(texts)


def preprocess(image: Any) -> torch.Tensor:
    assert image.mode == "RGB"
    values = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float32) / 255 - 0.5
    return torch.from_numpy(values).permute(2, 0, 1)


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("open_clip")

    def create(name: str, pretrained: str | None = None) -> tuple[Model, Any, Any]:
        if name == "ViT-Z":
            raise RuntimeError("Model config for ViT-Z not found.\nmore")
        return Model(len(pretrained or "")), None, preprocess

    def get_tokenizer(name: str) -> SimpleTokenizer:
        return WrappedTokenizer() if "wrapped" in name else SimpleTokenizer()

    module.create_model_and_transforms = create  # type: ignore[attr-defined]
    module.get_tokenizer = get_tokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", module)
    monkeypatch.setattr("crossfade.encoders.open_clip.installed", lambda _: True)
    return module


def test_both_towers() -> None:
    image = open_encoder("open_clip:ViT-H-14@laion2b#image")
    text = open_encoder("open_clip:ViT-H-14@laion2b#text")
    space = Space("open_clip/ViT-H-14", 5, normalized=True, revision="laion2b")
    assert image.space == text.space == space

    contents = [picture((9, 7), seed) for seed in range(3)]
    model = Model(len("laion2b"))
    from io import BytesIO

    from PIL import Image

    opened = [preprocess(Image.open(BytesIO(content)).convert("RGB")) for content in contents]
    with torch.no_grad():
        images = torch.nn.functional.normalize(model.encode_image(torch.stack(opened))).numpy()
        texts = torch.nn.functional.normalize(model.encode_text(SimpleTokenizer()(["ab", "c"]))).numpy()
    np.testing.assert_allclose(image.encode(contents), images, atol=1e-6)
    np.testing.assert_allclose(text.encode(["ab", "c"]), texts, atol=1e-6)
    assert image.encode([]).shape == text.encode([]).shape == (0, 5)


@pytest.mark.parametrize("name", ["ViT-B-32", "wrapped-B-32"])
def test_long_texts_are_counted(name: str) -> None:
    dual = OpenClipDual.load(name, "tag", batch=2)
    dual.text.encode(["abcd", "abcde", "a", "abcdefgh"])
    assert dual.text.truncated == 2
    np.testing.assert_array_equal(dual.text.encode(["abcde"]), dual.text.encode(["abcdx"]))


def test_the_revision_of_weights_that_have_no_tag(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    from_file = OpenClipDual.load("ViT-B-32", str(tmp_path / "w.pt")).space.revision
    bundled = OpenClipDual.load("hf-hub:org/model").space.revision
    assert len(from_file) == len(bundled) == 12
    assert from_file != bundled


def test_faults() -> None:
    with pytest.raises(
        UsageError, match="'ViT-H-14' alone has random weights; write ARCHITECTURE@PRETRAINED"
    ):
        open_encoder("open_clip:ViT-H-14#text")
    with pytest.raises(EncoderError, match=r"cannot load ViT-Z@tag: Model config for ViT-Z not found\.; see"):
        open_encoder("open_clip:ViT-Z@tag#text")
    with pytest.raises(UsageError, match="batch must be at least 1, got 0"):
        OpenClipDual.load("ViT-B-32", "tag", batch=0)
    with pytest.raises(DataError, match="item 1 is not a readable picture"):
        OpenClipDual.load("ViT-B-32", "tag").image.encode([picture((5, 5)), b"no"])
    with pytest.raises(UsageError, match="item 0 is int"):
        OpenClipDual.load("ViT-B-32", "tag").text.encode([1])


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfade.encoders.open_clip.installed", lambda _: False)
    with pytest.raises(MissingExtra, match=r"run: pip install open_clip_torch \(it needs torchvision\)"):
        open_encoder("open_clip:ViT-H-14@laion2b#image")
