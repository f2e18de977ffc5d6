"""Addresses of stores: ``scheme://PLACE#table.column?id=NAME``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from crossfade.errors import UsageError

_NAME = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/@\s]*|[^#:/\s]+:[^#\s]*)@")
_PASSWORD = re.compile(r"(?<=[?&])((?:ssl)?password=)[^&#\s]*", re.IGNORECASE)
WITH_SCHEMA = ("postgresql", "postgres")
"""Kinds of stores whose tables may be named with a schema."""
_PLAIN = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a column of vectors is.

    Attributes:
        scheme, place: kind of store, and where it is.
        table, column: names, decoded; the column is empty where the address names none.
        id_column: name of the id column if the address gives one.
        schema: of the table, for the stores in `WITH_SCHEMA`, if the address gives it.
    """

    scheme: str
    place: str
    table: str
    column: str
    id_column: str = ""
    schema: str = ""

    def __str__(self) -> str:
        identity = f"?id={quote(self.id_column)}" if self.id_column else ""
        column = f".{_quoted(self.column)}" if self.column else ""
        schema = f"{_quoted(self.schema)}." if self.schema else ""
        return redact(f"{self.scheme}://{self.place}#{schema}{_quoted(self.table)}{column}{identity}")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; names may be in double quotes (``""`` for a quote) or percent-encoded.

        Raises:
            UsageError: another form.
        """
        scheme, found, rest = text.partition("://")
        place, hashed, tail = rest.rpartition("#")
        names, _, options = tail.partition("?")
        identifiers = _split_names(names)
        schema = identifiers.pop(0) if len(identifiers) == 3 and scheme in WITH_SCHEMA else ""
        if not (found and hashed and scheme and place) or not 1 <= len(identifiers) <= 2:
            raise UsageError(
                f"{redact(text)!r} is no address of a store; write lancedb://DIR#table.column, "
                'with names that hold dots or spaces in double quotes: #"my table"."my.column"'
            )
        table, column = [*identifiers, ""][:2]
        return cls(scheme, place, table, column, _id_option(options, text), schema)


def redact(text: str) -> str:
    """The text without user names and passwords in addresses."""
    return _PASSWORD.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def _split_names(names: str) -> list[str]:
    """The names between dots; none if they cannot be read."""
    found: list[str] = []
    position = 0
    while match := _NAME.match(names, position):
        quoted, plain = match.groups()
        found.append(unquote(plain) if plain is not None else quoted.replace('""', '"'))
        position = match.end()
        if names[position : position + 1] != ".":
            break
        position += 1
    if position != len(names) or names.endswith(".") or not all(found):
        return []
    return found


def _id_option(options: str, text: str) -> str:
    values = dict(parse_qsl(options, keep_blank_values=True))
    unknown = sorted(set(values) - {"id"})
    if unknown:
        raise UsageError(
            f"{redact(text)!r}: option {unknown[0]!r} is not known; ?id=NAME names the id column"
        )
    return values.get("id", "")


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    return '"' + name.replace('"', '""') + '"'
