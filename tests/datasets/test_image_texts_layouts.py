"""What is particular to a layout of captioned images, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from crossfade.datasets.image_texts import Left, open_image_texts
from crossfade.datasets.image_texts.braces import expand_braces
from crossfade.datasets.image_texts.picture_files import safe_name
from crossfade.errors import CrossfadeError, DataError, DuplicateIds, UnreadableFile, UsageError

ESCAPES = [
    "../secret.jpg",
    "a/../../secret.jpg",
    "/etc/passwd",
    "C:\\x.jpg",
    "..\\x.jpg",
    "\\\\host\\x",
    "",
    "a\0b",
]


def _json(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


def _entry(name: str, *texts: object, **more: object) -> dict[str, object]:
    return {"filename": name, "sentences": [{"raw": text} for text in texts], **more}


def _karpathy(folder: Path, *entries: object) -> Path:
    return _json(folder / "dataset_x.json", {"images": list(entries)})


# --- Karpathy


def test_karpathy_root_of_the_pictures_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"A")
    path = _karpathy(
        tmp_path, _entry("a.jpg", "one", filepath="val2014"), _entry("b.jpg", "two", filepath="val2014")
    )
    with pytest.raises(
        UnreadableFile, match=r"none of the pictures is in .*'val2014/a.jpg'; give the folder"
    ):
        open_image_texts(path)
    found = open_image_texts(path, images=tmp_path / "pictures")
    assert found.ids.to_pylist() == ["val2014/a.jpg"]
    assert list(found.contents()) == [b"A"]
    assert found.skipped.captions_without_images == Left(1, ("val2014/b.jpg",))
    with pytest.raises(UnreadableFile, match="no such folder"):
        open_image_texts(path, images=tmp_path / "absent")


def test_karpathy_tokens_where_there_is_no_raw_text(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"A")
    path = _karpathy(tmp_path, {"filename": "a.jpg", "sentences": [{"tokens": ["a", "dog"]}, {"raw": "x"}]})
    assert open_image_texts(path).captions == [["a dog", "x"]]


def test_karpathy_same_id_for_two_pictures(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"A")
    path = _karpathy(tmp_path, _entry("a.jpg", "x", cocoid=7), _entry("b.jpg", "y", cocoid=7))
    with pytest.raises(DuplicateIds, match=r"images 1: id 7 stands for 'b.jpg' here and for 'a.jpg' before"):
        open_image_texts(path)


@pytest.mark.parametrize("name", ESCAPES)
def test_no_path_leaves_the_root(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "fine.jpg").write_bytes(b"fine")
    with pytest.raises(DataError, match="not below the images' root"):
        safe_name(name, "here")
    files = [
        _karpathy(tmp_path, _entry("fine.jpg", "x"), _entry(name or " ", "y")),
        _json(
            tmp_path / "nocaps.json",
            {
                "images": [{"id": 1, "file_name": "fine.jpg"}, {"id": 2, "file_name": name or " "}],
                "annotations": [{"image_id": 1, "caption": "x"}],
            },
        ),
        tmp_path / "pairs.jsonl",
    ]
    lines = [{"image": "fine.jpg", "caption": "x"}, {"image": name, "caption": "y"}]
    files[2].write_text("\n".join(map(json.dumps, lines)))
    for path in files:
        with pytest.raises(DataError, match=r"not below the images' root|path of a picture"):
            open_image_texts(path, images=tmp_path / "root")


def test_folder_of_a_picture_must_not_leave_the_root_either(tmp_path: Path) -> None:
    path = _karpathy(tmp_path, _entry("a.jpg", "x", filepath="../elsewhere"))
    with pytest.raises(DataError, match="not below"):
        open_image_texts(path)


def test_only_files_are_pictures(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "a.jpg").write_bytes(b"A")
    path = _karpathy(tmp_path, *(_entry(name, "x") for name in ("folder.jpg", "pipe.jpg", "a.jpg")))
    assert open_image_texts(path).ids.to_pylist() == ["a.jpg"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"images": [{"filen', UnreadableFile, "no valid JSON, it may be cut short"),
        ("[]", UnreadableFile, "expected a JSON object with 'images', got list"),
        ('{"pictures": []}', UnreadableFile, "neither a Karpathy split .* it has 'pictures'"),
        ('{"images": {}}', DataError, "no list 'images'"),
        ('{"images": []}', DataError, "no image with a caption is left; skipped nothing"),
        ('{"images": [3]}', DataError, "images 0: expected an object, got int"),
        ('{"images": [{"sentences": []}]}', DataError, "images 0: no 'filename'"),
        ('{"images": [{"filename": "a.jpg", "sentences": "x"}]}', DataError, "list of objects with 'raw'"),
        (
            '{"images": [{"filename": "a.jpg", "sentences": [{"raw": 1}]}]}',
            DataError,
            "'raw' should be a text",
        ),
        ('{"images": [{"filename": "a.jpg", "sentences": [{"tokens": 1}]}]}', DataError, "list of words"),
        ('{"images": [{"filename": "a.jpg", "cocoid": [1]}]}', DataError, "'cocoid' should be an integer"),
        ('{"images": [{"filename": "a.jpg", "sentences": []}]}', DataError, "without captions: 1 .'a.jpg'"),
        ('{"images": [{"id": 1}], "annotations": []}', DataError, "images 0: no 'file_name'"),
        ('{"images": [], "annotations": 7}', DataError, "no list 'annotations'"),
        ('{"images": [], "annotations": [{"caption": "x"}]}', DataError, "'image_id' should be"),
        ('{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', DataError, r"images: 1 \('1'\)"),
    ],
)
def test_bad_json(content: str, error: type, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"A")
    path = tmp_path / "set.json"
    path.write_text(content)
    with pytest.raises(error, match=message):
        open_image_texts(path)


# --- nocaps and COCO


def test_coco_has_no_splits_and_orphans_are_counted(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"A")
    path = _json(
        tmp_path / "captions_val2014.json",
        {
            "images": [{"id": 1, "coco_url": "http://example.org/val/1.jpg"}],
            "annotations": [
                {"image_id": one, "caption": f"number {n}"} for n, one in enumerate((9, 1, 9, 8))
            ],
        },
    )
    found = open_image_texts(path)
    assert found.captions == [["number 1"]]
    assert found.skipped.captions_without_images == Left(3, ("9", "8"))
    with pytest.raises(UsageError, match="no domains"):
        open_image_texts(path, split="val")


def test_a_picture_that_went_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"A")
    found = open_image_texts(_karpathy(tmp_path, _entry("a.jpg", "x")))
    before = found.fingerprint()
    (tmp_path / "a.jpg").write_bytes(b"another")
    assert found.fingerprint() != before
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UnreadableFile, match=r"a\.jpg: no such file"):
        list(found.contents())


# --- WebDataset


def _shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_shard_cut_anywhere_is_refused(tmp_path: Path) -> None:
    members = {"a.jpg": b"1" * 700, "a.txt": b"one", "b.jpg": b"2" * 300, "b.json": b'{"caption": "two"}'}
    whole = _shard(tmp_path / "0.tar", members).read_bytes()
    end = (512 + 1024) + (512 + 512) * 3
    assert whole[end:] == bytes(len(whole) - end)
    for cut in [*range(0, end + 512, 128), *range(511, end, 512), *range(513, end, 512)]:
        (tmp_path / "0.tar").write_bytes(whole[:cut])
        with pytest.raises(UnreadableFile, match=r"0\.tar.*half-written.*write or copy it again") as caught:
            open_image_texts(tmp_path / "0.tar")
        if cut == end:
            assert "after member 'b.json' (the end mark is missing)" in str(caught.value)
    (tmp_path / "0.tar").write_bytes(whole[: end + 512])
    assert len(open_image_texts(tmp_path)) == 2


def test_a_shard_cut_after_it_was_opened(tmp_path: Path) -> None:
    path = _shard(tmp_path / "0.tar", {"a.txt": b"one", "a.jpg": b"1" * 700})
    found = open_image_texts(path)
    path.write_bytes(path.read_bytes()[:1900])
    with pytest.raises(UnreadableFile, match="half-written, 364 of 700 bytes"):
        list(found.contents())


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path) -> None:
    path = _shard(tmp_path / "0.tar", {"a.jpg": b"1", "a.txt": b"one", "b.jpg": b"2", "b.txt": b"two"})
    content = bytearray(path.read_bytes())
    content[2048 + 100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"after member 'a\.txt'"):
        open_image_texts(path)


def test_keys_end_at_the_first_dot(tmp_path: Path) -> None:
    members = {
        "./x/a.JPG": b"A",
        "x/a.txt": b"one\r\ntwo\r\n",
        "y.z/b.png": b"B",
        "y.z/b.txt": b"three",
        "y.z/b.seg.png": b"mask",
        "._a.jpg": b"resource fork",
        "readme": b"text",
        "c.cls": b"7",
    }
    found = open_image_texts(_shard(tmp_path / "0.tar", members))
    assert found.ids.to_pylist() == ["x/a", "y.z/b"]
    assert found.captions == [["one", "two"], ["three"]]
    assert list(found.contents()) == [b"A", b"B"]
    assert not found.skipped


def test_the_same_keys_in_every_shard(tmp_path: Path) -> None:
    for shard in range(2):
        _shard(tmp_path / f"part-{shard}.tar", {"0.webp": b"%d" % shard, "0.txt": b"same"})
    found = open_image_texts(tmp_path / "part-{0..1}.tar")
    assert found.ids.to_pylist() == ["part-0/0", "part-1/0"]
    assert list(found.contents()) == [b"0", b"1"]
    assert open_image_texts(tmp_path / "part-1.tar").ids.to_pylist() == ["0"]


def test_captions_under_another_name_of_the_json_files(tmp_path: Path) -> None:
    members = {
        "a.jpg": b"A",
        "a.txt": b"alt text",
        "a.json": b'{"caption": "alt text", "long": "a long text"}',
    }
    path = _shard(tmp_path / "0.tar", members)
    assert open_image_texts(path).captions == [["alt text"]]
    found = open_image_texts(path, caption_column="long")
    assert found.captions == [["a long text"]]
    assert found.fingerprint() != open_image_texts(path).fingerprint()
    with pytest.raises(DataError, match=r"images without captions: 1 .'a'"):
        open_image_texts(path, caption_column="short")


def test_shards_by_split(tmp_path: Path) -> None:
    for name in ("train-000", "train-001", "test-000"):
        _shard(tmp_path / f"{name}.tar", {f"{name}.jpg": b"A", f"{name}.txt": name.encode()})
    assert open_image_texts(tmp_path, split="test").captions == [["test-000"]]
    assert len(open_image_texts(tmp_path, split="train")) == 2
    with pytest.raises(UsageError, match="no split"):
        open_image_texts(tmp_path / "train-{000..001}.tar", split="train")


def test_links_in_a_shard_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "a.jpg"),
            (tarfile.LNKTYPE, "b.jpg"),
            (tarfile.CHRTYPE, "c.jpg"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret")
            archive.addfile(member)
        for name in ("a.txt", "b.txt", "c.txt"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=r"empty captions: 3"):
        open_image_texts(tmp_path / "0.tar")


def test_shards_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = _shard(tmp_path / "0.tar", {"a.jpg": b"A" * 100, "a.txt": b"x" * 60})
    with pytest.raises(UnreadableFile, match=r"2 of 3 shards are absent, the first is .*1\.tar"):
        open_image_texts(tmp_path / "{0..2}.tar")
    (tmp_path / "gz.tar").write_bytes(gzip.compress(good.read_bytes()))
    with pytest.raises(UnreadableFile, match=r"gz\.tar.*unpack it if it is compressed"):
        open_image_texts(tmp_path / "gz.tar")
    for name, content in (
        ("a.txt", b"\xff"),
        ("a.json", b"{"),
        ("a.json", b'{"caption": 5}'),
        ("a.json", b"[]"),
    ):
        with pytest.raises(DataError, match=rf"member '{name}'"):
            open_image_texts(_shard(tmp_path / "bad.tar", {"a.jpg": b"A", name: content}))
    with pytest.raises(UsageError, match="leave images out"):
        open_image_texts(good, images=tmp_path)
    monkeypatch.setattr("crossfade.datasets.image_texts.webdataset.MAX_LINE_BYTES", 50)
    with pytest.raises(DataError, match=r"'a\.txt': 60 bytes; captions may have 50"):
        open_image_texts(good)
    monkeypatch.setattr("crossfade.datasets.image_texts.base.MAX_PICTURE_BYTES", 50)
    with pytest.raises(DataError, match=r"'a\.jpg': 100 bytes, pictures may have 50"):
        open_image_texts(good)


def test_braces() -> None:
    assert expand_braces("a.tar") == ["a.tar"]
    assert expand_braces("s-{08..11}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]
    assert expand_braces("s-{8..10}.tar") == ["s-8.tar", "s-9.tar", "s-10.tar"]
    assert expand_braces("s-{2..1}") == ["s-2", "s-1"]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    for pattern in ("a{b", "a}b", "{a{b}}"):
        with pytest.raises(UsageError, match="unbalanced or nested"):
            expand_braces(pattern)
    for pattern in ("{0..99999999999}", "{0..9999}{0..9999}"):
        with pytest.raises(UsageError, match="at most"):
            expand_braces(pattern)


# --- folders with a table


def _folder(root: Path, table: str, content: str, *names: str) -> Path:
    (root / table).write_text(content)
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_flickr8k_as_a_table(tmp_path: Path) -> None:
    content = 'image,caption\n1.jpg,"A dog , running ."\n1.jpg,"Two\nlines"\n2.jpg,plain\n'
    found = open_image_texts(_folder(tmp_path, "captions.csv", content, "1.jpg", "2.jpg"))
    assert found.captions == [["A dog , running .", "Two\nlines"], ["plain"]]
    assert list(found.contents()) == [b"1.jpg", b"2.jpg"]


def test_ids_of_captions_are_not_ids_of_pictures(tmp_path: Path) -> None:
    content = "id,image,caption\n1,a.jpg,x\n2,a.jpg,y\n3,b.jpg,z\n"
    _folder(tmp_path, "captions.csv", content, "a.jpg", "b.jpg")
    assert open_image_texts(tmp_path).ids.to_pylist() == ["a.jpg", "b.jpg"]
    (tmp_path / "captions.csv").write_text(content.replace("id,", "key,"))
    with pytest.raises(DataError, match="'key' has not one id for every picture"):
        open_image_texts(tmp_path, id_column="key")


def test_tabs_and_other_columns(tmp_path: Path) -> None:
    content = "name\ttitle\tkey\na/x.jpg\ta dog, running\t7\n"
    _folder(tmp_path, "captions.tsv", content, "a/x.jpg", "a/y.PNG", "notes.txt")
    found = open_image_texts(tmp_path, image_column="name", caption_column="title", id_column="key")
    assert (found.ids.to_pylist(), found.captions) == (["7"], [["a dog, running"]])
    assert found.skipped.images_without_captions == Left(1, ("a/y.PNG",))


@pytest.mark.parametrize(
    ("table", "content", "error", "message"),
    [
        (
            "captions.csv",
            "image,caption\na.jpg,a dog, running\n",
            DataError,
            "line 2: 3 cells under 2 columns",
        ),
        ("captions.csv", "image,caption\na.jpg\n", DataError, "line 2: 1 cells under 2 columns"),
        (
            "captions.csv",
            "image,text\na.jpg,x\n",
            UsageError,
            "no column 'caption'; it has image, text|'image'",
        ),
        (
            "captions.csv",
            'image,caption\na.jpg,"' + "x" * 200_000,
            DataError,
            "captions.csv, line 2: field larger",
        ),
        ("captions.csv", 'image,caption\na.jpg,"x', DataError, "line 2: unexpected end"),
        ("captions.csv", "image,caption\n,x\n", DataError, "line 2: 'image' should be the path"),
        ("captions.csv", "image,caption\n", DataError, "no image with a caption"),
        ("captions.csv", "", DataError, "no image with a caption"),
        ("captions.jsonl", '{"image": "a.jpg", "caption": 1}', DataError, "line 1: expected a text"),
        ("captions.jsonl", '{"image": "a.jpg", "capt', DataError, "line 1: not valid JSON"),
        ("captions.jsonl", '{"image": 7, "caption": "x"}', DataError, "line 1: 'image' should be the path"),
        (
            "captions.jsonl",
            '{"image": "a.jpg", "caption": "x", "id": [1]}',
            DataError,
            "'id' should be an integer",
        ),
        ("captions.jsonl", '{"image": "b.jpg", "caption": "x"}', UnreadableFile, "none of the pictures"),
    ],
)
def test_bad_tables(table: str, content: str, error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        open_image_texts(_folder(tmp_path, table, content, "a.jpg"))


def test_a_table_that_is_not_utf8(tmp_path: Path) -> None:
    _folder(tmp_path, "captions.csv", "", "a.jpg")
    (tmp_path / "captions.csv").write_bytes(b"image,caption\na.jpg,\xe4\n")
    with pytest.raises(UnreadableFile, match="not UTF-8"):
        open_image_texts(tmp_path)


# --- what is not recognised


def test_locations_that_are_no_set(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"A")
    for path, message in (
        (tmp_path, "no captioned images that are understood; give a Karpathy"),
        (tmp_path / "a.jpg", "not read from such a file"),
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path / "absent.tar", "no such file"),
        ("pipe:cat x.tar", "no such file"),
        ("https://example.org/{0..1}.tar", "2 of 2 shards are absent"),
    ):
        with pytest.raises(CrossfadeError, match=message):
            open_image_texts(path)
