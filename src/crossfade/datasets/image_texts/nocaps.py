"""Captions in the layout of COCO, as nocaps publishes them (``nocaps_val_4500_captions.json``).

``images`` is a list of objects with ``id``, ``file_name`` (or ``coco_url``, ``open_images_id``) and, for
nocaps, ``domain``; ``annotations`` one of objects with ``image_id`` and ``caption``.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from crossfade.datasets.image_texts.parts import require_splits, split_names
from crossfade.datasets.image_texts.picture_files import FileImageTexts, id_in, objects, read_json, text_in
from crossfade.errors import DataError, UsageError


class NocapsImageTexts(FileImageTexts):
    """Images and captions of a JSON file in the layout of COCO; the ids are those of the images.

    Args:
        path: the JSON file.
        images: root of the pictures; unless given, the folder of the JSON file, or ``images`` in it.
        split: one or several domains of nocaps (``in-domain``, ``near-domain``, ``out-domain``); all
            images if None.

    Raises:
        UnreadableFile: no such file or folder, no JSON, or none of the pictures is there.
        UsageError: no such domain, or a set without domains.
        DataError: an entry is malformed, or a path leaves the root.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images: str | Path | None = None,
        split: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        file = Path(path)
        super().__init__(str(path), file, images, split)
        found = read_json(file) if data is None else data
        entries = objects(found, "images", file)
        chosen = self._choose(entries)
        captions: dict[int | str, list[str]] = {}
        for where, note in objects(found, "annotations", file):
            captions.setdefault(id_in(note, "image_id", where), []).append(text_in(note, "caption", where))
        for where, entry in entries:
            image = id_in(entry, "id", where)
            texts = captions.pop(image, [])
            if chosen is None or entry.get("domain") in chosen:
                self._add(image, _names(entry, where), texts, where)
        for image, texts in captions.items():
            self._gathering.captions(image, texts)
        self._finish()

    def _choose(self, entries: list[tuple[str, dict[str, Any]]]) -> tuple[str, ...] | None:
        if self._split is None:
            return None
        domains = [text_in(entry, "domain", where) for where, entry in entries]
        if not any(domains):
            raise UsageError(
                f"{self.name}: no split {self._split!r}, its images have no domains; leave the split out"
            )
        require_splits(self._split, domains, self.name)
        return split_names(self._split)


def _names(entry: dict[str, Any], where: str) -> list[str]:
    name = text_in(entry, "file_name", where)
    url = PurePosixPath(urlsplit(text_in(entry, "coco_url", where)).path).name
    number = text_in(entry, "open_images_id", where)
    names = [one for one in (name, url, f"{number}.jpg" if number else "") if one]
    if not names:
        raise DataError(f"{where}: no 'file_name'; say which picture it is")
    return names
