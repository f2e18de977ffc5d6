"""Dual encoders of the open_clip library, where it is installed (it needs torchvision)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.encoders.base import as_vectors, require_texts
from crossfade.encoders.dual import TowerOwner
from crossfade.encoders.hub import HASH_DIGITS
from crossfade.encoders.pictures import read_picture
from crossfade.errors import EncoderError, MissingExtra, UsageError
from crossfade.extras import installed, load
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

BATCH_ITEMS = 64
SELF_CONTAINED = ("hf-hub:", "local-dir:")  # architectures that bring their weights along


class OpenClipDual(TowerOwner):
    """Pictures and texts embedded by an open_clip model; vectors of unit length, compared by cosine.

    Args:
        model: of open_clip; it is put into evaluation mode.
        preprocess: Pillow's picture to the model's pixels (3, s, s).
        tokenizer: of open_clip.
        space: the space that both towers embed into.
        batch: items per run of the model.
        device: as in torch; None chooses.

    Raises:
        UsageError: a batch below 1.
    """

    def __init__(
        self,
        model: Any,
        preprocess: Any,
        tokenizer: Any,
        space: Space,
        *,
        batch: int = BATCH_ITEMS,
        device: str | None = None,
    ) -> None:
        super().__init__()
        torch = load("torch", "hf")
        if batch < 1:
            raise UsageError(f"batch must be at least 1, got {batch}")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        self.preprocess, self.tokenizer, self.batch = preprocess, tokenizer, batch
        self._space = space

    @classmethod
    def load(
        cls,
        architecture: str,
        pretrained: str | None = None,
        *,
        batch: int = BATCH_ITEMS,
        device: str | None = None,
    ) -> OpenClipDual:
        """Open a model as open_clip names it.

        Args:
            architecture: e.g. ``ViT-H-14``, or ``hf-hub:ORGANISATION/NAME``, which brings its weights along.
            pretrained: tag (``laion2b_s32b_b79k``) or file of its weights.

        Raises:
            UsageError: an architecture without weights.
            EncoderError: open_clip does not know or cannot load it.
            MissingExtra: open_clip is not installed.
        """
        if not pretrained and not architecture.startswith(SELF_CONTAINED):
            raise UsageError(
                f"{architecture!r} alone has random weights; write ARCHITECTURE@PRETRAINED, e.g. "
                "ViT-H-14@laion2b_s32b_b79k"
            )
        if not installed("open_clip"):
            raise MissingExtra(
                "'open_clip' is not installed; run: pip install open_clip_torch (it needs torchvision)"
            )
        library = load("open_clip", "hf")
        try:
            model, _, preprocess = library.create_model_and_transforms(architecture, pretrained=pretrained)
            tokenizer = library.get_tokenizer(architecture)
        except Exception as error:  # it raises RuntimeError, AssertionError and those of the Hub client
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EncoderError(
                f"open_clip cannot load {architecture}@{pretrained}: {reason}; "
                "see open_clip.list_pretrained()"
            ) from None
        space = _space_of(model, tokenizer, architecture, pretrained)
        return cls(model, preprocess, tokenizer, space, batch=batch, device=device)

    def __repr__(self) -> str:
        return f"OpenClipDual({self._space})"

    @property
    def space(self) -> Space:
        return self._space

    def embed_pictures(self, items: Sequence[Any]) -> FloatMatrix:
        torch = load("torch", "hf")
        parts = [np.empty((0, self._space.dimension), dtype=np.float32)]
        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            pixels = [self._pixels(item, f"item {start + row}") for row, item in enumerate(chunk)]
            with torch.inference_mode():
                features = self.model.encode_image(torch.stack(pixels).to(self.device))
            parts.append(features.float().cpu().numpy())
        return as_vectors(np.concatenate(parts), len(items), self._space)

    def embed_texts(self, items: Sequence[Any]) -> tuple[FloatMatrix, int]:
        torch = load("torch", "hf")
        texts = require_texts(items, self._space.model)
        parts, truncated = [np.empty((0, self._space.dimension), dtype=np.float32)], 0
        for start in range(0, len(texts), self.batch):
            chunk = texts[start : start + self.batch]
            tokens = self.tokenizer(chunk)
            truncated += sum(self._is_cut(text, tokens.shape[1]) for text in chunk)
            with torch.inference_mode():
                parts.append(self.model.encode_text(tokens.to(self.device)).float().cpu().numpy())
        return as_vectors(np.concatenate(parts), len(texts), self._space), truncated

    def _pixels(self, item: Any, what: str) -> Any:
        image_module = load("PIL.Image", "hf")
        picture = image_module.fromarray(read_picture(item, lambda opened: opened.convert("RGB"), what))
        return self.preprocess(picture)

    def _is_cut(self, text: str, length: int) -> bool:
        """Whether a text has more tokens than the `length` that the model reads."""
        wrapped = getattr(self.tokenizer, "tokenizer", None)
        if wrapped is not None:  # one of transformers
            return len(wrapped(text)["input_ids"]) > length
        return len(self.tokenizer.encode(text)) + 2 > length  # between the start and the end


def _space_of(model: Any, tokenizer: Any, architecture: str, pretrained: str | None) -> Space:
    torch = load("torch", "hf")
    with torch.inference_mode():
        dimension = int(model.encode_text(tokenizer(["a"])).shape[1])
    tagged = pretrained and not Path(pretrained).is_file()
    revision = str(pretrained) if tagged else _hash_of(model)
    return Space(f"open_clip/{architecture}", dimension, normalized=True, revision=revision)


def _hash_of(model: Any) -> str:
    """The first digits of the SHA-256 over all weights, in the order of their names."""
    digest = hashlib.sha256()
    for _, value in sorted(model.state_dict().items()):
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:HASH_DIGITS]
