"""Open an encoder by its specification, as the command line takes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from crossfade.encoders.base import Encoder
from crossfade.encoders.callable import CallableEncoder
from crossfade.errors import UnknownSpace, UsageError
from crossfade.spaces import Space

FORMS = (
    "onnx:DIR#image, onnx:DIR#text, trained:DIR, python:MODULE:ATTRIBUTE, "
    "sentence-transformers:NAME[@REVISION] or openai:MODEL[@URL]"
)


def open_encoder(spec: str, *, space: Space | None = None) -> Encoder:
    """Open an encoder.

    Args:
        spec: ``onnx:DIR#image`` or ``#text``, ``trained:DIR``, ``python:MODULE:ATTRIBUTE``,
            ``sentence-transformers:NAME[@REVISION]`` or ``openai:MODEL[@URL]``.
        space: the space that it must embed into; needed for a plain function, which says nothing about it.

    Raises:
        UsageError: another form, or no such module or attribute.
        UnknownSpace: a plain function without a space.
        SpaceError: the encoder embeds into another space.
        MissingExtra: the library that it needs is not installed.
    """
    kind, _, rest = spec.partition(":")
    if kind not in _KINDS or not rest:
        raise UsageError(f"{spec!r} names no encoder; write {FORMS}")
    encoder = _KINDS[kind](rest, space)
    if space is not None:
        space.require_same(encoder.space, f"encoder {spec}")
    return encoder


def _open_onnx(rest: str, space: Space | None) -> Encoder:
    from crossfade.encoders.onnx import Modality, OnnxEncoder

    directory, _, modality = rest.rpartition("#")
    if not directory or modality not in ("image", "text"):
        raise UsageError(f"'onnx:{rest}' does not say which tower; write onnx:DIR#image or onnx:DIR#text")
    return OnnxEncoder.load(directory, cast(Modality, modality))


def _open_python(rest: str, space: Space | None) -> Encoder:
    module_name, _, attribute = rest.partition(":")
    if not attribute:
        raise UsageError(f"'python:{rest}' names no attribute; write python:MODULE:ATTRIBUTE")
    module = _import(module_name)
    if not hasattr(module, attribute):
        raise UsageError(f"module {module_name!r} has no attribute {attribute!r}; check python:{rest}")
    return _as_encoder(getattr(module, attribute), space, f"python:{rest}")


def _as_encoder(found: Any, space: Space | None, spec: str) -> Encoder:
    if isinstance(found, type) and issubclass(found, Encoder):
        found = found()
    if isinstance(found, Encoder):
        return found
    if not callable(found):
        raise UsageError(
            f"{spec} is {type(found).__name__}; it must be an encoder or a function of a list of items"
        )
    own = getattr(found, "space", None)
    chosen = own if isinstance(own, Space) else space
    if chosen is None:
        raise UnknownSpace(
            f"{spec} is a plain function and does not say which space it embeds into; set its attribute "
            "'space' to a crossfade.Space, or make it a CallableEncoder"
        )
    return CallableEncoder(found, chosen)


def _import(name: str) -> ModuleType:
    """Import a module, also from the working directory, which a console script does not search."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"there is no module {name!r}; run in its folder or install it") from None


def _open_sentence_transformers(rest: str, space: Space | None) -> Encoder:
    from crossfade.encoders.sentence_transformers import SentenceTransformerEncoder

    name, _, revision = rest.partition("@")
    return SentenceTransformerEncoder(name, revision=revision, space=space)


def _open_openai(rest: str, space: Space | None) -> Encoder:
    from crossfade.encoders.openai import DEFAULT_URL, OpenAIEncoder

    # The name of a model may hold an "@" itself; what follows the last one before a scheme is the URL.
    model, _, url = rest.rpartition("@") if "://" in rest else (rest, "", "")
    return OpenAIEncoder(model, url or DEFAULT_URL, space=space)


def _open_trained(rest: str, space: Space | None) -> Encoder:
    from crossfade.encoders.trained import TrainedEncoder

    return TrainedEncoder.load(rest)


_KINDS: dict[str, Callable[[str, Space | None], Encoder]] = {
    "onnx": _open_onnx,
    "python": _open_python,
    "sentence-transformers": _open_sentence_transformers,
    "openai": _open_openai,
    "trained": _open_trained,
}
