"""A tokenizer of its own for a dual encoder: byte-level BPE, trained on the captions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crossfade.errors import UsageError
from crossfade.extras import load

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
BYTES = 256
SPECIAL = 2


def train_tokenizer(
    captions: Iterable[str], *, vocabulary: int, context_length: int, lowercase: bool = True
) -> Any:
    """A tokenizer of transformers that writes any text as BEGIN, its tokens, END.

    Byte-pair encoding (Sennrich et al., ACL 2016) on bytes, as CLIP's: what was never seen is spelled out,
    nothing is unknown. END has the largest number, so that models that look for the largest find it, and
    pads as well. The same captions in the same order give the same tokenizer.

    Args:
        captions: what its words are learned from.
        vocabulary: most tokens, bytes and the two special ones included.
        context_length: most tokens of a text, the special ones included; longer texts are cut.
        lowercase: whether capitals are read as small letters.

    Raises:
        UsageError: a vocabulary that has no room for the bytes, a context that has none for a token.
        MissingExtra: tokenizers is not installed.
    """
    if vocabulary < BYTES + SPECIAL or context_length < SPECIAL + 1:
        raise UsageError(
            f"a tokenizer needs a vocabulary of at least {BYTES + SPECIAL} and a context of at least "
            f"{SPECIAL + 1} tokens, got {vocabulary} and {context_length}"
        )
    tokenizers, transformers = load("tokenizers", "train"), load("transformers", "train")
    tokenizer = _untrained(tokenizers, lowercase)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary - SPECIAL,
        min_frequency=2,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.add_special_tokens([BEGIN, END])
    numbers = [(token, tokenizer.token_to_id(token)) for token in (BEGIN, END)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=numbers
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        model_max_length=context_length,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
        truncation_side="right",
    )


def _untrained(tokenizers: Any, lowercase: bool) -> Any:
    """White space is one space, and a word is the same at the beginning and inside of a text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    steps = [tokenizers.normalizers.NFC()]
    if lowercase:
        steps.append(tokenizers.normalizers.Lowercase())
    steps += [
        tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
        tokenizers.normalizers.Strip(),
    ]
    tokenizer.normalizer = tokenizers.normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer
