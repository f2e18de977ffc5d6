from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossfade.datasets.images import FolderImages, ParquetImages, SavedDataset, open_images
from crossfade.datasets.labels import encode_labels
from crossfade.datasets.protocols import choose_part, require_several_per_class, without_small_classes
from crossfade.errors import DataError, UnreadableFile, UsageError


def _png(color: int, side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (color, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [_png(color) for color in range(0, 60, 10)]
LABELS = ["cat", "ant", "dog", "ant", "cat", "dog"]


def _table(binary: bool = False) -> pa.Table:
    images = pa.array(PICTURES if binary else [{"bytes": one, "path": None} for one in PICTURES])
    return pa.table({"image": images, "label": LABELS, "id": [f"p{row}" for row in range(6)]})


def _parquet(folder: Path) -> Path:
    pq.write_table(_table(), folder / "all.parquet", row_group_size=2)
    return folder / "all.parquet"


def _several_parquet(folder: Path) -> Path:
    (folder / "parts").mkdir()
    for part in range(3):
        table = _table(binary=True).slice(2 * part, 2)
        pq.write_table(table, folder / "parts" / f"part-{part}.parquet")
    return folder / "parts"


def _saved(folder: Path) -> Path:
    """As `datasets` writes it: Arrow streams and a state that lists them."""
    target = folder / "saved"
    target.mkdir()
    for part in range(2):
        with pa.OSFile(str(target / f"data-{part}.arrow"), "wb") as file:
            table = _table().slice(3 * part, 3)
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    state = {
        "_data_files": [{"filename": f"data-{part}.arrow"} for part in range(2)],
        "_indices_data_files": None,
    }
    (target / "state.json").write_text(json.dumps(state))
    return target


def _folders(folder: Path) -> Path:
    root = folder / "root"
    for row, (picture, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        (root / label / "deeper").mkdir(parents=True, exist_ok=True)
        (root / label / "deeper" / f"p{row}.PNG").write_bytes(picture)
    (root / "README.md").write_text("no picture")
    return root


@pytest.mark.parametrize("make", [_parquet, _several_parquet, _saved, _folders])
def test_every_layout_gives_the_same_pictures_and_classes(make, tmp_path: Path) -> None:
    images = open_images(make(tmp_path))
    assert len(images) == 6
    assert images.labels.names == ("ant", "cat", "dog")
    by_content = dict(zip(images.contents(), images.labels.codes, strict=True))
    expected = {
        picture: images.labels.names.index(label) for picture, label in zip(PICTURES, LABELS, strict=True)
    }
    assert by_content == expected
    contents = list(images.contents())
    some = list(images.contents(np.array([1, 2, 5])))
    assert some == [contents[row] for row in (1, 2, 5)]
    assert len(set(images.ids.to_pylist())) == 6


def test_the_layouts_are_told_apart(tmp_path: Path) -> None:
    assert isinstance(open_images(_parquet(tmp_path)), ParquetImages)
    assert isinstance(open_images(_several_parquet(tmp_path)), ParquetImages)
    assert isinstance(open_images(_saved(tmp_path)), SavedDataset)
    assert isinstance(open_images(_folders(tmp_path)), FolderImages)


def test_folder_ids_are_paths_and_rows_are_numbers_without_an_id_column(tmp_path: Path) -> None:
    assert open_images(_folders(tmp_path)).ids.to_pylist()[0] == "ant/deeper/p1.PNG"
    path = tmp_path / "x.parquet"
    pq.write_table(_table().drop_columns(["id"]), path)
    assert open_images(path).ids.to_pylist() == list(range(6))
    assert open_images(_parquet(tmp_path)).ids.to_pylist()[2] == "p2"


def test_the_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    before = open_images(_parquet(tmp_path)).fingerprint()
    assert open_images(tmp_path / "all.parquet").fingerprint() == before
    pq.write_table(_table().slice(0, 5), tmp_path / "all.parquet")
    assert open_images(tmp_path / "all.parquet").fingerprint() != before


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no such file or folder"):
        open_images(tmp_path / "absent")
    with pytest.raises(UnreadableFile, match="no pictures in folders of classes"):
        open_images(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(UnreadableFile, match="not a readable Parquet file"):
        open_images(tmp_path / "broken.parquet")
    with pytest.raises(UsageError, match=r"no column 'picture'; it has image, label, id"):
        open_images(_parquet(tmp_path), image="picture")


def test_a_saved_dataset_with_an_indices_mapping_is_refused(tmp_path: Path) -> None:
    folder = _saved(tmp_path)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(
        json.dumps({**state, "_indices_data_files": [{"filename": "i.arrow"}]})
    )
    with pytest.raises(UnreadableFile, match="flatten_indices"):
        open_images(folder)


def test_a_column_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), path)
    with pytest.raises(DataError, match="pictures are binary or a struct"):
        list(open_images(path).contents())


NUMBERS = encode_labels(np.repeat([10, 20, 30, 40, 50], [6, 6, 6, 6, 1]))


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ("all", (10, 20, 30, 40, 50)),
        ("first half", (10, 20)),
        ("first 3", (10, 20, 30)),
        ("last 2", (40, 50)),
        ("30, 10", (10, 30)),
    ],
)
def test_a_part_has_its_classes_recoded(classes: str, names: tuple[int, ...]) -> None:
    part = choose_part(NUMBERS, classes=classes)
    assert part.names == names
    values = np.array(NUMBERS.names)
    assert [part.names[code] for code in part.codes] == values[NUMBERS.codes[part.rows]].tolist()
    assert len(part) == sum(6 if name != 50 else 1 for name in names)


def test_a_fraction_is_of_every_class_and_seeded() -> None:
    part = choose_part(NUMBERS, fraction=0.5, seed=1)
    assert np.bincount(part.codes).tolist() == [3, 3, 3, 3, 1]
    assert np.array_equal(part.rows, choose_part(NUMBERS, fraction=0.5, seed=1).rows)
    assert not np.array_equal(part.rows, choose_part(NUMBERS, fraction=0.5, seed=2).rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "first 9"}, "there are 5 classes; ask for 1 to 5"),
        ({"classes": "10, 11"}, r"no class '11' among 5 \(10 to 50\)"),
        ({"fraction": 0.0}, r"in \(0, 1\], got 0.0"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_part(NUMBERS, **options)


def test_a_class_with_one_image_is_refused_or_left_out() -> None:
    part = choose_part(NUMBERS)
    with pytest.raises(
        DataError, match=r"1 of 5 classes have fewer than 2 images: 50 \(1\); .*small_classes=skip"
    ):
        require_several_per_class(part, 2, "numbers")
    kept = without_small_classes(part, 2)
    assert kept.names == (10, 20, 30, 40)
    assert np.bincount(kept.codes).tolist() == [6, 6, 6, 6]
    require_several_per_class(kept, 2, "numbers")
