"""Judged text in the BEIR layout."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from crossfade.datasets.beir import Beir, judged_rows, locate, read_judgements
from crossfade.errors import DataError, DuplicateIds, IdMismatch, UnreadableFile, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = [{"_id": f"d{number}", "title": "t", "text": f"text {number}"} for number in range(5)]
    documents[3].pop("title")
    queries = [{"_id": number, "text": f"question {number}"} for number in range(3)]
    write_lines(tmp_path / "corpus.jsonl", [json.dumps(one) for one in documents])
    write_lines(tmp_path / "queries.jsonl", [json.dumps(one) for one in queries])
    (tmp_path / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", "0\td1\t2", "0\td4\t1", "1\td0\t0", "1\td2\t1"]
    write_lines(tmp_path / "qrels" / "test.tsv", lines)
    return tmp_path


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_documents_are_streamed(folder: Path) -> None:
    batches = list(Beir.open(folder).corpus(rows=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    rows = pa.Table.from_batches(batches).to_pylist()
    assert rows[1] == {"id": "d1", "title": "t", "text": "text 1"}
    assert rows[3] == {"id": "d3", "title": "", "text": "text 3"}


def test_queries_of_a_split_are_the_judged_ones(folder: Path) -> None:
    data = Beir.open(folder)
    assert data.queries()["id"].to_pylist() == ["0", "1", "2"]
    assert data.queries("test")["text"].to_pylist() == ["question 0", "question 1"]


def test_graded_judgements(folder: Path) -> None:
    judgements = Beir.open(folder).judgements()
    assert judgements.schema.names == ["query_id", "item_id", "grade"]
    assert judgements.to_pylist()[0] == {"query_id": "0", "item_id": "d1", "grade": 2}
    assert judgements["grade"].to_pylist() == [2, 1, 0, 1]


def test_a_header_is_not_needed(folder: Path) -> None:
    write_lines(folder / "qrels" / "dev.tsv", ["0\td1\t1"])
    data = Beir.open(folder)
    assert data.splits == ("dev", "test")
    assert len(data.judgements("dev")) == 1


def test_a_file_of_judgements_by_itself(folder: Path) -> None:
    assert read_judgements(folder / "qrels" / "test.tsv").equals(Beir.open(folder).judgements())
    with pytest.raises(UnreadableFile, match="cannot be read"):
        read_judgements(folder / "none.tsv")


def test_no_such_split(folder: Path) -> None:
    with pytest.raises(UsageError, match="no judgements 'train'; there are test"):
        Beir.open(folder).judgements("train")


def test_a_lacking_part_is_named(folder: Path) -> None:
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UnreadableFile, match=r"no queries\.jsonl; the BEIR layout is"):
        Beir.open(folder)


def test_judgements_by_position(folder: Path) -> None:
    judgements = Beir.open(folder).judgements()
    found = locate(judgements, ["1", "0"], pa.array(["d4", "d0", "d1", "d2"]))
    assert (found.n_queries, found.n_gallery) == (2, 4)
    triples = sorted(zip(found.queries.tolist(), found.items.tolist(), found.grades.tolist(), strict=True))
    assert triples == [(0, 1, 0), (0, 3, 1), (1, 0, 1), (1, 2, 2)]


def test_judgements_of_queries_that_are_not_asked_are_left_out(folder: Path) -> None:
    found = locate(Beir.open(folder).judgements(), [1], ["d0", "d2"])
    assert found.items.tolist() == [0, 1]


def test_judged_items_must_be_in_the_gallery(folder: Path) -> None:
    with pytest.raises(
        IdMismatch, match="2 judged items are not among the 2 of the gallery; first ids: 'd4', 'd0'"
    ):
        locate(Beir.open(folder).judgements(), ["0", "1"], ["d1", "d2"])


def test_queries_must_be_judged(folder: Path) -> None:
    judgements = Beir.open(folder).judgements()
    everything = [f"d{number}" for number in range(5)]
    with pytest.raises(IdMismatch, match="1 of 3 queries have no judgement; first ids: '2'"):
        locate(judgements, ["0", "1", "2"], everything)
    assert judged_rows(judgements, ["0", "2", "1"]).tolist() == [0, 2]


def test_repeated_ids(folder: Path) -> None:
    with pytest.raises(DuplicateIds, match="1 ids of the gallery occur more than once; first ids: 'd1'"):
        locate(Beir.open(folder).judgements(), ["0"], ["d1", "d4", "d1"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "x", "text": ', r"corpus\.jsonl, line 3: not valid JSON"),
        ('{"_id": "x"}', r"corpus\.jsonl, line 3: expected an object with '_id' and 'text'"),
        ('{"_id": "", "text": "a"}', "line 3: expected an object"),
        ('["x", "text"]', "line 3: expected an object"),
    ],
)
def test_malformed_documents_name_the_line(folder: Path, line: str, message: str) -> None:
    lines = (folder / "corpus.jsonl").read_text().splitlines()
    write_lines(folder / "corpus.jsonl", [lines[0], "", line, *lines[2:]])
    with pytest.raises(DataError, match=message):
        list(Beir.open(folder).corpus())


@pytest.mark.parametrize("line", ["0\td1", "0 d1 1", "0\td1\tgood", "0\td1\t0.5", "\td1\t1", "0\td1\t1\t2"])
def test_malformed_judgements_name_the_line(folder: Path, line: str) -> None:
    write_lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "0\td2\t1", line])
    with pytest.raises(DataError, match=r"test\.tsv, line 3: expected query id, document id and whole grade"):
        Beir.open(folder).judgements()


def test_contradicting_judgements(folder: Path) -> None:
    write_lines(folder / "qrels" / "test.tsv", ["0\td1\t1", "0\td1\t1", "0\td1\t2"])
    with pytest.raises(
        DataError, match="line 3: query '0' and document 'd1' were judged 1 before and 2 here"
    ):
        Beir.open(folder).judgements()


def test_other_encodings(folder: Path) -> None:
    (folder / "corpus.jsonl").write_bytes('{"_id": "x", "text": "é"}'.encode("latin-1"))
    with pytest.raises(UnreadableFile, match="not UTF-8"):
        list(Beir.open(folder).corpus())
