"""Specifications of encoders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crossfade.encoders import CallableEncoder, open_encoder
from crossfade.encoders.openai import OpenAIEncoder
from crossfade.errors import SpaceMismatch, UnknownSpace, UnreadableFile, UsageError
from crossfade.spaces import Space

MODULE = """
from crossfade.encoders import CallableEncoder
from crossfade.spaces import Space

SPACE = Space("mine", 2)

def plain(items):
    return [[len(item), 1.0] for item in items]

def spaced(items):
    return plain(items)

spaced.space = SPACE
ready = CallableEncoder(plain, SPACE)

class Own(CallableEncoder):
    def __init__(self):
        super().__init__(plain, SPACE)

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_encoders.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "my_encoders", raising=False)
    return "my_encoders"


@pytest.mark.parametrize("attribute", ["spaced", "ready", "Own"])
def test_python_that_knows_its_space(module: str, attribute: str) -> None:
    encoder = open_encoder(f"python:{module}:{attribute}")
    assert encoder.space == Space("mine", 2)
    assert encoder.encode(["abc"]).tolist() == [[3, 1]]


def test_a_plain_function_needs_a_space(module: str) -> None:
    with pytest.raises(
        UnknownSpace, match=r"my_encoders:plain is a plain function .* set its attribute 'space'"
    ):
        open_encoder(f"python:{module}:plain")
    assert isinstance(open_encoder(f"python:{module}:plain", space=Space("m", 2)), CallableEncoder)


def test_another_space_than_asked_for(module: str) -> None:
    with pytest.raises(SpaceMismatch, match=r"expected theirs \(2-d, cosine\), got mine \(2-d, cosine\)"):
        open_encoder(f"python:{module}:ready", space=Space("theirs", 2))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:my_encoders", "write python:MODULE:ATTRIBUTE"),
        ("python:my_encoders:none", "module 'my_encoders' has no attribute 'none'"),
        ("python:my_encoders:number", "is int; it must be an encoder or a function"),
        ("python:no_such_module:x", "there is no module 'no_such_module'"),
        ("python:my_encoders.sub:x", r"there is no module 'my_encoders\.sub'"),
    ],
)
def test_python_mistakes(module: str, spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_encoder(spec)


@pytest.mark.parametrize("spec", ["minilm", "hub:minilm", "onnx:", "", "sentence-transformers"])
def test_other_forms_list_the_known_ones(spec: str) -> None:
    with pytest.raises(
        UsageError, match=r"write onnx:DIR#image.*python:MODULE.*sentence-transformers:NAME.*openai:"
    ):
        open_encoder(spec)


@pytest.mark.parametrize("spec", ["onnx:model", "onnx:model#sound", "onnx:#text"])
def test_onnx_needs_a_tower(spec: str) -> None:
    with pytest.raises(UsageError, match="write onnx:DIR#image or onnx:DIR#text"):
        open_encoder(spec)


def test_onnx_directory_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile):
        open_encoder(f"onnx:{tmp_path}/none#text")


@pytest.mark.parametrize(
    ("spec", "model", "url"),
    [
        ("openai:m@http://127.0.0.1:9/v1", "m", "http://127.0.0.1:9/v1/embeddings"),
        ("openai:m@http://127.0.0.1:9", "m", "http://127.0.0.1:9/v1/embeddings"),
        ("openai:@org/m@http://h/v1/embeddings", "@org/m", "http://h/v1/embeddings"),
        ("openai:text-embedding-3-small", "text-embedding-3-small", "https://api.openai.com/v1/embeddings"),
    ],
)
def test_openai(spec: str, model: str, url: str) -> None:
    encoder = open_encoder(spec, space=Space("m", 3))
    assert isinstance(encoder, OpenAIEncoder)
    assert (encoder.model, encoder.url) == (model, url)
