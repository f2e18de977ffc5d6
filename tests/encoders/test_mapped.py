"""An encoder followed by an adapter."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from crossfade.adapters import Adapter, fit, make_adapter
from crossfade.encoders import CallableEncoder, open_encoder
from crossfade.encoders.mapped import MappedEncoder
from crossfade.errors import (
    DimensionMismatch,
    SpaceMismatch,
    UnknownSpace,
    UnreadableFile,
    UsageError,
    WrongDirection,
)
from crossfade.spaces import Space

NEW, OLD = Space("new", 4, normalized=True), Space("old", 3, normalized=True)
MODULE = """
import numpy as np

def embed(items):
    return np.array([[len(item), item.count("a"), item.count("b"), 1.0] for item in items])
"""


def embed(items: list[str]) -> np.ndarray:
    return np.array([[len(item), item.count("a"), item.count("b"), 1.0] for item in items])


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4)).astype(np.float32)
    Y = X @ rng.standard_normal((4, 3)).astype(np.float32)
    return make_adapter("procrustes").fit(X, Y, source=NEW, target=OLD)


@pytest.fixture
def folder(adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved adapter in a folder with a plus in its name, beside a module with an encoder."""
    (tmp_path / "my_mapped.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "my_mapped", raising=False)
    adapter.save_pretrained(tmp_path / "new+old")
    return tmp_path / "new+old"


def test_embeds_and_maps(adapter: Adapter) -> None:
    encoder = MappedEncoder(CallableEncoder(embed, NEW), adapter)
    items = ["abba", "banana", "c"]
    vectors = encoder.encode(items)
    assert encoder.space == OLD
    assert encoder.truncated == 0
    np.testing.assert_array_equal(vectors, adapter.transform(CallableEncoder(embed, NEW).encode(items)))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.encode([]).shape == (0, 3)


def test_specification(folder: Path, adapter: Adapter) -> None:
    encoder = open_encoder(f"mapped:{folder}+python:my_mapped:embed", space=OLD)
    expected = adapter.transform(CallableEncoder(embed, NEW).encode(["abba"]))
    np.testing.assert_allclose(encoder.encode(["abba"]), expected, atol=1e-6)
    with pytest.raises(SpaceMismatch, match="encoder mapped"):
        open_encoder(f"mapped:{folder}+python:my_mapped:embed", space=Space("older", 3, normalized=True))


def test_two_adapters(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((100, 3)).astype(np.float32)
    back = make_adapter("procrustes").fit(X, X[:, ::-1], source=OLD, target=Space("oldest", 3))
    back.save_pretrained(tmp_path / "older")
    encoder = open_encoder(f"mapped:{tmp_path / 'older'}+mapped:{folder}+python:my_mapped:embed")
    once = open_encoder(f"mapped:{folder}+python:my_mapped:embed").encode(["abba"])
    assert encoder.space == Space("oldest", 3)
    np.testing.assert_allclose(encoder.encode(["abba"]), back.transform(once), atol=1e-6)


def test_only_the_adapters_source_is_mapped(adapter: Adapter) -> None:
    with pytest.raises(SpaceMismatch, match="the encoder: same dimension but another space"):
        MappedEncoder(CallableEncoder(embed, Space("newer", 4)), adapter)
    with pytest.raises(DimensionMismatch, match=r"expected 4 dimensions of new .* got 5 of newer"):
        MappedEncoder(CallableEncoder(embed, Space("newer", 5)), adapter)
    with pytest.raises(WrongDirection, match="the encoder: already in old"):
        MappedEncoder(CallableEncoder(embed, OLD), adapter)


def test_spaces_must_be_known() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4)).astype(np.float32)
    plain = fit(X, X[:, :3], method="ridge")
    with pytest.raises(UnknownSpace, match="nothing says which space it maps into"):
        MappedEncoder(CallableEncoder(embed, NEW), plain)


@pytest.mark.parametrize("rest", ["adapter", "+python:a:b", "adapter+elsewhere:x", "adapter+python"])
def test_incomplete_specifications(rest: str) -> None:
    with pytest.raises(UsageError, match=r"write mapped:ADAPTER_DIR\+ENCODER"):
        open_encoder(f"mapped:{rest}")


def test_no_adapter_there(folder: Path) -> None:
    with pytest.raises(UnreadableFile, match="nothing"):
        open_encoder(f"mapped:{folder / 'nothing'}+python:my_mapped:embed")
