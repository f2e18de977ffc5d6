"""Open an encoder by its specification, as the command line takes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast
from weakref import WeakValueDictionary

from crossfade.encoders.base import Encoder
from crossfade.encoders.callable import CallableEncoder
from crossfade.errors import UnknownSpace, UsageError
from crossfade.spaces import Space

Tower = Literal["image", "text"]
_OPEN: WeakValueDictionary[tuple[str, str | None, int], Any] = WeakValueDictionary()

FORMS = (
    "onnx:DIR#image|text, hf:NAME_OR_DIR[@REVISION]#image|text, "
    "open_clip:ARCHITECTURE@PRETRAINED#image|text, xbt:DIR#image|text, trained:DIR, "
    "python:MODULE:ATTRIBUTE, sentence-transformers:NAME[@REVISION], openai:MODEL[@URL] "
    "or mapped:ADAPTER_DIR+ENCODER"
)


def open_encoder(spec: str, *, space: Space | None = None) -> Encoder:
    """Open an encoder.

    Args:
        spec: one tower of a dual encoder: ``hf:NAME_OR_DIR[@REVISION]#image`` (transformers),
            ``open_clip:ARCHITECTURE@PRETRAINED#image``, ``xbt:DIR#image`` (one tuned by ``crossfade train
            xbt``, in the old model's space), ``onnx:DIR#image``, each also with ``#text``; or
            ``trained:DIR``, ``python:MODULE:ATTRIBUTE``, ``sentence-transformers:NAME[@REVISION]``,
            ``openai:MODEL[@URL]``; or ``mapped:ADAPTER_DIR+SPEC``: one of these followed by an adapter.
        space: the space that it must embed into; needed for a plain function, which says nothing about it.

    Raises:
        UsageError: another form, or no such module or attribute.
        UnknownSpace: a plain function without a space.
        SpaceError: the encoder embeds into another space.
        MissingExtra: the library that it needs is not installed.
    """
    encoder = _open(spec, space)
    if space is not None:
        space.require_same(encoder.space, f"encoder {spec}")
    return encoder


def _open(spec: str, space: Space | None) -> Encoder:
    kind, _, rest = spec.partition(":")
    if kind not in _KINDS or not rest:
        raise UsageError(f"{spec!r} names no encoder; write {FORMS}")
    return _KINDS[kind](rest, space)


def _split_tower(form: str, rest: str) -> tuple[str, Tower]:
    """``DIR#image`` apart; `form` is what to write before the ``#``."""
    name, _, tower = rest.rpartition("#")
    if not name or tower not in ("image", "text"):
        kind = form.partition(":")[0]
        raise UsageError(f"'{kind}:{rest}' does not say which tower; write {form}#image or {form}#text")
    return name, cast(Tower, tower)


def _open_hf(rest: str, space: Space | None) -> Encoder:
    name, tower = _split_tower("hf:NAME_OR_DIR", rest)
    revision = ""
    if not Path(name).expanduser().is_dir() and "@" in name:  # a folder's name may hold an "@" itself
        name, _, revision = name.rpartition("@")
    return _tower(_shared_hugging_face(name, revision or None), tower)


def _shared_hugging_face(name: str, revision: str | None) -> Any:
    """One model for both of its towers, as long as one of them is in use and its files are the same."""
    from crossfade.encoders.hugging_face import HuggingFaceDual

    config = Path(name).expanduser() / "config.json"
    written = config.stat().st_mtime_ns if config.is_file() else 0
    key = (name, revision, written)
    dual = _OPEN.get(key)
    if dual is None:
        dual = _OPEN[key] = HuggingFaceDual.load(name, revision=revision)
    return dual


def _open_open_clip(rest: str, space: Space | None) -> Encoder:
    from crossfade.encoders.open_clip import OpenClipDual

    name, tower = _split_tower("open_clip:ARCHITECTURE@PRETRAINED", rest)
    architecture, _, pretrained = name.partition("@")
    return _tower(OpenClipDual.load(architecture, pretrained or None), tower)


def _open_xbt(rest: str, space: Space | None) -> Encoder:
    from crossfade.encoders.tuned import TunedDual

    directory, tower = _split_tower("xbt:DIR", rest)
    return _tower(TunedDual.load(directory), tower)


def _open_mapped(rest: str, space: Space | None) -> Encoder:
    from crossfade.adapters import load_adapter
    from crossfade.encoders.mapped import MappedEncoder

    found = re.search(rf"\+(?=({'|'.join(map(re.escape, _KINDS))}):)", rest)
    if found is None or found.start() == 0:
        raise UsageError(
            f"'mapped:{rest}' does not name an adapter and an encoder; write mapped:ADAPTER_DIR+ENCODER"
        )
    adapter = load_adapter(rest[: found.start()])
    # A plain function says nothing about its space: it is taken at the adapter's word.
    return MappedEncoder(_open(rest[found.end() :], adapter.source), adapter)


def _tower(dual: Any, tower: Tower) -> Encoder:
    encoder: Encoder = dual.image if tower == "image" else dual.text
    return encoder


def _open_onnx(rest: str, space: Space | None) -> Encoder:
    from crossfade.encoders.onnx import OnnxEncoder

    directory, tower = _split_tower("onnx:DIR", rest)
    return OnnxEncoder.load(directory, tower)


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
    "hf": _open_hf,
    "open_clip": _open_open_clip,
    "xbt": _open_xbt,
    "onnx": _open_onnx,
    "python": _open_python,
    "sentence-transformers": _open_sentence_transformers,
    "openai": _open_openai,
    "trained": _open_trained,
    "mapped": _open_mapped,
}
