"""The tokenizer of a dual encoder: texts to tokens, and how many of them were cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.encoders.base import require_texts
from crossfade.encoders.hub import read_json
from crossfade.encoders.quiet import quiet_transformers
from crossfade.errors import MissingExtra, UnreadableFile
from crossfade.extras import installed, load

if TYPE_CHECKING:
    from crossfade.encoders.dual_network import Tokens

FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
SIGMOID = ("siglip", "siglip2")
LEGACY_END = 2  # what the first CLIP configurations called the end of a text, wrongly
_NO_LIMIT = 10**9


class TextReader:
    """Texts to the tokens that a model was trained on.

    Args:
        tokenizer: of transformers.
        config: the model's configuration.
        positions: most tokens of a text that the model has positions for.

    Raises:
        UnreadableFile: the tokenizer is of another model.

    Attributes:
        context_length: most tokens of a text; the rest is cut.
    """

    def __init__(self, tokenizer: Any, config: Any, positions: int) -> None:
        self.tokenizer = tokenizer
        # Sigmoid models look at the padding, and are trained on texts filled up to the context.
        self._filled = config.model_type in SIGMOID
        self._masked = "attention_mask" in tokenizer.model_input_names and not self._filled
        limit = tokenizer.model_max_length
        self.context_length = min(positions, limit) if limit and limit < _NO_LIMIT else positions
        if not self._filled:
            tokenizer.padding_side = "right"
        _require_fit(tokenizer, config)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """(n, L) tokens, L the longest text's length, or always the context's for sigmoid models.

        Raises:
            UsageError: an item is no string.
        """
        torch = load("torch", "hf")
        from crossfade.encoders.dual_network import Tokens

        items = require_texts(texts, "a dual encoder")
        if not items:
            empty = torch.zeros((0, self.context_length), dtype=torch.int64)
            return Tokens(empty, empty)
        options = {
            "padding": "max_length" if self._filled else "longest",
            "truncation": True,
            "max_length": self.context_length,
        }
        read = self.tokenizer(items, **options, return_attention_mask=True, return_tensors="pt")
        ids = read["input_ids"]
        mask = read["attention_mask"] if self._masked else torch.ones_like(ids)
        return Tokens(ids, mask, self._truncated(read, items))

    def _truncated(self, read: Any, items: list[str]) -> int:
        if read.encodings is not None:
            return sum(bool(encoding.overflowing) for encoding in read.encodings)
        with quiet_transformers():  # it would warn of the very texts that are counted here
            whole = self.tokenizer(items, return_attention_mask=False)["input_ids"]
        return sum(len(ids) > self.context_length for ids in whole)


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model folder.

    Raises:
        UnreadableFile: there is none, or it is broken.
        MissingExtra: it is a sentencepiece model, and that library is not installed.
    """
    transformers = load("transformers", "hf")
    if not any((folder / name).is_file() for name in FILES):
        raise UnreadableFile(
            f"{folder}: has no tokenizer ({', '.join(FILES[:3])}, ...); copy it from the model's source"
        )
    kind = _tokenizer_class(folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            return getattr(transformers, kind).from_pretrained(str(folder), **options)
    except Exception as error:  # tokenizers' own errors have no class but Exception
        reason = (str(error).splitlines() or [""])[0]
        raise UnreadableFile(
            f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {reason}); copy it again"
        ) from None


def _tokenizer_class(folder: Path) -> str:
    """The class to read it with; AutoTokenizer, but for SigLIP.

    SigLIP's own files come as sentencepiece and as tokenizer.json; the latter is taken where it is there,
    so that the tokens do not depend on what is installed. SigLIP 2's name Gemma's tokenizer, which lacks
    the lower case that the model was trained on.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") not in SIGMOID:
        return "AutoTokenizer"
    path = folder / "tokenizer_config.json"
    named = str(read_json(path).get("tokenizer_class", "")) if path.is_file() else ""
    if (folder / "tokenizer.json").is_file():
        gemma = named.startswith(("Gemma", "Siglip2")) or config["model_type"] == "siglip2"
        return "Siglip2Tokenizer" if gemma else "PreTrainedTokenizerFast"
    if not installed("sentencepiece"):
        raise MissingExtra(
            f"{folder}: its tokenizer is a sentencepiece model; run: pip install sentencepiece protobuf"
        )
    return "AutoTokenizer"


def _require_fit(tokenizer: Any, config: Any) -> None:
    text = config.text_config
    if len(tokenizer) > text.vocab_size:
        raise UnreadableFile(
            f"the tokenizer has {len(tokenizer)} tokens, the model {text.vocab_size}; "
            "it is another model's: copy the right one"
        )
    # CLIP reads the vector of a text where its end is: without one, every text would get the same.
    end = text.eos_token_id if config.model_type == "clip" else LEGACY_END
    if end not in (LEGACY_END, tokenizer.eos_token_id):
        raise UnreadableFile(
            f"the tokenizer ends a text by token {tokenizer.eos_token_id}, the model looks for {end}; "
            "it is another model's: copy the right one"
        )
