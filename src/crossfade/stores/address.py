"""Addresses of stores: ``scheme://PLACE#table.column?id=NAME``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from crossfade.errors import UsageError

_NAME = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_PLAIN = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a column of vectors is.

    Attributes:
        scheme, place: kind of store, and where it is.
        table, column: names, decoded; the column is empty where the address names none.
        id_column: name of the id column if the address gives one.
    """

    scheme: str
    place: str
    table: str
    column: str
    id_column: str = ""

    def __str__(self) -> str:
        identity = f"?id={quote(self.id_column)}" if self.id_column else ""
        column = f".{_quoted(self.column)}" if self.column else ""
        return redact(f"{self.scheme}://{self.place}#{_quoted(self.table)}{column}{identity}")

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
        if not (found and hashed and scheme and place) or identifiers is None:
            raise UsageError(
                f"{redact(text)!r} is no address of a store; write lancedb://DIR#table.column, "
                'with names that hold dots or spaces in double quotes: #"my table"."my.column"'
            )
        return cls(scheme, place, *identifiers, id_column=_id_option(options, text))


def redact(text: str) -> str:
    """The text without user names and passwords in addresses."""
    return _CREDENTIALS.sub("***@", text)


def _split_names(names: str) -> tuple[str, str] | None:
    found: list[str] = []
    position = 0
    while match := _NAME.match(names, position):
        quoted, plain = match.groups()
        found.append(unquote(plain) if plain is not None else quoted.replace('""', '"'))
        position = match.end()
        if names[position : position + 1] != ".":
            break
        position += 1
    if position != len(names) or names.endswith(".") or not 1 <= len(found) <= 2 or not all(found):
        return None
    return found[0], found[1] if len(found) == 2 else ""


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
