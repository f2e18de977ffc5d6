"""Sample searches: what a person sees before and after the upgrade, with pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

MAX_SEARCHES = 12
MAX_HITS = 10
MAX_CAPTION = 240
MAX_IMAGE_BYTES = 96 * 1024
MAX_TOTAL_IMAGE_BYTES = 8 * 1024 * 1024
SMALL_SIDE = 128
"""Pictures up to this side, in pixels, are enlarged without smoothing."""

# SVG is left out on purpose: it can carry scripts and references to other files.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """One item that a search found.

    Attributes:
        id: id of the item in the gallery.
        caption: what is shown beside or below it; may be empty.
        image: the encoded picture (PNG, JPEG, GIF or WebP), if the item has one.
        relevant: whether the ground truth counts it as right; None where nothing says so.
        score: the similarity it was found with.
    """

    id: str
    caption: str = ""
    image: bytes | None = None
    relevant: bool | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class SampleSearch:
    """One query, answered by several rows of the matrix: columns of (name of the row, hits)."""

    query_text: str
    query_image: bytes | None = None
    columns: Sequence[tuple[str, Sequence[Hit]]] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """The search as JSON-ready values, without its pictures."""
        return {
            "query": self.query_text,
            "columns": [
                {"row": name, "hits": [_hit_values(hit) for hit in hits]} for name, hits in self.columns
            ],
        }


@dataclass(frozen=True, slots=True)
class BoundedSamples:
    """Sample searches cut down to what a report can carry, and one note for each kind of cut."""

    searches: tuple[SampleSearch, ...]
    notes: tuple[str, ...]


def bound(samples: Sequence[SampleSearch]) -> BoundedSamples:
    """Keep the first `MAX_SEARCHES` searches and `MAX_HITS` hits each; drop pictures that are too large."""
    budget = _ImageBudget()
    searches = tuple(_bound_search(search, budget) for search in samples[:MAX_SEARCHES])
    notes = list(budget.notes())
    if len(samples) > MAX_SEARCHES:
        notes.insert(0, f"{len(samples)} sample searches were given; the first {MAX_SEARCHES} are shown.")
    return BoundedSamples(searches, tuple(notes))


def media_type(image: bytes) -> str | None:
    """The media type by the file's signature; None if it is no raster picture that browsers show."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next((name for signature, name in _SIGNATURES if image.startswith(signature)), None)


def data_uri(image: bytes) -> str:
    """The picture as a ``data:`` address."""
    return f"data:{media_type(image)};base64,{base64.b64encode(image).decode('ascii')}"


def is_small(image: bytes) -> bool:
    """Whether enlarging the picture should keep its pixels sharp (known for PNG and GIF)."""
    if media_type(image) == "image/png":
        sides = (int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big"))
    elif media_type(image) == "image/gif":
        sides = (int.from_bytes(image[6:8], "little"), int.from_bytes(image[8:10], "little"))
    else:
        return False
    return max(sides) <= SMALL_SIDE


class _ImageBudget:
    """Decides picture by picture what is kept, and counts what is not."""

    def __init__(self) -> None:
        self.spent = 0
        self.too_large = 0
        self.over_budget = 0
        self.unknown = 0

    def admit(self, image: bytes | None) -> bytes | None:
        if not image:
            return None
        if media_type(image) is None:
            self.unknown += 1
        elif len(image) > MAX_IMAGE_BYTES:
            self.too_large += 1
        elif self.spent + len(image) > MAX_TOTAL_IMAGE_BYTES:
            self.over_budget += 1
        else:
            self.spent += len(image)
            return image
        return None

    def notes(self) -> list[str]:
        reasons = (
            (self.too_large, f"larger than {MAX_IMAGE_BYTES // 1024} KiB"),
            (self.over_budget, f"beyond {MAX_TOTAL_IMAGE_BYTES // 2**20} MiB of pictures in one report"),
            (self.unknown, "not PNG, JPEG, GIF or WebP"),
        )
        return [f"Pictures left out: {count} ({reason})." for count, reason in reasons if count]


def _bound_search(search: SampleSearch, budget: _ImageBudget) -> SampleSearch:
    return SampleSearch(
        query_text=_shorten(search.query_text),
        query_image=budget.admit(search.query_image),
        columns=tuple(
            (name, tuple(_bound_hit(hit, budget) for hit in hits[:MAX_HITS])) for name, hits in search.columns
        ),
    )


def _bound_hit(hit: Hit, budget: _ImageBudget) -> Hit:
    return replace(hit, id=_shorten(hit.id), caption=_shorten(hit.caption), image=budget.admit(hit.image))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CAPTION else text[: MAX_CAPTION - 1].rstrip() + "…"


def _hit_values(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, "caption": hit.caption, "relevant": hit.relevant, "score": hit.score}
