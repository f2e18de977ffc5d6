"""Every layout holds the same set: six images, three of them whole, and something wrong with the others."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossfade.datasets.image_texts import Left, Skipped, open_image_texts
from crossfade.datasets.image_texts.parquet import ParquetImageTexts
from crossfade.errors import DataError, UnreadableFile, UsageError


def _picture(color: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (color, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


# Number 4 has no picture.
PICTURES = [None if number == 4 else _picture(40 * number) for number in range(6)]
CAPTIONS = [
    ["a dog", " a hound\n"],
    ["a cat"],
    [],
    ["", "  "],
    ["lost", "gone"],
    ["a cat", "ä cat", "a cat "],
]
WHOLE = [0, 1, 5]
CLEAN = [["a dog", "a hound"], ["a cat"], ["a cat", "ä cat"]]
SPLITS = ["train", "val", "train", "test", "val", "test"]


def _parquet(folder: Path, binary: bool = False) -> Path:
    """One row per image, a list of captions each."""
    pictures = [PICTURES[n] if binary else {"bytes": PICTURES[n], "path": f"p{n}.jpg"} for n in range(6)]
    table = pa.table(
        {"id": [f"p{n}" for n in range(6)], "image": pictures, "caption": CAPTIONS, "split": SPLITS}
    )
    pq.write_table(table, folder / "set.parquet", row_group_size=4)
    return folder / "set.parquet"


def _parquet_binary(folder: Path) -> Path:
    return _parquet(folder, binary=True)


def _parquet_rows(folder: Path) -> Path:
    """One row per caption, in several files without statistics; a caption of p0 stands in the last one."""
    rows = [(n, one) for n in range(6) for one in CAPTIONS[n] or [None]]
    rows.append(rows.pop(1))
    (folder / "set").mkdir()
    for part, some in enumerate((rows[:4], rows[4:])):
        table = pa.table(
            {
                "image": [{"bytes": PICTURES[n], "path": None} for n, _ in some],
                "caption": pa.array([one for _, one in some], pa.large_string()),
                "id": [f"p{n}" for n, _ in some],
                "split": pa.array([SPLITS[n] for n, _ in some]).dictionary_encode(),
            }
        )
        pq.write_table(table, folder / "set" / f"{part}.parquet", row_group_size=3, write_statistics=False)
    return folder / "set"


def _save_pictures(root: Path, name: str) -> None:
    for number, content in enumerate(PICTURES):
        path = root / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)


def _sentences(number: int, imgid: int) -> list[dict[str, object]]:
    return [
        {"tokens": text.split(), "raw": text, "imgid": imgid, "sentid": 10 * number + place}
        for place, text in enumerate(CAPTIONS[number])
    ]


def _karpathy_coco(folder: Path) -> Path:
    """As COCO's dataset_coco.json: pictures in two folders, ids of COCO."""
    images = []
    for number in range(6):
        part = "train2014" if number % 2 else "val2014"
        name = f"COCO_{part}_{number:012d}.jpg"
        sentences = _sentences(number, number)
        images.append(
            {
                "filepath": part,
                "sentids": [one["sentid"] for one in sentences],
                "filename": name,
                "imgid": number,
                "split": SPLITS[number],
                "sentences": sentences,
                "cocoid": 100 + number,
            }
        )
        (folder / part).mkdir(exist_ok=True)
        if PICTURES[number] is not None:
            (folder / part / name).write_bytes(PICTURES[number])
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return folder / "dataset_coco.json"


def _karpathy_flickr(folder: Path) -> Path:
    """As dataset_flickr30k.json: no folder, no ids but the names of the files."""
    images = [
        {
            "sentids": [],
            "imgid": number,
            "sentences": _sentences(number, number),
            "split": SPLITS[number],
            "filename": f"{number}.jpg",
        }
        for number in range(6)
    ]
    _save_pictures(folder / "images", "{}.jpg")
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    return folder / "dataset_flickr30k.json"


def _nocaps(folder: Path) -> Path:
    """As nocaps_val_4500_captions.json."""
    images = [
        {
            "id": 100 + number,
            "license": 0,
            "width": 6,
            "height": 4,
            "open_images_id": f"{number:016x}",
            "file_name": f"{number:016x}.jpg",
            "coco_url": f"https://example.org/val/{number:016x}.jpg",
            "domain": SPLITS[number],
        }
        for number in range(6)
    ]
    notes = [{"image_id": 100 + number, "caption": text} for number in range(6) for text in CAPTIONS[number]]
    notes = [{**note, "id": place} for place, note in enumerate(reversed(notes))][::-1]
    _save_pictures(folder / "images", "{:016x}.jpg")
    data = {"licenses": [], "info": {}, "images": images, "annotations": notes}
    (folder / "nocaps_val_4500_captions.json").write_text(json.dumps(data))
    return folder / "nocaps_val_4500_captions.json"


def _add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _shards(folder: Path, kind: str = "txt") -> Path:
    """As WebDataset's and img2dataset's writers do it, with the statistics that they leave beside."""
    (folder / "shards").mkdir()
    for shard in range(3):
        with tarfile.open(folder / "shards" / f"{shard:05d}.tar", "w") as archive:
            for number in range(2 * shard, 2 * shard + 2):
                _add_sample(archive, number, kind)
    pq.write_table(pa.table({"url": ["x"]}), folder / "shards" / "00000.parquet")
    (folder / "shards" / "00000_stats.json").write_text("{}")
    return folder / "shards"


def _add_sample(archive: tarfile.TarFile, number: int, kind: str) -> None:
    if PICTURES[number] is not None:
        _add_member(archive, f"p{number}.jpg", PICTURES[number])
    captions = [text.strip("\n") for text in CAPTIONS[number]]
    if kind == "json":
        _add_member(archive, f"p{number}.json", json.dumps({"caption": captions, "key": "x"}).encode())
    elif len(captions) == 2 and not "".join(captions).strip():
        # In lines, two empty captions cannot be told from one; as JSON they can.
        _add_member(archive, f"p{number}.json", json.dumps({"captions": captions}).encode())
    elif captions:
        _add_member(archive, f"p{number}.txt", "\n".join(captions).encode())
        _add_member(archive, f"p{number}.json", json.dumps({"caption": "of the page"}).encode())


def _shards_txt(folder: Path) -> Path:
    return _shards(folder)


def _shards_json(folder: Path) -> Path:
    return _shards(folder, "json")


def _shards_braces(folder: Path) -> Path:
    return _shards(folder) / "{00000..00002}.tar"


def _table_rows() -> list[dict[str, str]]:
    return [
        {"split": SPLITS[number], "image": f"a/{number}.jpg", "caption": text}
        for number in range(6)
        for text in CAPTIONS[number]
    ]


def _folder_csv(folder: Path) -> Path:
    _save_pictures(folder / "set", "a/{}.jpg")
    with (folder / "set" / "captions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["split", "image", "caption"])
        writer.writeheader()
        writer.writerows(_table_rows())
    return folder / "set"


def _folder_jsonl(folder: Path) -> Path:
    """Hugging Face's metadata.jsonl, one line per picture."""
    _save_pictures(folder / "set", "a/{}.jpg")
    lines = [
        {"file_name": f"./a/{number}.jpg", "caption": CAPTIONS[number], "split": SPLITS[number]}
        for number in range(6)
    ]
    (folder / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "set"


def _folder_table(folder: Path) -> Path:
    """The table alone is named; ids in a column, pictures in `images`."""
    _save_pictures(folder / "images", "a/{}.jpg")
    lines = [{**row, "id": "p" + row["image"][2]} for row in _table_rows()]
    lines.append({"image": "a/2.jpg", "caption": [], "id": "p2"})
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "pairs.jsonl"


LAYOUTS = {
    "p{}": [
        _parquet,
        _parquet_binary,
        _parquet_rows,
        _shards_txt,
        _shards_json,
        _shards_braces,
        _folder_table,
    ],
    "{}.jpg": [_karpathy_flickr],
    "a/{}.jpg": [_folder_csv, _folder_jsonl],
    100: [_karpathy_coco, _nocaps],
}
EVERY = [pytest.param(write, ids, id=write.__name__) for ids, some in LAYOUTS.items() for write in some]


def _id(ids: str | int, number: int) -> object:
    return ids + number if isinstance(ids, int) else ids.format(number)


@pytest.mark.parametrize(("write", "ids"), EVERY)
def test_whole_images_in_a_stable_order(write, ids, tmp_path: Path) -> None:
    found = open_image_texts(write(tmp_path))
    assert found.ids.to_pylist() == [_id(ids, n) for n in WHOLE]
    assert found.captions == CLEAN
    assert len(found) == 3
    assert list(found.contents()) == [PICTURES[n] for n in WHOLE]


@pytest.mark.parametrize(("write", "ids"), EVERY)
def test_what_is_missing_is_counted_and_named(write, ids, tmp_path: Path) -> None:
    skipped = open_image_texts(write(tmp_path)).skipped
    two, three, four, five = (str(_id(ids, n)) for n in (2, 3, 4, 5))
    assert set(skipped.images_without_captions.first) == {two, three}
    assert skipped.images_without_captions.count == 2
    assert skipped.captions_without_images == Left(2, (four,))
    assert skipped.empty_captions == Left(2, (three,))
    assert skipped.repeated_captions == Left(1, (five,))
    assert f"captions without images: 2 ('{four}')" in str(skipped)


@pytest.mark.parametrize(("write", "ids"), EVERY)
def test_chosen_rows(write, ids, tmp_path: Path) -> None:
    found = open_image_texts(write(tmp_path))
    assert list(found.contents([0, 2])) == [PICTURES[0], PICTURES[5]]
    assert list(found.contents([2])) == [PICTURES[5]]
    assert list(found.contents([])) == []
    for rows in ([2, 0], [3], [-1]):
        with pytest.raises(UsageError, match="rows must ascend from 0 to 2"):
            found.contents(rows)


@pytest.mark.parametrize(("write", "ids"), EVERY)
def test_relevance_counts_equal_captions_once(write, ids, tmp_path: Path) -> None:
    captions = open_image_texts(write(tmp_path)).relevance()
    assert captions.texts.to_pylist() == ["a dog", "a hound", "a cat", "ä cat"]
    assert captions.images.tolist() == [0, 0, 1, 2, 2]
    assert captions.captions.tolist() == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(("write", "ids"), EVERY)
def test_fingerprint_is_stable_and_json(write, ids, tmp_path: Path) -> None:
    location = write(tmp_path)
    first = open_image_texts(location).fingerprint()
    assert first == open_image_texts(location).fingerprint() == json.loads(json.dumps(first))


SPLIT_LAYOUTS = [
    _parquet,
    _parquet_rows,
    _karpathy_coco,
    _karpathy_flickr,
    _nocaps,
    _folder_csv,
    _folder_jsonl,
]


@pytest.mark.parametrize("write", SPLIT_LAYOUTS)
def test_splits(write, tmp_path: Path) -> None:
    location = write(tmp_path)
    train, test = (open_image_texts(location, split=split) for split in ("train", "test"))
    assert list(train.contents()) == [PICTURES[0]]
    assert list(test.contents()) == [PICTURES[5]]
    assert train.skipped.images_without_captions.count == 1
    assert train.fingerprint() != test.fingerprint()
    assert len(open_image_texts(location, split="train+test")) == 2
    for split in ("dev", "train+dev"):
        with pytest.raises(UsageError, match="no split 'dev'; there are test, train, val"):
            open_image_texts(location, split=split)


def test_nothing_skipped_says_so() -> None:
    assert not Skipped()
    assert str(Skipped()) == "nothing"
    assert str(Left(9, tuple("abcde"))) == "9 ('a', 'b', 'c', 'd', 'e', ...)"


# --- Parquet


def _write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_splits_by_file_names(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "testimonials"):
        _write(tmp_path / f"{name}.parquet", image=[PICTURES[0]], caption=[name])
    assert open_image_texts(tmp_path, split="test").captions == [["test"]]
    assert len(open_image_texts(tmp_path, split="train")) == 2
    assert len(open_image_texts(tmp_path)) == 4
    with pytest.raises(UsageError, match="no split 'val'"):
        open_image_texts(tmp_path, split="val")
    with pytest.raises(UsageError, match="no split 'train'"):
        open_image_texts(tmp_path / "test.parquet", split="train")


def test_parquet_without_ids_counts_rows_over_files(tmp_path: Path) -> None:
    for part in range(2):
        _write(tmp_path / f"{part}.parquet", image=PICTURES[:2], caption=["a", "" if part else "b"])
    found = open_image_texts(tmp_path)
    assert found.ids.to_pylist() == [0, 1, 2]
    assert found.skipped.images_without_captions == Left(1, ("3",))


def test_parquet_ids_from_a_field(tmp_path: Path) -> None:
    images = [{"bytes": PICTURES[n], "path": f"{n // 2}.jpg"} for n in range(4)]
    path = _write(tmp_path / "a.parquet", image=images, title=list("abcd"))
    found = open_image_texts(path, caption_column="title", id_column="image.path")
    assert found.ids.to_pylist() == ["0.jpg", "1.jpg"]
    assert found.captions == [["a", "b"], ["c", "d"]]
    assert list(found.contents()) == [PICTURES[0], PICTURES[2]]


def test_parquet_reads_only_the_row_groups_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(
        pa.table({"image": [b"%d" % n for n in range(100)], "caption": [str(n) for n in range(100)]}),
        tmp_path / "a.parquet",
        row_group_size=10,
    )
    found = ParquetImageTexts(tmp_path / "a.parquet")
    groups = []
    monkeypatch.setattr(
        found, "_of_group", lambda file, group, wanted: groups.append((group, wanted.tolist())) or []
    )
    list(found.contents([5, 35, 39, 99]))
    assert groups == [(0, [5]), (3, [5, 9]), (9, [9])]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"image": [b"x"], "text": ["a"]}, UsageError, "no column 'caption'; it has 'image'"),
        ({"picture": [b"x"], "text": ["a"]}, UsageError, "no column 'image', 'caption'"),
        ({"image": ["x.jpg"], "caption": ["a"]}, DataError, "pictures are binary or a struct"),
        ({"image": [b"x"], "caption": [7]}, DataError, "captions are strings"),
        ({"image": [b"x"], "caption": [" "]}, DataError, "no image with a caption is left; skipped images"),
        ({"image": [None], "caption": ["a"]}, DataError, "pictures are binary"),
        ({"image": [None, b""], "caption": ["a", None]}, DataError, r"captions without images: 1 \('0'\)"),
        ({"image": [b"x"], "caption": ["a"], "id": [None]}, DataError, "1 rows have no 'id'"),
        ({"image": [b"x"], "caption": ["a"], "id": [1.5]}, DataError, "ids of type double"),
        (
            {"image": [b"x"] * 2, "caption": [["a"] * 3, list(map(str, range(2000)))]},
            DataError,
            "1000 captions",
        ),
    ],
)
def test_bad_parquet(columns: dict[str, object], error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        open_image_texts(_write(tmp_path / "a.parquet", **columns))


def test_parquet_named_id_column_must_be_there(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", image=[b"x"], caption=["a"])
    for name in ("key", "image.path"):
        with pytest.raises(UsageError, match=f"no column '{name}'"):
            open_image_texts(path, id_column=name)


def test_parquet_cut_short(tmp_path: Path) -> None:
    path = _parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UnreadableFile, match=r"set\.parquet"):
        open_image_texts(path)
    with pytest.raises(UnreadableFile, match="no such file"):
        open_image_texts(tmp_path / "absent.parquet")


def test_a_picture_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfade.datasets.image_texts.base.MAX_PICTURE_BYTES", 10)
    with pytest.raises(DataError, match="pictures may have 10"):
        list(open_image_texts(_parquet(tmp_path)).contents())


def test_parquet_files_of_two_kinds(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", image=[b"x"], caption=["a"])
    _write(tmp_path / "b.parquet", image=[{"bytes": b"x"}], caption=["a"])
    with pytest.raises(DataError, match=r"b\.parquet: .* another type than in .*a\.parquet"):
        open_image_texts(tmp_path)
