"""Judged text in the BEIR layout.

``corpus.jsonl``
    one object a line: ``_id``, ``text``, perhaps ``title``.
``queries.jsonl``
    one object a line: ``_id``, ``text``.
``qrels/SPLIT.tsv``
    a header, then query id, document id and grade, separated by tabs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossfade.datasets.relevance import Relevance
from crossfade.errors import DataError, DuplicateIds, IdMismatch, UnreadableFile, UsageError
from crossfade.vectors import BATCH_ROWS
from crossfade.vectors.ids import IdIndex, first_few

_TEXTS = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
_JUDGEMENTS = pa.schema([("query_id", pa.string()), ("item_id", pa.string()), ("grade", pa.int64())])


@dataclass(frozen=True, slots=True)
class Beir:
    """A data set in the BEIR layout.

    Args:
        folder: where ``corpus.jsonl``, ``queries.jsonl`` and ``qrels`` are.
    """

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Beir:
        """Open a folder.

        Raises:
            UnreadableFile: the folder lacks a part of the layout.
        """
        root = Path(folder)
        missing = [name for name in ("corpus.jsonl", "queries.jsonl", "qrels") if not (root / name).exists()]
        if missing:
            raise UnreadableFile(
                f"{root}: no {missing[0]}; the BEIR layout is corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv"
            )
        return cls(root)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the sets of judgements."""
        return tuple(sorted(path.stem for path in (self.folder / "qrels").glob("*.tsv")))

    def corpus(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Stream the documents: id, title, text.

        Raises:
            DataError: a line that is no object with ``_id`` and ``text``; the message has its number.
        """
        return _read_texts(self.folder / "corpus.jsonl", rows)

    def queries(self, split: str | None = None) -> pa.Table:
        """The queries: id, title (empty), text; only those judged in `split`, if given.

        Raises:
            DataError: as for `corpus`.
        """
        table = pa.Table.from_batches(_read_texts(self.folder / "queries.jsonl", BATCH_ROWS), _TEXTS)
        if split is None:
            return table
        judged = set(self.judgements(split)["query_id"].to_pylist())
        return table.filter(pa.array([one in judged for one in table["id"].to_pylist()], pa.bool_()))

    def judgements(self, split: str | None = None) -> pa.Table:
        """The judgements: query_id, item_id, grade.

        Args:
            split: which; ``test``, or the only one there is, unless given.

        Raises:
            UsageError: no such split.
            DataError: a line that is not two ids and a grade, or judges a pair again with another grade.
        """
        chosen = split or ("test" if "test" in self.splits or len(self.splits) != 1 else self.splits[0])
        if chosen not in self.splits:
            raise UsageError(
                f"{self.folder}: no judgements {chosen!r}; there are {', '.join(self.splits) or 'none'}"
            )
        return read_judgements(self.folder / "qrels" / f"{chosen}.tsv")


def locate(judgements: pa.Table, query_ids: Sequence[object], gallery_ids: Sequence[object]) -> Relevance:
    """Judgements by position. Judgements of queries that are not asked are left out.

    Args:
        judgements: query_id, item_id, grade (see `Beir.judgements`).
        query_ids: (Q,) ids of the queries, in order.
        gallery_ids: (N,) ids of the gallery items, in order.

    Raises:
        IdMismatch: a judged item is not in the gallery, or a query has no judgement at all.
        DuplicateIds: an id occurs more than once among the queries or in the gallery.
    """
    queries = _positions(judgements["query_id"], query_ids, "queries")
    asked = pa.array(np.flatnonzero(queries >= 0))
    judgements, queries = judgements.take(asked), queries[queries >= 0]
    items = _positions(judgements["item_id"], gallery_ids, "gallery")
    _refuse_missing(judgements["item_id"], items, len(gallery_ids))
    _refuse_unjudged(query_ids, queries)
    return Relevance(len(query_ids), len(gallery_ids), queries, items, judgements["grade"].to_numpy())


def judged_rows(judgements: pa.Table, query_ids: Sequence[object]) -> NDArray[np.int64]:
    """Positions of the queries that have a judgement, so that the others can be left out."""
    judged = set(judgements["query_id"].to_pylist())
    return np.flatnonzero([str(one) in judged for one in _plain(query_ids)]).astype(np.int64)


def _positions(wanted: pa.ChunkedArray, ids: Sequence[object], what: str) -> NDArray[np.int64]:
    index = IdIndex([pa.array([str(one) for one in _plain(ids)], pa.string())])
    repeated = index.repeated()
    if repeated:
        raise DuplicateIds(
            f"{len(repeated)} ids of the {what} occur more than once; first ids: {first_few(repeated)}; "
            "keep one row of each"
        )
    return index.rows(wanted.combine_chunks())


def _plain(ids: Any) -> Sequence[object]:
    plain: Sequence[object] = ids.to_pylist() if hasattr(ids, "to_pylist") else ids
    return plain


def _refuse_missing(ids: pa.ChunkedArray, positions: NDArray[np.int64], n_gallery: int) -> None:
    missing = list(dict.fromkeys(ids.take(pa.array(np.flatnonzero(positions < 0))).to_pylist()))
    if missing:
        raise IdMismatch(
            f"{len(missing)} judged items are not among the {n_gallery} of the gallery; "
            f"first ids: {first_few(missing)}; embed them too, or pass the judgements of this gallery"
        )


def _refuse_unjudged(query_ids: Sequence[object], positions: NDArray[np.int64]) -> None:
    judged = np.zeros(len(query_ids), dtype=bool)
    judged[positions] = True
    if not judged.all():
        missing = [one for one, has in zip(_plain(query_ids), judged, strict=True) if not has]
        raise IdMismatch(
            f"{len(missing)} of {len(query_ids)} queries have no judgement; first ids: {first_few(missing)}; "
            "leave them out (judged_rows), they cannot be scored"
        )


def _read_texts(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    held: list[dict[str, str]] = []
    for number, line in _lines(path):
        held.append(_parse_text(line, path, number))
        if len(held) == rows:
            yield pa.RecordBatch.from_pylist(held, schema=_TEXTS)
            held = []
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=_TEXTS)


def _parse_text(line: str, path: Path, number: int) -> dict[str, str]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not valid JSON ({error}); correct the line") from None
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("text"), str)
        or entry.get("_id") in (None, "")
    ):
        raise DataError(f"{path}, line {number}: expected an object with '_id' and 'text'; correct the line")
    return {"id": str(entry["_id"]), "title": entry.get("title") or "", "text": entry["text"]}


def read_judgements(path: Path) -> pa.Table:
    """Judgements of one TSV file: query_id, item_id, grade.

    Raises:
        UnreadableFile: no such file, or not UTF-8.
        DataError: as for `Beir.judgements`.
    """
    grades: dict[tuple[str, str], int] = {}
    for number, line in _lines(path):
        cells = line.split("\t")
        if number == 1 and _grade(cells[-1]) is None:
            continue
        pair, grade = _parse_judgement(cells, path, number)
        if grades.setdefault(pair, grade) != grade:
            raise DataError(
                f"{path}, line {number}: query {pair[0]!r} and document {pair[1]!r} were judged "
                f"{grades[pair]} before and {grade} here; keep one of them"
            )
    columns = [[query for query, _ in grades], [item for _, item in grades], list(grades.values())]
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, _JUDGEMENTS, strict=True)], schema=_JUDGEMENTS
    )


def _parse_judgement(cells: list[str], path: Path, number: int) -> tuple[tuple[str, str], int]:
    grade = _grade(cells[-1])
    if len(cells) != 3 or not cells[0] or not cells[1] or grade is None:
        raise DataError(
            f"{path}, line {number}: expected query id, document id and whole grade separated by tabs, "
            f"got {cells}; correct the line"
        )
    return (cells[0], cells[1]), grade


def _grade(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be read ({error.strerror}); check the path") from None
