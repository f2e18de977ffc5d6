"""Text encoders of the sentence-transformers library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from crossfade.encoders.base import Encoder, as_vectors, require_texts
from crossfade.errors import EncoderError, NotSupported
from crossfade.extras import load
from crossfade.spaces import Metric, Space
from crossfade.vectors import FloatMatrix

_METRICS = {"cosine": "cosine", "dot": "dot", "euclidean": "l2"}


class SentenceTransformerEncoder(Encoder):
    """A sentence-transformers model, loaded when it is first needed.

    Args:
        name: hub name or folder.
        revision: commit, tag or branch on the hub.
        space: what the space must be; None takes it from the model: its dimension, its similarity
            function, and whether its last module normalizes.
        prompt: prefix of every text, where `space` is not given, e.g. ``"query: "``.
        batch: texts per run of the model.
        device: as in torch; None chooses.

    Raises:
        MissingExtra: sentence-transformers is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str = "",
        space: Space | None = None,
        prompt: str = "",
        batch: int = 32,
        device: str | None = None,
    ) -> None:
        self._library = load("sentence_transformers", "hf")
        self._name, self._revision, self._device = name, revision, device
        self._prompt, self._batch = (space.prompt if space else prompt), batch
        self._space = space
        self._loaded: Any = None

    def __repr__(self) -> str:
        return f"SentenceTransformerEncoder({self._name!r})"

    @property
    def _model(self) -> Any:
        if self._loaded is None:
            self._loaded = self._open()
        return self._loaded

    def _open(self) -> Any:
        try:
            return self._library.SentenceTransformer(
                self._name, revision=self._revision or None, device=self._device
            )
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EncoderError(
                f"sentence-transformers cannot load {self._name!r}: {reason}; check the name or give a folder"
            ) from error

    @property
    def space(self) -> Space:
        if self._space is None:
            self._space = self._space_of_model()
        return self._space

    def _space_of_model(self) -> Space:
        similarity = str(self._model.similarity_fn_name)
        if similarity not in _METRICS:
            raise NotSupported(
                f"{self._name} compares by {similarity!r}; pass a space with cosine, dot or l2"
            )
        last = list(self._model.children())[-1]
        return Space(
            model=self._name,
            dimension=_dimension(self._model),
            metric=cast(Metric, _METRICS[similarity]),
            normalized=type(last).__name__ == "Normalize",
            revision=self._revision,
            prompt=self._prompt,
        )

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed texts, each with the space's prompt before it.

        Raises:
            UsageError: an item is no string.
            EncoderError: the model cannot be loaded.
            DimensionMismatch: the model is of another dimension than the space.
        """
        texts = require_texts(items, self._name)
        if not texts:
            return as_vectors([], 0, self.space)
        # An empty prompt, unlike None, switches off the model's own default prompt.
        vectors = self._model.encode(
            texts, prompt=self._prompt, batch_size=self._batch, show_progress_bar=False, convert_to_numpy=True
        )
        return as_vectors(vectors, len(texts), self.space)


def _dimension(model: Any) -> int:
    # Older versions of the library know the longer name only.
    method = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(method())
