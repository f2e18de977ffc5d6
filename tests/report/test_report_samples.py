from __future__ import annotations

import struct

import pytest

from crossfade.report import samples
from crossfade.report.samples import Hit, SampleSearch, bound, data_uri, is_small, media_type

PNG = b"\x89PNG\r\n\x1a\n"


def png(width: int = 8, height: int = 8, size: int = 64) -> bytes:
    """The first bytes of a PNG, padded to `size`."""
    return (PNG + struct.pack(">I4sII", 13, b"IHDR", width, height)).ljust(size, b"\0")


def search(*images: bytes | None) -> SampleSearch:
    return SampleSearch(
        "a query", None, [("old/old", [Hit(str(i), "", image) for i, image in enumerate(images)])]
    )


def test_keeps_the_first_searches_and_says_how_many_there_were() -> None:
    found = bound([search()] * (samples.MAX_SEARCHES + 3))
    assert len(found.searches) == samples.MAX_SEARCHES
    assert found.notes == ("15 sample searches were given; the first 12 are shown.",)


def test_keeps_the_first_hits() -> None:
    found = bound([search(*[None] * 50)])
    assert len(found.searches[0].columns[0][1]) == samples.MAX_HITS


def test_large_and_unknown_pictures_are_left_out_and_counted() -> None:
    large, svg = png(size=samples.MAX_IMAGE_BYTES + 1), b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    found = bound([search(png(), large, svg)])
    assert [hit.image is not None for hit in found.searches[0].columns[0][1]] == [True, False, False]
    assert found.notes == (
        "Pictures left out: 1 (larger than 96 KiB).",
        "Pictures left out: 1 (not PNG, JPEG, GIF or WebP).",
    )


def test_all_pictures_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_TOTAL_IMAGE_BYTES", 2 * 2**20)
    picture = png(size=samples.MAX_IMAGE_BYTES)
    found = bound([search(*[picture] * 10)] * 5)
    kept = sum(hit.image is not None for one in found.searches for _, hits in one.columns for hit in hits)
    assert kept == 2 * 2**20 // samples.MAX_IMAGE_BYTES
    assert found.notes == (f"Pictures left out: {50 - kept} (beyond 2 MiB of pictures in one report).",)


def test_long_captions_are_cut() -> None:
    found = bound([SampleSearch("q" * 999, None, [("old/old", [Hit("1", "c" * 999)])])])
    assert (
        len(found.searches[0].query_text)
        == len(found.searches[0].columns[0][1][0].caption)
        == samples.MAX_CAPTION
    )


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (png(), "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"GIF89a....", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"<svg/>", None),
        (b"", None),
    ],
)
def test_media_type_comes_from_the_signature(image: bytes, expected: str | None) -> None:
    assert media_type(image) == expected


def test_small_pictures_keep_their_pixels() -> None:
    assert is_small(png(48, 48))
    assert not is_small(png(48, 400))
    assert is_small(b"GIF89a" + struct.pack("<HH", 16, 16))
    assert not is_small(b"\xff\xd8\xff\xe0" + bytes(20))


def test_data_uri() -> None:
    assert data_uri(b"\xff\xd8\xff").startswith("data:image/jpeg;base64,/9j/")
