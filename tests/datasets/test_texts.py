from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.datasets.distinct import SeenKeys, text_keys
from crossfade.datasets.lines import MAX_LINE_BYTES
from crossfade.datasets.texts import TextCounts, Texts, open_texts
from crossfade.errors import DataError, UnreadableFile, UsageError

RAW = ["a dog ", "", "a cat", "a dog", "  ", "a cat\t", "ein Hund läuft", "A dog", "a  dog"]
DISTINCT = ["a dog", "a cat", "ein Hund läuft", "A dog", "a  dog"]


def _all(texts: Texts) -> list[str]:
    return [text for block in texts for text in block]


def _text_file(folder: Path) -> Path:
    path = folder / "captions.txt"
    path.write_bytes("\r\n".join(RAW).encode())
    return path


def _gzipped(folder: Path) -> Path:
    path = folder / "captions.txt.gz"
    path.write_bytes(gzip.compress("\n".join(RAW).encode()))
    return path


def _jsonl(folder: Path) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("\n".join(json.dumps({"caption": one or None, "id": 7}) for one in RAW))
    return path


def _jsonl_of_lists(folder: Path) -> Path:
    path = folder / "captions.ndjson"
    path.write_text("\n\n".join(json.dumps({"caption": one}) for one in [RAW[:4], RAW[4], RAW[5:]]) + "\n")
    return path


def _parquet(folder: Path) -> Path:
    path = folder / "captions.parquet"
    values = pa.array([one or None for one in RAW]).dictionary_encode()
    pq.write_table(pa.table({"caption": values, "id": range(len(RAW))}), path, row_group_size=2)
    return path


def _parquet_of_lists(folder: Path) -> Path:
    path = folder / "lists.parquet"
    column = pa.array([RAW[:3], None, RAW[3:], []], pa.large_list(pa.large_string()))
    pq.write_table(pa.table({"caption": column}), path)
    return path


LAYOUTS = [_text_file, _gzipped, _jsonl, _jsonl_of_lists, _parquet, _parquet_of_lists]


@pytest.mark.parametrize("write", LAYOUTS)
def test_each_distinct_text_once_in_order(write, tmp_path: Path) -> None:
    texts = open_texts(write(tmp_path))
    assert _all(texts) == DISTINCT
    assert texts.counts == TextCounts(read=9, empty=2, duplicate=2)
    assert texts.counts.kept == 5
    assert _all(texts) == DISTINCT, "a second pass starts from nothing"


def test_duplicates_across_files_and_folders(tmp_path: Path) -> None:
    _text_file(tmp_path)
    _parquet(tmp_path)
    (tmp_path / "notes.md").write_text("not a text")
    (tmp_path / "more").mkdir()
    more = tmp_path / "more" / "b.txt"
    more.write_text("a bird\na cat\n")
    texts = open_texts([tmp_path, str(more)])
    assert _all(texts) == [*DISTINCT, "a bird"]
    assert texts.counts == TextCounts(20, 4, 10)


def test_another_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["x"], "title": ["y"]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"caption": "x", "title": "z"}')
    assert _all(open_texts(tmp_path, column="title")) == ["y", "z"]


def test_blocks_are_full_and_equal_in_every_pass(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(str(number % 40_000) for number in range(50_000)))
    texts = open_texts(path)
    sizes = [len(block) for block in texts.blocks(1000)]
    assert sizes == [1000] * 40
    assert list(texts.blocks(1000)) == list(texts.blocks(1000))
    assert texts.counts.duplicate == 50_000 - 40_000
    with pytest.raises(UsageError, match="at least one"):
        next(texts.blocks(0))


def test_memory_is_that_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfade.datasets.texts.READ_ROWS", 256)
    path = tmp_path / "long.txt"
    path.write_text("".join(f"{number:04000d}\n" for number in range(4000)))
    tracemalloc.start()
    count = sum(len(block) for block in open_texts(path).blocks(256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000
    # 256 texts of 4 kB as read, stripped, waiting and handed out.
    assert peak < 6e6 < path.stat().st_size / 2


def test_counts_need_a_pass(tmp_path: Path) -> None:
    texts = open_texts(_text_file(tmp_path))
    with pytest.raises(UsageError, match="iterate"):
        _ = texts.counts
    next(iter(texts))
    assert "captions.txt" in texts.name


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    path = _text_file(tmp_path)
    before = open_texts(path).fingerprint()
    assert before == open_texts(path).fingerprint() == json.loads(json.dumps(before))
    assert before != open_texts(path, column="title").fingerprint()
    path.write_text("another")
    assert before != open_texts(path).fingerprint()


def test_line_ends_within_texts_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028two\x0cthree\nfour".encode())
    assert _all(open_texts(path)) == ["one\u2028two\x0cthree", "four"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.txt", b" \n\n", DataError, "no texts, 2 of 2 are empty"),
        ("a.txt", b"", DataError, "no texts"),
        ("a.txt", b"fine\n\xff\xfe\n", UnreadableFile, "line 2: not UTF-8"),
        ("a.txt", b"x" * (MAX_LINE_BYTES + 1), DataError, "line 1: longer than"),
        ("a.txt.gz", gzip.compress(b"a\n" * 1000)[:-9], UnreadableFile, "cut short"),
        ("a.txt.gz", b"no gzip", UnreadableFile, "a.txt.gz"),
        ("a.jsonl", b'{"caption": "x"}\n{"capt', DataError, "line 2: not valid JSON"),
        ("a.jsonl", b'["x"]', DataError, "line 1: expected an object, got list"),
        ("a.jsonl", b'{"text": "x"}', UsageError, "no 'caption'; it has 'text'"),
        ("a.jsonl", b'{"caption": 5}', DataError, "line 1: expected a text .* got int"),
        ("a.jsonl", b'{"caption": "\\ud800"}', DataError, "surrogate"),
        ("a.jsonl", b"[" * 100_000, DataError, "line 1: not valid JSON"),
    ],
)
def test_bad_content(name: str, content: bytes, error: type, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        _all(open_texts(tmp_path / name))


def test_bad_locations(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no such file"):
        open_texts(tmp_path / "absent.txt")
    with pytest.raises(UnreadableFile, match="no texts in this folder"):
        open_texts(tmp_path)
    with pytest.raises(UsageError, match="no files"):
        open_texts([])
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(UsageError, match=r"not \.docx"):
        open_texts(tmp_path / "a.docx")


def test_bad_parquet_is_refused_when_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"caption": [1, 2], "title": ["a", "b"]}), path)
    with pytest.raises(UsageError, match="'caption' is int64"):
        open_texts(path)
    with pytest.raises(UsageError, match="no column 'text'; it has 'caption'"):
        open_texts(path, column="text")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableFile, match=r"a\.parquet"):
        open_texts(path, column="title")


def test_seen_keys_against_a_python_set() -> None:
    rng = np.random.default_rng(0)
    seen, naive = SeenKeys(), set()
    for size in rng.integers(0, 400, 200):
        keys = rng.integers(0, 20_000, size).astype(np.uint64)
        keys[keys == 0] = np.uint64(2**64 - 1)
        expected = [not (key in naive or naive.add(key)) for key in keys.tolist()]
        assert seen.add(keys).tolist() == expected
    assert len(seen) == len(naive)


def test_keys_are_the_same_everywhere() -> None:
    assert text_keys(["", "a dog"]).tobytes().hex() == "e4a6a0577479b2b4" + "fe02e6665a225ac7"
