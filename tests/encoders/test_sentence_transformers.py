"""sentence-transformers, with a tiny model of random words; a stub where the library is absent."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from crossfade.encoders import open_encoder
from crossfade.encoders.sentence_transformers import SentenceTransformerEncoder
from crossfade.errors import DimensionMismatch, EncoderError, MissingExtra, NotSupported, UsageError
from crossfade.extras import installed
from crossfade.spaces import Space

WORDS = ["query:", "a", "red", "circle", "blue", "square", "[UNK]"]
needs_library = pytest.mark.skipif(
    not installed("sentence_transformers"), reason="sentence-transformers is not installed"
)


class Stub:
    """What the encoder uses of a model; remembers its calls."""

    similarity_fn_name = "cosine"

    def __init__(self, name: str, revision: str | None, device: str | None) -> None:
        if name == "none":
            raise OSError("none is not a local folder\nand more")
        self.opened = (name, revision, device)
        self.prompts: list[str] = []

    def children(self) -> list[Any]:
        return [object(), type("Normalize", (), {})()]

    def get_embedding_dimension(self) -> int:
        return 2

    def encode(self, texts: list[str], *, prompt: str, **_: Any) -> np.ndarray:
        self.prompts.append(prompt)
        return np.array([[3.0, 4.0 + len(text)] for text in texts])


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


@pytest.mark.usefixtures("stub")
def test_nothing_is_loaded_before_it_is_needed() -> None:
    encoder = SentenceTransformerEncoder("none")
    with pytest.raises(EncoderError, match="cannot load 'none': none is not a local folder; check the name"):
        encoder.encode(["a"])


@pytest.mark.usefixtures("stub")
def test_the_space_is_the_models() -> None:
    encoder = SentenceTransformerEncoder("m", revision="abc", prompt="query: ")
    assert encoder.space == Space("m", 2, normalized=True, revision="abc", prompt="query: ")


@pytest.mark.usefixtures("stub")
def test_older_versions_name_the_dimension_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Stub, "get_embedding_dimension")
    monkeypatch.setattr(Stub, "get_sentence_embedding_dimension", lambda _: 7, raising=False)
    assert SentenceTransformerEncoder("m").space.dimension == 7


@pytest.mark.usefixtures("stub")
def test_revision_and_prompt_reach_the_model() -> None:
    encoder = SentenceTransformerEncoder("m", revision="abc", prompt="query: ")
    encoder.encode(["x"])
    assert encoder._model.opened == ("m", "abc", None)
    assert encoder._model.prompts == ["query: "]


@pytest.mark.usefixtures("stub")
def test_a_given_space_decides_prompt_and_dimension() -> None:
    encoder = SentenceTransformerEncoder("m", space=Space("m", 5, prompt="p: "))
    with pytest.raises(DimensionMismatch, match=r"returned vectors of 2 dimensions, its space .* says 5"):
        encoder.encode(["x"])
    assert encoder._model.prompts == ["p: "]


@pytest.mark.usefixtures("stub")
def test_metrics_that_we_do_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "similarity_fn_name", "manhattan")
    with pytest.raises(NotSupported, match="compares by 'manhattan'; pass a space with cosine, dot or l2"):
        _ = SentenceTransformerEncoder("m").space


@pytest.mark.usefixtures("stub")
def test_items_must_be_texts() -> None:
    with pytest.raises(UsageError, match="item 1 is bytes"):
        SentenceTransformerEncoder("m").encode(["a", b"b"])
    assert SentenceTransformerEncoder("m").encode([]).shape == (0, 2)


@pytest.mark.usefixtures("stub")
def test_specification() -> None:
    encoder = open_encoder("sentence-transformers:org/m@v2")
    assert (encoder.space.model, encoder.space.revision) == ("org/m", "v2")


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[hf\]'"):
        SentenceTransformerEncoder("m")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean of random word vectors, saved as the library saves models."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    torch.manual_seed(0)
    modules = [StaticEmbedding(tokenizer, embedding_dim=8), Normalize()]
    folder = tmp_path_factory.mktemp("model")
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@needs_library
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_real_model(model_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformerEncoder(str(model_folder), prompt="query: ", device="cpu")
    texts = ["a red circle", "blue square", "a red circle"]

    vectors = encoder.encode(texts)

    assert encoder.space == Space(str(model_folder), 8, normalized=True, prompt="query: ")
    expected = SentenceTransformer(str(model_folder), device="cpu").encode(
        [f"query: {text}" for text in texts]
    )
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    without = SentenceTransformerEncoder(str(model_folder), device="cpu").encode(texts)
    assert np.abs(without - vectors).max() > 0.01
