"""The splits of Karpathy and Li (CVPR 2015): ``dataset_coco.json``, ``dataset_flickr30k.json``.

``images`` is a list of objects with ``filename``, for COCO ``filepath`` (its folder) and ``cocoid``,
``split`` (train, restval, val, test) and ``sentences``, each with ``raw`` and ``tokens``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossfade.datasets.image_texts.parts import require_splits, split_names
from crossfade.datasets.image_texts.picture_files import FileImageTexts, id_in, objects, read_json, text_in
from crossfade.errors import DataError


class KarpathyImageTexts(FileImageTexts):
    """Images and captions of a Karpathy JSON file.

    The ids are ``cocoid`` where every image has one, else the paths of the pictures.

    Args:
        path: the JSON file.
        images: root of the pictures, below which ``filepath/filename`` or ``filename`` is; unless given,
            the folder of the JSON file, or ``images`` in it.
        split: one or several: ``test``, ``train+restval``; all images if None.

    Raises:
        UnreadableFile: no such file or folder, no JSON, or none of the pictures is there.
        UsageError: no such split.
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
        entries = objects(read_json(file) if data is None else data, "images", file)
        if split is not None:
            require_splits(split, (text_in(entry, "split", where) for where, entry in entries), self.name)
        numbered = all(entry.get("cocoid") is not None for _, entry in entries)
        chosen = None if split is None else split_names(split)
        for where, entry in entries:
            if chosen is None or entry.get("split") in chosen:
                self._add_entry(entry, where, numbered)
        self._finish()

    def _add_entry(self, entry: dict[str, Any], where: str, numbered: bool) -> None:
        folder, name = text_in(entry, "filepath", where), text_in(entry, "filename", where)
        if not name:
            raise DataError(f"{where}: no 'filename'; is it a Karpathy split?")
        names = [f"{folder.rstrip('/')}/{name}", name] if folder else [name]
        image = id_in(entry, "cocoid", where) if numbered else names[0]
        self._add(image, names, _sentences(entry, where), where)


def _sentences(entry: dict[str, Any], where: str) -> list[str]:
    return [
        text_in(sentence, "raw", place) or _joined(sentence.get("tokens"), place)
        for place, sentence in _objects_of(entry, where)
    ]


def _objects_of(entry: dict[str, Any], where: str) -> list[tuple[str, dict[str, Any]]]:
    sentences = entry.get("sentences") or []
    if not isinstance(sentences, list) or not all(isinstance(one, dict) for one in sentences):
        raise DataError(f"{where}: 'sentences' should be a list of objects with 'raw'")
    return [(f"{where}, sentence {number}", sentence) for number, sentence in enumerate(sentences)]


def _joined(tokens: object, where: str) -> str:
    if tokens is None:
        return ""
    if not isinstance(tokens, list) or not all(isinstance(one, str) for one in tokens):
        raise DataError(f"{where}: 'tokens' should be a list of words")
    return " ".join(tokens)
