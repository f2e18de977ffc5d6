"""Plain texts for training without images: streamed, stripped of white space, each distinct text once.

``.txt``
    one text a line, UTF-8.
``.jsonl``, ``.ndjson``
    one object a line; the text, or a list of texts, stands under a name.
``.parquet``
    a column of strings, or of lists of strings.

Line files may be compressed (``.txt.gz``). Tens of millions of texts pass in the memory of a block and
8 bytes for each distinct one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.datasets.distinct import Keys, SeenKeys, text_keys
from crossfade.datasets.lines import numbered_lines, parse_object, texts_of
from crossfade.errors import DataError, UnreadableFile, UsageError
from crossfade.vectors.columns import describe_columns
from crossfade.vectors.table import reading

BLOCK_TEXTS = 4096
READ_ROWS = 4096


@dataclass(frozen=True, slots=True)
class TextCounts:
    """What one pass over the texts met.

    Attributes:
        read: texts in the files.
        empty: of these, empty, null or white space alone.
        duplicate: of these, equal to an earlier one.
    """

    read: int
    empty: int
    duplicate: int

    @property
    def kept(self) -> int:
        """Distinct texts."""
        return self.read - self.empty - self.duplicate

    def __str__(self) -> str:
        return f"{self.kept} texts of {self.read} ({self.empty} empty, {self.duplicate} duplicate)"


class Texts:
    """Distinct texts of some files, in order of first appearance.

    Iterating yields blocks of `BLOCK_TEXTS` texts (the last is shorter); the blocks are the same in
    every pass. Open files with `open_texts`.

    Attributes:
        name: where they come from, for messages.
        files: what is read, in order.
        column: where the texts stand in Parquet and JSONL files.
    """

    def __init__(self, name: str, files: Sequence[Path], column: str) -> None:
        self.name, self.files, self.column = name, tuple(files), column
        self._counts: TextCounts | None = None

    def __iter__(self) -> Iterator[list[str]]:
        return self.blocks()

    def blocks(self, texts: int = BLOCK_TEXTS) -> Iterator[list[str]]:
        """The texts in blocks of `texts`, the last one shorter.

        Raises:
            UnreadableFile: a file is cut short, or not UTF-8.
            UsageError: the first line of a JSONL file has no such name.
            DataError: a value that is no text, a line that is too long, or no text in all.
        """
        if texts < 1:
            raise UsageError(f"a block has at least one text, got {texts}")
        pending: list[str] = []
        for fresh in self._distinct():
            pending += fresh
            while len(pending) >= texts:
                yield pending[:texts]
                pending = pending[texts:]
        if pending:
            yield pending

    @property
    def counts(self) -> TextCounts:
        """Of the last complete pass.

        Raises:
            UsageError: there was none.
        """
        if self._counts is None:
            raise UsageError(
                f"{self.name}: the texts are counted while they are read; iterate over them first"
            )
        return self._counts

    def fingerprint(self) -> list[object]:
        """JSON-ready facts that change when the files do."""
        stats = [(path, path.stat()) for path in self.files]
        return [self.column, *([str(path.resolve()), one.st_size, one.st_mtime_ns] for path, one in stats)]

    def _distinct(self) -> Iterator[list[str]]:
        seen, read, empty = SeenKeys(), 0, 0
        for path in self.files:
            for raw in _read(path, self.column):
                texts = [text for text in map(str.strip, raw) if text]
                read, empty = read + len(raw), empty + len(raw) - len(texts)
                yield list(compress(texts, seen.add(_keys(texts, path))))
        self._counts = TextCounts(read, empty, read - empty - len(seen))
        if not len(seen):
            raise DataError(f"{self.name}: no texts, {empty} of {read} are empty; check the files")


def open_texts(location: str | Path | Sequence[str | Path], *, column: str = "caption") -> Texts:
    """Texts of a file, of a folder (all its files of a known kind, by name), or of several of these.

    Args:
        column: where the texts stand in Parquet and JSONL files.

    Raises:
        UnreadableFile: no such file, or a folder without texts.
        UsageError: a file of another kind, or a Parquet file without such a column of texts.
    """
    locations = [location] if isinstance(location, str | Path) else list(location)
    files = [file for one in locations for file in _files(Path(one))]
    if not files:
        raise UsageError("no files with texts were given; name at least one")
    for file in files:
        if _kind(file) == ".parquet":
            _require_text_column(file, column)
    return Texts(", ".join(map(str, locations)), files, column)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _kind(file) in _READERS)
        if not found:
            raise UnreadableFile(f"{path}: no texts in this folder; it should hold {_KINDS} files")
        return found
    if not path.is_file():
        raise UnreadableFile(f"{path}: no such file; check the path")
    if _kind(path) not in _READERS:
        raise UsageError(
            f"{path}: texts are read from {_KINDS} files, not {path.suffix or 'one without a suffix'}"
        )
    return [path]


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] != [".parquet"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _require_text_column(path: Path, column: str) -> None:
    with reading(str(path)):
        schema = pq.read_schema(path)
    if column not in schema.names:
        raise UsageError(
            f"{path}: no column {column!r}; it has {describe_columns(schema)}; name the column of the texts"
        )
    found = schema.field(column).type
    if not _is_text(found) and not (_is_list(found) and _is_text(found.value_type)):
        raise UsageError(
            f"{path}: column {column!r} is {found}; texts are strings or lists of strings, "
            "name another column"
        )


def _is_text(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        return _is_text(found.value_type)
    return bool(
        pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    )


def _is_list(found: pa.DataType) -> bool:
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found))


def _read(path: Path, column: str) -> Iterator[list[str]]:
    """Texts as they stand in the file, a null one as an empty one."""
    return _READERS[_kind(path)](path, column)


def _read_lines(path: Path, column: str) -> Iterator[list[str]]:
    return _in_blocks(text for _, text in numbered_lines(path))


def _read_objects(path: Path, column: str) -> Iterator[list[str]]:
    return _in_blocks(_texts_of_objects(path, column))


def _read_parquet(path: Path, column: str) -> Iterator[list[str]]:
    with reading(str(path)), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(READ_ROWS, columns=[column]):
            values = batch.column(0)
            values = values.flatten() if _is_list(values.type) else values
            yield [text or "" for text in values.to_pylist()]


_READERS: dict[str, Callable[[Path, str], Iterator[list[str]]]] = {
    ".txt": _read_lines,
    ".jsonl": _read_objects,
    ".ndjson": _read_objects,
    ".parquet": _read_parquet,
}
_KINDS = ", ".join(_READERS)


def _in_blocks(texts: Iterator[str]) -> Iterator[list[str]]:
    while block := list(islice(texts, READ_ROWS)):
        yield block


def _texts_of_objects(path: Path, column: str) -> Iterator[str]:
    first = True
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        entry = parse_object(line, where)
        if first and column not in entry:
            raise UsageError(
                f"{where}: no {column!r}; it has {', '.join(map(repr, entry)) or 'nothing'}; "
                "name the column of the texts"
            )
        first = False
        yield from texts_of(entry.get(column), where)


def _keys(texts: list[str], path: Path) -> Keys:
    try:
        return text_keys(texts)
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: a text holds half of a surrogate pair, {error.object[:40]!r}; correct it"
        ) from None
