"""Lines of UTF-8 files and the JSON objects on them; every error has the number of its line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from crossfade.errors import DataError, UnreadableFile
from crossfade.vectors.table import reading

MAX_LINE_BYTES = 1 << 20


def numbered_lines(path: Path, limit: int = MAX_LINE_BYTES) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file, perhaps gzipped, with their numbers from 1.

    Raises:
        UnreadableFile: cut short, or not UTF-8.
        DataError: a line of more than `limit` bytes.
    """
    with reading(str(path)), _open(path) as file:
        number = 0
        while line := file.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise DataError(f"{path}, line {number}: longer than {limit} bytes; is it one text a line?")
            text = _decode(line, path, number)
            yield number, text.removeprefix("\ufeff") if number == 1 else text


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if path.suffix.lower() != ".gz":
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast("IO[bytes]", unpacked)


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8") from None


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the text is something else.
    """
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}); correct it") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object, got {type(entry).__name__}")
    return entry


def texts_of(value: object, where: str) -> list[str]:
    """The texts of a JSON value: a text, a list of texts, or nothing (one empty text).

    Raises:
        DataError: something else.
    """
    texts: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        if one is not None and not isinstance(one, str):
            raise DataError(f"{where}: expected a text or a list of texts, got {type(one).__name__}")
        texts.append(one or "")
    return texts
