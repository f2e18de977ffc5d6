"""Images and captions as training reads them: which caption is whose, what is drawn, what is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_words import ColourWords

from crossfade.encoders.architecture import Architecture
from crossfade.encoders.dual_network import Tokens
from crossfade.encoders.picture_settings import PictureSettings
from crossfade.errors import DataError
from crossfade.training.augment import Augmentation
from crossfade.training.distributed import Workers
from crossfade.training.order import Shuffled
from crossfade.training.pairs_data import ImagePairs, PairBatches, PairPart, read_pairs
from crossfade.training.recipe import AugmentationRecipe

SETTINGS = PictureSettings(side=16, resize_to=16)
BATCH = 24


@pytest.fixture(scope="module")
def images() -> ColourWords:
    return ColourWords()


@pytest.fixture(scope="module")
def pairs(images: ColourWords, tmp_path_factory: pytest.TempPathFactory) -> ImagePairs:
    return read_pairs(images, SETTINGS, tmp_path_factory.mktemp("cache"))


def _tokens(captions: tuple[str, ...]) -> Tokens:
    """A number for each word, 0 where there is none."""
    words = {word: number for number, word in enumerate(sorted({w for c in captions for w in c.split()}), 1)}
    ids = torch.tensor([[words[word] for word in caption.split()] + [0, 0] for caption in captions])
    return Tokens(ids, (ids > 0).long())


def _batches(pairs: ImagePairs, count: int = 0, **changes: Any) -> PairBatches:
    options = {"accumulate": 1, "seed": 3, "workers": Workers("cpu"), "augmentation": None, **changes}
    order = Shuffled(count or len(pairs), BATCH, 3)
    augmentation = options.pop("augmentation")
    return PairBatches(pairs, _tokens(pairs.captions), order, augmentation, **options)


def _parts(batches: PairBatches, start: int = 0, stop: int = 3) -> list[PairPart]:
    return [part for _, parts in batches.stream(start, stop) for part in parts]


def test_captions_stay_with_their_images_when_a_picture_is_unreadable(tmp_path: Path) -> None:
    images = ColourWords(copies=1)
    images.pictures[3] = b"broken"
    with pytest.raises(DataError, match=r"1 of 30 images cannot be read: 'picture 3'; .*data.corrupt=skip"):
        read_pairs(images, SETTINGS, tmp_path)
    pairs = read_pairs(images, SETTINGS, tmp_path, on_corrupt="skip")
    assert pairs.corrupt == ("picture 3",)
    rows = [row for row in range(30) if row != 3]
    assert pairs.ids.to_pylist() == [f"picture {row}" for row in rows]
    assert np.array_equal(pairs.array[5], SETTINGS.decode(images.pictures[6]))
    for row, original in enumerate(rows):
        found = [pairs.captions[one] for one in pairs.captions_of(np.array([row]))]
        assert found == images.captions[original]


def test_the_cache_is_opened_again_and_captions_are_not_in_it(
    images: ColourWords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_pairs(images, SETTINGS, tmp_path)
    monkeypatch.setattr(PictureSettings, "decode", None)
    others = ColourWords()
    others.captions = [["the same for all"] for _ in others.captions]
    again = read_pairs(others, SETTINGS, tmp_path)
    assert np.array_equal(first.array, again.array)
    assert set(again.captions) == {"the same for all"}
    rows = np.arange(5)
    assert first.digest(rows) != again.digest(rows)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_batch_holds_a_caption_of_each_image(pairs: ImagePairs) -> None:
    """Told apart by vectors that number images and captions."""
    numbers = {"row": np.arange(len(pairs), dtype=np.float32)[:, None]}
    spoken = {"caption": np.arange(len(pairs.captions), dtype=np.float32)[:, None]}
    tokens, drawn = _tokens(pairs.captions), []
    for part in _parts(_batches(pairs, image_vectors=numbers, caption_vectors=spoken), 0, 10):
        rows = part.image_vectors["row"][:, 0].long().numpy()
        captions = part.caption_vectors["caption"][:, 0].long().numpy()
        assert len(set(rows)) == BATCH
        assert ((pairs.starts[rows] <= captions) & (captions < pairs.starts[rows + 1])).all()
        assert torch.equal(part.tokens.input_ids, tokens.input_ids[captions][:, :3])  # the padding is cut
        pictures = torch.from_numpy(pairs.array[rows]).permute(0, 3, 1, 2) / 255
        assert torch.equal(part.pictures, pictures)
        drawn.append(captions - pairs.starts[rows])
    assert 0.4 < np.concatenate(drawn).mean() < 0.6


def test_equal_captions_of_other_images_are_known(pairs: ImagePairs, images: ColourWords) -> None:
    numbers = {"row": np.arange(len(pairs), dtype=np.float32)[:, None]}
    shared = 0
    for part in _parts(_batches(pairs, image_vectors=numbers)):
        shown = [images.pairs[int(row)] for row in part.image_vectors["row"][:, 0]]
        naive = torch.tensor([[one == other for other in shown] for one in shown])
        assert torch.equal(part.belongs, naive)
        shared += int(naive.sum()) - BATCH
    assert shared > 0


def test_a_caption_that_was_not_drawn_counts_as_well(images: ColourWords, tmp_path: Path) -> None:
    """Image i has the caption that was drawn for j, but not the other way round."""
    images = ColourWords(copies=1)
    images.captions = [["first", "second"]] + [["first"] for _ in images.captions[1:]]
    pairs = read_pairs(images, SETTINGS, tmp_path)
    batches = PairBatches(
        pairs,
        _tokens(tuple(f"{caption} x y" for caption in pairs.captions)),
        Shuffled(len(pairs), 30, 0),
        None,
        accumulate=1,
        seed=0,
        workers=Workers("cpu"),
        image_vectors={"row": np.arange(30, dtype=np.float32)[:, None]},
        caption_vectors={"second": np.array([[pairs.captions[row] == "second"] for row in range(31)])},
    )
    seen = set()
    for part in _parts(batches, 0, 8):
        second = bool(part.caption_vectors["second"].any())
        seen.add(second)
        first = int((part.image_vectors["row"][:, 0] == 0).nonzero())
        expected = torch.ones(30, 30, dtype=torch.bool)
        if second:  # nobody else has it
            expected[:, first] = False
            expected[first, first] = True
        assert torch.equal(part.belongs, expected)
    assert seen == {False, True}


def test_a_later_start_gives_the_same_steps(pairs: ImagePairs) -> None:
    augmentation = Augmentation(AugmentationRecipe(), Architecture(picture_size=16, input_size=16))
    whole = _parts(_batches(pairs, augmentation=augmentation), 0, 6)
    late = _parts(_batches(pairs, augmentation=augmentation), 4, 6)
    for first, second in zip(whole[4:], late, strict=True):
        assert torch.equal(first.pictures, second.pictures)
        assert torch.equal(first.tokens.input_ids, second.tokens.input_ids)
    assert not torch.equal(whole[0].pictures, whole[1].pictures)


class _Shared(Workers):
    def __init__(self, rank: int, count: int) -> None:
        super().__init__("cpu")
        self.rank, self.count = rank, count


def test_parts_and_processes_divide_the_same_batch(pairs: ImagePairs) -> None:
    augmentation = Augmentation(AugmentationRecipe(), Architecture(picture_size=16, input_size=16))
    rows = np.arange(40, 90)
    options = {"rows": rows, "augmentation": augmentation}
    (whole,) = _parts(_batches(pairs, len(rows), **options), 1, 2)
    divided = [
        _parts(_batches(pairs, len(rows), **options, accumulate=2, workers=_Shared(rank, 2)), 1, 2)
        for rank in (0, 1)
    ]
    pictures = torch.cat([divided[rank][number].pictures for number in (0, 1) for rank in (0, 1)])
    tokens = torch.cat([divided[rank][number].tokens.input_ids for number in (0, 1) for rank in (0, 1)])
    assert torch.equal(pictures, whole.pictures)
    assert torch.equal(tokens, whole.tokens.input_ids)
    half = BATCH // 2
    assert torch.equal(divided[0][0].belongs, whole.belongs[:half, :half])
    assert torch.equal(divided[1][1].belongs, whole.belongs[half:, half:])


def test_vectors_of_other_rows_are_refused(pairs: ImagePairs) -> None:
    with pytest.raises(DataError, match="'old' has 3 rows, there are 120 images"):
        _batches(pairs, image_vectors={"old": np.zeros((3, 2), dtype=np.float32)})
    with pytest.raises(DataError, match="'old' has 120 rows, there are 240 captions"):
        _batches(pairs, caption_vectors={"old": np.zeros((120, 2), dtype=np.float32)})
