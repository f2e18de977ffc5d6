"""Recipes as YAML: strict reading, overriding, and the difference between two of them."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from crossfade.errors import UnreadableFile, UsageError
from crossfade.extras import load

T = TypeVar("T")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        UnreadableFile: missing, or not a YAML mapping.
        MissingExtra: PyYAML is not installed.
    """
    yaml = load("yaml", "train")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableFile(f"{path}: not a readable YAML file ({reason})") from None
    if not isinstance(values, dict):
        raise UnreadableFile(f"{path}: a recipe is a mapping of names to values, got {type(values).__name__}")
    return values


def override(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The values with ``section.key=value`` settings applied; a value is read as YAML.

    Raises:
        UsageError: a setting without "=", or one that goes below a plain value.
    """
    yaml = load("yaml", "train")
    changed: dict[str, Any] = _copied(values)
    for setting in settings:
        place, equals, text = setting.partition("=")
        if not equals or not place:
            raise UsageError(f"--set {setting!r}: write NAME=VALUE, e.g. --set schedule.epochs=10")
        *sections, key = place.split(".")
        target = changed
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise UsageError(f"--set {setting!r}: {section!r} is a value, not a section")
        target[key] = yaml.safe_load(text)
    return changed


def build(kind: type[T], values: Any, where: str, ready: Mapping[str, Any] | None = None) -> T:
    """A dataclass from a mapping, nested ones included; nothing unknown and nothing of another type.

    Args:
        where: name of the section, for messages.
        ready: fields that are built already; they take the place of their values.

    Raises:
        UsageError: an unknown or missing key, or a value of another type; the message has both names.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} is a section with names and values, got {values!r}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UsageError(f"{where} has no key {name!r}{_suggestion(name, list(known))}")
    hints = get_type_hints(kind)
    done = dict(ready or {})
    missing = [name for name in known if name not in {*values, *done} and _required(known[name])]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(map(repr, missing))}")
    for name, value in values.items():
        if name not in done:
            done[name] = convert(hints[name], value, f"{where}.{name}")
    return kind(**done)


def convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type of a dataclass's field."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _one_of(arguments, value, where)
    if origin in (Union, types.UnionType):
        return _optional(arguments, value, where)
    if origin is tuple:
        return _tuple(arguments[0], value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return dict(_typed(dict, value, where))
    return _typed(hint, value, where)


def difference(first: Any, second: Any, where: str = "") -> list[str]:
    """Lines ``section.key: first → second`` for every value in which two recipes differ.

    Both are JSON-ready (`dataclasses.asdict`).
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = list(first) + [name for name in second if name not in first]
        lines: list[str] = []
        for name in names:
            place = f"{where}.{name}" if where else str(name)
            lines += difference(first.get(name), second.get(name), place)
        return lines
    same = list(first) == list(second) if _both_sequences(first, second) else first == second
    return [] if same else [f"{where}: {first!r} → {second!r}"]


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _suggestion(name: object, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"


def _required(field: Any) -> bool:
    from dataclasses import MISSING

    return bool(field.default is MISSING and field.default_factory is MISSING)


def _one_of(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in choices:
        raise UsageError(f"{where} is one of {', '.join(map(str, choices))}, got {value!r}")
    return value


def _optional(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    return convert(next(choice for choice in choices if choice is not type(None)), value, where)


def _tuple(item: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where} is a list, got {value!r}")
    return tuple(convert(item, one, f"{where}[{position}]") for position, one in enumerate(value))


def _typed(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        return _number(value, where)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{where} is of type {kind.__name__}, got {value!r}")
    return value


def _number(text: str, where: str) -> float:
    """YAML 1.1 reads 1e-3, without a dot, as text."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where} is of type float, got {text!r}") from None


def _both_sequences(first: Any, second: Any) -> bool:
    return isinstance(first, list | tuple) and isinstance(second, list | tuple)
