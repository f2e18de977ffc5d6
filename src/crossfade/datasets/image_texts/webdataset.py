"""WebDataset: tar shards in which files of one name up to the first dot are one sample.

``000123.jpg`` (or jpeg, png, webp) is the picture, ``000123.txt`` its captions, one a line, or
``000123.json`` an object with ``caption``. The archives are indexed by their headers; nothing is unpacked,
no link is followed, and pictures are read from where they are in the shard.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from crossfade.datasets.image_texts.base import Gathering, ImageTexts, Rows, check_size
from crossfade.datasets.image_texts.braces import expand_braces
from crossfade.datasets.image_texts.parts import choose_parts
from crossfade.datasets.lines import MAX_LINE_BYTES, parse_object, texts_of
from crossfade.errors import DataError, UnreadableFile, UsageError
from crossfade.vectors.table import reading

PICTURE_KINDS = ("jpg", "jpeg", "png", "webp")
_BLOCK = tarfile.BLOCKSIZE


@dataclass(slots=True)
class _Sample:
    """What a shard holds of one key: where the picture is, and the captions of each kind of file."""

    key: str
    shard: int
    picture: tuple[int, int] | None = None
    texts: dict[str, list[str]] = field(default_factory=dict)


class WebDatasetImageTexts(ImageTexts):
    """Captioned pictures in one or more tar shards.

    The ids are the keys; where several shards have the same key, all ids are ``SHARD/KEY`` instead.
    Captions are those of the txt file, else of the json file; of the json file alone where
    `caption_column` names another of its values than ``caption``.

    Args:
        location: a shard, a folder of shards, or a pattern: ``shards-{000..003}.tar``.
        split: only shards of the folder that are named so (``train-0000.tar``, ``train/0000.tar``).
        caption_column: under which name the json files have the captions.

    Raises:
        UnreadableFile: a shard is absent, half-written or no tar archive.
        UsageError: a malformed pattern, or no such split.
        DataError: a malformed or oversized member, or nothing is left.
    """

    def __init__(
        self, location: str | Path, *, split: str | None = None, caption_column: str = "caption"
    ) -> None:
        self.name, self._split, self._column = str(location), split, caption_column
        self._shards = _shards(str(location), split)
        samples = [one for number in range(len(self._shards)) for one in self._index(number)]
        gathering = Gathering()
        places: dict[str, tuple[int, int, int]] = {}
        for name, sample in zip(_names(samples, self._shards), samples, strict=True):
            if sample.picture is not None:
                gathering.picture(name)
                places[name] = (sample.shard, *sample.picture)
            if sample.texts:
                gathering.captions(name, self._captions(sample))
        ids, _, captions, skipped = gathering.finish()
        self._places = np.array([places[str(one)] for one in ids], dtype=np.int64).reshape(-1, 3)
        self._settle(ids, captions, skipped)

    def _captions(self, sample: _Sample) -> list[str]:
        return sample.texts["txt"] if "txt" in sample.texts else sample.texts["json"]

    def _index(self, shard: int) -> list[_Sample]:
        """The samples of a shard, in the order of their first members."""
        samples: dict[str, _Sample] = {}
        path = self._shards[shard]
        with reading(str(path)), path.open("rb") as file:
            for member in _members(file, path):
                key, kind = _split_name(member.name)
                if not key or not member.isreg() or member.issparse():
                    continue
                where = f"{path}, member {member.name!r}"
                if kind in PICTURE_KINDS:
                    check_size(member.size, where)
                    sample = samples.setdefault(key, _Sample(key, shard))
                    sample.picture = sample.picture or (member.offset_data, member.size)
                elif kind == "json" or (kind == "txt" and self._column == "caption"):
                    sample = samples.setdefault(key, _Sample(key, shard))
                    sample.texts[kind] = self._read_texts(file, member, kind, where)
        return list(samples.values())

    def _read_texts(self, file: IO[bytes], member: tarfile.TarInfo, kind: str, where: str) -> list[str]:
        if member.size > MAX_LINE_BYTES:
            raise DataError(f"{where}: {member.size} bytes; captions may have {MAX_LINE_BYTES}")
        content = _read(file, member.offset_data, member.size, where)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 ({error.reason}); write the shard again") from None
        if kind == "txt":
            return [line for line in text.split("\n") if line.strip()] or [""]
        entry = parse_object(text, where)
        several = ("captions",) if self._column == "caption" else ()
        named = next((name for name in (self._column, *several) if name in entry), None)
        return [] if named is None else texts_of(entry[named], where)

    def _contents(self, rows: Rows) -> Iterator[bytes]:
        places = self._places[rows]
        for shard in dict.fromkeys(places[:, 0].tolist()):
            path = self._shards[shard]
            with reading(str(path)), path.open("rb") as file:
                for offset, size in places[places[:, 0] == shard, 1:].tolist():
                    yield _read(file, offset, size, f"{path}, at byte {offset}")

    def _sources(self) -> list[object]:
        stats = [(path, path.stat()) for path in self._shards]
        files = [[str(path.resolve()), one.st_size, one.st_mtime_ns] for path, one in stats]
        return [*files, self._split, self._column]


def _shards(location: str, split: str | None) -> list[Path]:
    if "{" not in location or Path(location).exists():
        return choose_parts(Path(location), ".tar", split)[0]
    if split is not None:
        raise UsageError(f"{location}: a pattern of shards has no split {split!r}; name its shards alone")
    shards = [Path(one) for one in expand_braces(location)]
    absent = [path for path in shards if not path.is_file()]
    if absent:
        raise UnreadableFile(
            f"{location}: {len(absent)} of {len(shards)} shards are absent, the first is {absent[0]}; "
            "fetch them or correct the pattern"
        )
    return shards


def _members(file: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """Headers of a tar archive, to its end.

    A shard that was cut between two members looks whole to most readers; the end mark, a block of zeros,
    tells.
    """
    last = "the start"
    try:
        archive: Any = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (closing it closes nothing of ours)
        while (member := archive.next()) is not None:
            last = f"member {member.name!r}"
            archive.members.clear()  # else all headers are held
            yield member
    except (tarfile.TarError, EOFError) as error:
        raise _half_written(path, last, str(error)) from None
    file.seek(archive.offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise _half_written(path, last, "the end mark is missing")


def _half_written(path: Path, last: str, reason: str) -> UnreadableFile:
    return UnreadableFile(
        f"{path}: the shard is half-written or no plain tar archive, "
        f"nothing is readable after {last} ({reason}); "
        "write or copy it again, unpack it if it is compressed, or leave it out"
    )


def _read(file: IO[bytes], offset: int, size: int, where: str) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) != size:
        raise UnreadableFile(
            f"{where}: the shard is half-written, {len(content)} of {size} bytes are there; "
            "write or copy it again, or leave it out"
        )
    return content


def _split_name(name: str) -> tuple[str, str]:
    """Key and kind: the name up to the first dot after the last slash, and what follows, in small letters."""
    path = PurePosixPath(name)
    stem, _, kind = path.name.partition(".")
    return (path.with_name(stem).as_posix(), kind.lower()) if stem else ("", "")


def _names(samples: list[_Sample], shards: list[Path]) -> list[str]:
    counts = Counter(sample.key for sample in samples)
    if not counts or counts.most_common(1)[0][1] == 1:
        return [sample.key for sample in samples]
    stems = Counter(path.stem for path in shards)
    labels = [path.stem if stems[path.stem] == 1 else path.with_suffix("").as_posix() for path in shards]
    return [f"{labels[sample.shard]}/{sample.key}" for sample in samples]
